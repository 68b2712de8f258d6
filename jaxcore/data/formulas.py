"""Formulas: outcome, treatment, instrument and covariates from a line of text and a table."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcore.data.tables import Table
from jaxcore.errors import UserError

ROLES = ("outcome", "treatment", "instrument")
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_NO_COVARIATES = ("", "1", "0", "-1")


class Parts(NamedTuple):
    """What a formula says of a table."""

    columns: tuple[np.ndarray, ...]  # one per role; named columns as they are, text too
    named: tuple[str, ...]  # what the formula calls them
    X: np.ndarray  # n, p
    covariates: tuple[str, ...]


def formula_parts(
    formula: str, table: Table, roles: Sequence[str] = ROLES, *, other: Sequence[str] = ()
) -> Parts:
    """A column for each role, the covariates and their names from a formula.

    Args:
      formula: ``outcome ~ treatment | instrument | covariates``; the covariates may use the
        functions of formulaic, such as ``bs(age, 4)`` and ``C(married)``, and ``.`` for all columns
        that stand nowhere else. The constant is left out. Without covariates the last part is left
        out. Also as linearmodels writes it, ``y ~ x + [a ~ z]``, and ivreg, ``y ~ a + x | z + x``.
        Rows with missing values, of text too, stay in, as NaN in the terms they enter; they have no
        part in knots, means and categories.
      table: the data.
      roles: of the single columns: what stands before the covariates.
      other: columns that ``.`` leaves out (weights, clusters).

    Raises:
      UserError: formulaic is not installed, or what is wrong with the formula.
    """
    import pandas as pd

    table.check([])
    *single, last = _in_parts(formula, roles)
    frame = pd.DataFrame({name: table.values(name) for name in table.names})
    columns, named = [], []
    for role, part in zip(roles, single, strict=True):
        name = part.strip("`")
        if name in table.columns:
            column = table.values(name)
        else:
            matrix = _matrix(part, frame, table)
            if matrix.shape[1] != 1:
                raise UserError(
                    f"Expected one column for the {role} in {formula!r}, read as "
                    f"{' ~ '.join([roles[0], ' | '.join([*roles[1:], 'covariates'])])}, found "
                    f"{matrix.shape[1]}."
                )
            name, column = str(matrix.columns[0]), matrix.iloc[:, 0].to_numpy(np.float64)
        columns.append(column)
        named.append(name)
    if last in _NO_COVARIATES:
        return Parts(tuple(columns), tuple(named), np.zeros((len(table), 0)), ())
    used = {variable for part in single for variable in _variables(part)} | set(named) | set(other)
    X = _matrix(_without_dot(last, [n for n in table.names if n not in used]), frame, table)
    return Parts(tuple(columns), tuple(named), X.to_numpy(np.float64), tuple(map(str, X.columns)))


def _in_parts(formula: str, roles: Sequence[str]) -> list[str]:
    """Text of every role and of the covariates, from any of the forms.

    >>> _in_parts("y ~ x + [a ~ z]", ROLES), _in_parts("y ~ a + x | z + x", ROLES)
    (['y', 'a', 'z', 'x'], ['y', 'a', 'z', 'x'])
    """
    shape = f"{roles[0]} ~ {' | '.join([*roles[1:], 'covariates'])}"
    refusal = UserError(f"Expected a formula {shape!r}, found {formula!r}.")
    halves = _split(formula, "~")
    if len(halves) != 2 or not all(halves):
        raise refusal
    left, right = halves
    inner = re.search(r"\[([^\[\]~]+)~([^\[\]~]+)\]", right)
    if inner is not None and len(roles) == len(ROLES):  # linearmodels
        rest = _split(right[: inner.start()] + right[inner.end() :], "+")
        return [left, inner[1].strip(), inner[2].strip(), _sum(t for t in rest if t != "1")]
    parts = _split(right, "|")
    if len(parts) == len(roles) and all(parts):
        return [left, *parts]
    if len(parts) != len(roles) - 1 or not all(parts):
        raise refusal
    if len(parts) == 1:  # no covariates
        if len(_split(parts[0], "+")) > 1:
            raise refusal
        return [left, parts[0], ""]
    first, second = ([t for t in _split(part, "+") if t != "1"] for part in parts)  # ivreg
    treatment, instrument = (
        [t for t in a if t not in b] for a, b in ((first, second), (second, first))
    )
    if len(treatment) != 1 or len(instrument) != 1:
        raise refusal
    return [left, *treatment, *instrument, _sum(t for t in first if t in second)]


def _sum(terms: Any) -> str:
    return " + ".join(term for term in terms if term)


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that stand outside of brackets and quotes.

    >>> _split("a | f(b | c) | `d|e`", "|")
    ['a', 'f(b | c)', '`d|e`']
    """
    out, start, closing, quote = [], 0, [], ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'`":
            quote = c
        elif c in _PAIRS:
            closing.append(_PAIRS[c])
        elif closing and c == closing[-1]:
            closing.pop()
        elif c == separator and not closing:
            out.append(text[start:i].strip())
            start = i + 1
    return [*out, text[start:].strip()]


def _without_dot(part: str, rest: Sequence[str]) -> str:
    """``.`` as the sum of the remaining columns."""
    if re.search(r"(?<![\w.`'\")\]])\.(?![\w.`'\"(])", part) is None:
        return part
    every = " + ".join(f"`{name}`" for name in rest) or "1"
    return re.sub(r"(?<![\w.`'\")\]])\.(?![\w.`'\"(])", lambda _: f"({every})", part)


def _variables(part: str) -> set[str]:
    """Names of columns that a part of a formula uses."""
    return {str(name) for name in getattr(_parsed(part), "required_variables", ())}


def _parsed(part: str) -> Any:
    try:
        import formulaic
        from formulaic.errors import FormulaicError
    except ImportError as error:
        raise UserError(
            "Expected formulaic for formulas (pip install 'jaxcore[frames]'), found it is not "
            "installed."
        ) from error
    make: Any = formulaic.Formula  # a factory that looks like an abstract class
    try:
        return make(part)
    except (FormulaicError, SyntaxError) as error:
        raise UserError(
            f"Expected terms such as 'x1 + C(x2) + bs(x3, 4)' in a formula, found {part!r}."
        ) from error


def _matrix(part: str, frame: Any, table: Table) -> Any:
    """Columns of one part of a formula, the constant left out."""
    parsed = _parsed(part)
    table.check(sorted(_variables(part)))
    try:
        with np.errstate(all="ignore"):  # what is not finite is counted by whoever uses it
            matrix = _model_matrix(parsed, frame, table.source)
    except UserError:
        raise
    except Exception as error:  # whatever the functions of a formula raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"Expected terms that {table.source} can fill, found that {part!r} cannot be computed: "
            f"{reason[0]}"
        ) from error
    return matrix.drop(columns="Intercept", errors="ignore")


def _model_matrix(part: Any, frame: Any, source: str) -> Any:
    """Columns of one part of a formula; terms with missing values are fitted on the other rows.

    formulaic would take a missing category for the reference, and a mean over NaN for NaN.
    """
    import pandas as pd

    def fitted(rows: Any) -> tuple[Any, Any]:
        matrix = part.get_model_matrix(rows, na_action="ignore", context={})
        return matrix, matrix.model_spec

    whole, spec = fitted(frame)
    pieces = []
    for term, used in spec.term_variables.items():
        named = [name for name in frame.columns if name in used]
        there = frame[named].notna().all(axis=1)
        if not there.any():
            raise UserError(f"Expected some values of {term} in {source}, found only missing ones.")
        matrix, own = (whole, spec) if there.all() else fitted(frame[there])
        pieces.append(matrix.iloc[:, own.term_indices[term]].reindex(frame.index))
    return pd.concat(pieces, axis=1) if pieces else whole
