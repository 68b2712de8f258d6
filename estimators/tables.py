"""Tables of estimates: plain text, Markdown, LaTeX, HTML; one estimate, or several side by side."""

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jaxcore.errors import UserError, readable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """Cells of a table and what stands around them; the first column has the names of the rows.

    >>> print(Sheet(title="t", head=("", "estimate"), rows=(("ATE", "1.5"),)).text())
    t
         estimate
    -------------
    ATE       1.5
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    about: tuple[tuple[str, str], ...] = ()  # what it was made from
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal; names from files can do nothing to it."""
        lines = [tuple(map(readable, row)) for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

        def line(row: tuple[str, ...]) -> str:
            cells = [row[0].ljust(widths[0])]
            cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            return "  ".join(cells).rstrip()

        out = [readable(self.title)]
        if self.about:
            told = "; ".join(f"{name}: {value}" for name, value in self.about)
            out.append(readable(told, len(told)))
        out += [line(lines[0]), "-" * (sum(widths) + 2 * (len(widths) - 1))]
        out += map(line, lines[1:])
        out += [f"note: {readable(note, len(note))}" for note in self.notes]
        return "\n".join([*out, *self.details])

    def markdown(self) -> str:
        """For a page or a notebook."""
        rows = [self.head, tuple("---" for _ in self.head), *self.rows]
        table = ["| " + " | ".join(map(_markdown, row)) + " |" for row in rows]
        below = [f"- {_markdown(line)}" for line in self._below()]
        return "\n".join(
            [f"**{_markdown(self.title)}**", "", *table, *([""] if below else []), *below]
        )

    def latex(self) -> str:
        """For a paper: a ``tabular`` with the rules of the package booktabs, and notes below."""
        rows = [" & ".join(map(_latex, row)) + r" \\" for row in (self.head, *self.rows)]
        below = [_latex(line) + r"\\" for line in self._below()]
        return "\n".join(
            [
                r"% \usepackage{booktabs}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
                rf"\multicolumn{{{len(self.head)}}}{{l}}{{{_latex(self.title)}}} \\",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
                *([r"\par\footnotesize", *below] if below else []),
            ]
        )

    def html(self) -> str:
        """For a notebook or a page; nothing in it runs."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{_html(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        below = "".join(f"<li>{_html(line)}</li>" for line in self._below())
        return (
            f"<table><caption>{_html(self.title)}</caption>"
            f"<thead>{row(self.head, 'th')}</thead><tbody>{body}</tbody></table>"
            + (f"<ul>{below}</ul>" if below else "")
        )

    def _below(self) -> list[str]:
        about = [f"{name}: {value}" for name, value in self.about]
        return [*about, *(f"note: {note}" for note in self.notes), *self.details]


FORMS: dict[str, Callable[[Sheet], str]] = {
    "text": Sheet.text,
    "markdown": Sheet.markdown,
    "latex": Sheet.latex,
    "html": Sheet.html,
}


def formatted(sheet: Sheet, form: str) -> str:
    """A table in one of `FORMS`.

    Raises:
      UserError: another form.
    """
    if form not in FORMS:
        raise UserError(f"Expected a form of {', '.join(FORMS)}, found {form!r}.")
    return FORMS[form](sheet)


def _markdown(text: str) -> str:
    plain = readable(text, len(text)).replace("\\", "\\\\")
    for c in "|*_`<[":
        plain = plain.replace(c, "\\" + c)
    return plain


_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def _latex(text: str) -> str:
    r"""Names of columns are no commands.

    >>> _latex("x_1 & 5%")
    'x\\_1 \\& 5\\%'
    """
    return "".join(_LATEX.get(c, c) for c in readable(text, len(text)))


def _html(text: str) -> str:
    return html.escape(readable(text, len(text)))


class Tabled(Protocol):
    """A fit or an estimate that can stand beside others."""

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict per estimate."""
        ...

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names and values that stand below the estimates: units, folds, ..."""
        ...


def side_by_side(
    fits: Mapping[str, Tabled], *, level: float = 0.95, form: str = "text", title: str = "estimates"
) -> str:
    """Several estimates as the columns of one table: estimate, error, interval, and the facts.

    Args:
      fits: fits or estimates by the heads of their columns.
      level: coverage of the intervals.
      form: "text", "markdown", "latex" or "html".
      title: above the table.

    Raises:
      UserError: nothing to show, or an unknown form.

    >>> import numpy as np
    >>> from jaxcore.estimators.estimate import Estimate
    >>> e = Estimate(theta=np.array(1.0), se=np.array(0.5), psi=np.zeros(4), names=("ATE",))
    >>> print(side_by_side({"one": e, "two": e}))
    estimates
                       one              two
    ---------------------------------------
    ATE                  1                1
                     (0.5)            (0.5)
    95%    [0.02002, 1.98]  [0.02002, 1.98]
    units                4                4
    """
    if not fits:
        raise UserError("Expected at least one estimate for a table, found none.")
    names = list(dict.fromkeys(r["name"] for fit in fits.values() for r in fit.rows(level)))
    lines: list[tuple[str, ...]] = []
    for name in names:
        found = [
            next((r for r in fit.rows(level) if r["name"] == name), None) for fit in fits.values()
        ]
        lines.append((name, *(f"{r['estimate']:.4g}" if r else "" for r in found)))
        lines.append(("", *(f"({r['std_error']:.4g})" if r else "" for r in found)))
        ends = (f"[{r['lower']:.4g}, {r['upper']:.4g}]" if r else "" for r in found)
        lines.append((f"{100 * level:g}%", *ends))
    facts = [dict(fit.facts()) for fit in fits.values()]
    for name in dict.fromkeys(name for one in facts for name in one):
        lines.append((name, *(one.get(name, "") for one in facts)))
    return formatted(Sheet(title=title, head=("", *fits), rows=tuple(lines)), form)
