"""Logs as JSON lines: one text with its outcome per line.

A line is ``{"prompt": "...", "text": "...", "outcome": 0.3, "confounders": {"hour": 9},
"instruments": {"slot": 1}, "groups": {"author": "ann"}, "features": [0.1, 0.2]}``. The outcome and
the text, or its features, must be there; further names are left alone, null is a missing value.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.atomic import whole_file
from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json_lines

MAX_ROWS = 20_000_000
MAX_NAMES = 10_000
"""Confounders, instruments, groups or features of one row."""
_WHAT = "logs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logs:
    """Rows of logs, column by column.

    >>> logs = Logs(texts=["a", "b"], outcome=np.array([1.0, 2.0]), confounders={"hour": [3, 4]})
    >>> len(logs), logs.matrix("confounders").tolist()
    (2, [[3.0], [4.0]])
    """

    texts: Sequence[str]
    outcome: np.ndarray
    prompts: Sequence[str] = ()  # none, or one per row
    confounders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    instruments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # labels
    features: np.ndarray | None = None  # of the texts, (n, d)

    def __len__(self) -> int:
        return len(self.outcome)

    def matrix(self, role: str) -> np.ndarray | None:
        """The columns of a role ("confounders" or "instruments"); None if there are none."""
        columns = getattr(self, role)
        if not columns:
            return None
        return np.stack([np.asarray(c, np.float64) for c in columns.values()], axis=1)

    def chosen(self, role: str, names: Sequence[str]) -> "Logs":
        """The same logs with some columns of a role alone.

        Raises:
          UserError: there is no such column.
        """
        columns = getattr(self, role)
        for name in names:
            if name not in columns:
                there = ", ".join(columns) or "none"
                raise UserError(f"Expected {role} among {there}, found {name!r}.")
        return dataclasses.replace(self, **{role: {name: columns[name] for name in names}})


def read_logs(path: str | Path, *, max_rows: int = MAX_ROWS) -> Logs:
    r"""Logs from a file of JSON lines; see the head of this module.

    Args:
      path: the file.
      max_rows: rows that are taken at most; a longer file is refused.

    Raises:
      UserError: no such file, or what is wrong with which line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "logs.jsonl")
    ...     _ = path.write_text('{"text": "a", "outcome": 1}\n{"text": "b", "outcome": null}\n')
    ...     logs = read_logs(path)
    >>> logs.texts, logs.outcome.tolist()
    (['a', 'b'], [1.0, nan])
    """
    rows = _Rows(str(path))
    for record in read_json_lines(path, what=_WHAT):
        rows.add(record, max_rows)
    return rows.logs()


class _Rows:
    """Columns that grow by a line at a time; every line must have the names of the first."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.n = 0
        self.texts: list[str] = []
        self.prompts: list[str] = []
        self.outcome: list[float] = []
        self.features: list[np.ndarray] = []
        self.columns: dict[str, dict[str, list[Any]]] = {}

    def add(self, record: dict[str, Any], max_rows: int) -> None:
        self.n += 1
        if self.n > max_rows:
            raise UserError(f"Expected at most {max_rows:,} rows in {self.source}, found more.")
        if "outcome" not in record:
            there = readable(", ".join(map(str, list(record)[:10])))
            raise self._wrong("an outcome", f"{there or 'no names'}")
        self.outcome.append(self._number(record["outcome"], "a number as outcome"))
        self.texts.append(self._text(record, "text"))
        self.prompts.append(self._text(record, "prompt"))
        if (features := record.get("features")) is not None:
            self.features.append(self._features(features))
        if not self.texts[-1] and features is None:
            raise self._wrong("a text or its features", "neither")
        for role in ("confounders", "instruments", "groups"):
            self._add_columns(role, record.get(role, {}))

    def _add_columns(self, role: str, given: Any) -> None:
        if not isinstance(given, dict) or len(given) > MAX_NAMES:
            raise self._wrong(f"{role} by name", readable(repr(given))[:80])
        if self.n == 1:
            self.columns[role] = {name: [] for name in given}
        columns = self.columns[role]
        if given.keys() != columns.keys():
            wanted, found = ", ".join(columns) or "none", ", ".join(given) or "none"
            raise self._wrong(f"{role} as in the first line ({readable(wanted)})", readable(found))
        for name, value in given.items():
            if role == "groups":
                if not isinstance(value, str | int) or isinstance(value, bool):
                    raise self._wrong(
                        f"a text or a whole number as group {readable(name)}", repr(value)[:40]
                    )
                columns[name].append(value)
            else:
                columns[name].append(self._number(value, f"a number as {readable(name)}"))

    def _number(self, value: Any, what: str) -> float:
        if value is None:
            return float("nan")
        if isinstance(value, bool | int | float):
            return float(value)
        raise self._wrong(what, readable(repr(value))[:40])

    def _text(self, record: dict[str, Any], name: str) -> str:
        value = record.get(name, "")
        if not isinstance(value, str):
            raise self._wrong(f"a string as {name}", readable(repr(value))[:40])
        return value

    def _features(self, values: Any) -> np.ndarray:
        good = isinstance(values, list) and 0 < len(values) <= MAX_NAMES
        if not good or not all(isinstance(v, int | float) for v in values):
            raise self._wrong("a list of numbers as features", readable(repr(values))[:40])
        row = np.array(values, np.float64)
        if self.features and len(row) != len(self.features[0]):
            raise self._wrong(f"{len(self.features[0])} features", f"{len(row)}")
        return row

    def _wrong(self, expected: str, found: str) -> UserError:
        return UserError(f"Expected {expected} in line {self.n} of {self.source}, found {found}.")

    def logs(self) -> Logs:
        if self.n == 0:
            raise UserError(
                f"Expected lines with a text and its outcome in {self.source}, found none."
            )
        if self.features and len(self.features) != self.n:
            raise UserError(
                f"Expected features in all lines of {self.source} or in none, found them in "
                f"{len(self.features)} of {self.n}."
            )
        roles = {
            role: {name: self._column(role, values) for name, values in columns.items()}
            for role, columns in self.columns.items()
        }
        return Logs(
            texts=self.texts,
            prompts=self.prompts if any(self.prompts) else (),
            outcome=np.array(self.outcome, np.float64),
            features=np.stack(self.features) if self.features else None,
            **roles,
        )

    @staticmethod
    def _column(role: str, values: list[Any]) -> np.ndarray:
        if role != "groups":
            return np.array(values, np.float64)
        texts = any(isinstance(v, str) for v in values)
        return np.array([str(v) for v in values] if texts else values)


def write_rewards(
    source: str | Path,
    output: str | Path,
    rewards: Sequence[float] | np.ndarray,
    kept: Sequence[bool] | np.ndarray | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Copy logs line by line, each with its reward; all of them or no file.

    Args:
      source: the logs, as `read_logs` takes them.
      output: the new file.
      rewards: one for each row that is kept.
      kept: which rows of the source are; None for all.
      overwrite: replace a file of that name.

    Returns:
      Lines that were written.

    Raises:
      UserError: the file exists or cannot be written, or the logs have changed meanwhile.
    """
    values = iter(np.asarray(rewards, np.float64).tolist())
    count = 0
    with whole_file(Path(output), overwrite=overwrite) as temporary, temporary.open("w") as file:
        for record in _those(read_json_lines(source, what=_WHAT), kept):
            reward = next(values, None)
            if reward is None:
                break
            file.write(json.dumps({**record, "reward": reward}, ensure_ascii=False) + "\n")
            count += 1
        if count != len(rewards):
            raise UserError(
                f"Expected {len(rewards)} rows in {source}, found {count}: the file has changed."
            )
    return count


def _those(records: Iterator[dict[str, Any]], kept: Any) -> Iterator[dict[str, Any]]:
    if kept is None:
        yield from records
        return
    for record, good in zip(records, kept, strict=False):
        if good:
            yield record
