"""Published logs in their own layouts: Upworthy, StackExchange and MIND. Only readers: no data.

Each gives `Logs` with the outcome and the confounders that the layout records.
"""

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.data.logs.records import MAX_ROWS, Logs
from jaxcore.errors import UserError, readable
from jaxcore.json_files import MAX_LINE_BYTES, read_json_lines

_HOURS = 3600.0


def read_upworthy(path: str | Path) -> Logs:
    """The Upworthy Research Archive: headlines tested against each other, as CSV.

    The outcome is clicks per impression; groups are the ``test``, within which arms are
    randomised, and the ``week``; ``log_impressions`` counts as a confounder across tests, where
    traffic differs.

    Raises:
      UserError: no such file, or a column that is not there.
    """
    from jaxcore.data.table_files import read_table

    table = read_table(path)
    needed = ("clickability_test_id", "headline", "impressions", "clicks", "created_at")
    table.check(needed)
    shown, clicks = table.numbers("impressions"), table.numbers("clicks")
    good = shown > 0
    rate = np.divide(clicks, shown, out=np.full(len(shown), np.nan), where=good)
    texts = [str(text) for text in table.values("headline")]
    excerpt = "excerpt" if "excerpt" in table.columns else None
    prompts = [str(v or "") for v in table.values(excerpt)] if excerpt else ()
    return Logs(
        texts=texts,
        prompts=prompts,
        outcome=rate,
        confounders={"log_impressions": np.log(np.where(good, shown, np.nan))},
        groups={
            "test": table.values("clickability_test_id").astype(str),
            "week": np.array([_week(v) for v in table.values("created_at")]),
        },
    )


def _week(value: Any) -> str:
    """Year and week of a date."""
    try:
        day = datetime.date.fromisoformat(str(value)[:10])
    except ValueError:
        return "unknown"
    year, week, _ = day.isocalendar()
    return f"{year}-{week:02d}"


def within_tests(logs: Logs, group: str = "test") -> np.ndarray:
    """Outcomes less the mean of their test: contrasts of a randomised experiment.

    Only these may judge a policy; outcomes across tests are observational.

    >>> outcome, tests = np.array([1.0, 3.0, 5.0]), {"test": ["x", "x", "y"]}
    >>> within_tests(Logs(texts="abc", outcome=outcome, groups=tests)).tolist()
    [-1.0, 1.0, 0.0]
    """
    number = np.unique(np.asarray(logs.groups[group]).astype(str), return_inverse=True)[1]
    there = np.isfinite(logs.outcome)
    total = np.bincount(number, np.where(there, logs.outcome, 0))
    count = np.bincount(number, there)
    return logs.outcome - (total / np.maximum(count, 1))[number]


def read_stack_exchange(path: str | Path) -> Logs:
    """Questions with scored answers, one question per line of JSON.

    A line is ``{"question": "...", "created": 1.6e9, "answers": [{"text": "...", "score": 3,
    "created": 1.6e9, "author": "ann", "accepted": true}]}`` with seconds or ISO dates. The outcome
    is the score; confounders are the ``hours`` since the question (or its first answer) and the
    ``place`` among the answers; the group is the ``author``.

    Raises:
      UserError: no such file, or what is wrong with which line.
    """
    texts: list[str] = []
    prompts: list[str] = []
    rows: list[tuple[float, float, int, str]] = []
    what = "questions with answers"
    for number, record in enumerate(read_json_lines(path, what=what), 1):
        question, answers = record.get("question"), record.get("answers")
        if not isinstance(question, str) or not isinstance(answers, list):
            raise UserError(
                f"Expected a question and a list of answers in line {number} of {path}, found "
                f"{readable(', '.join(map(str, list(record)[:10]))) or 'neither'}."
            )
        where = f"line {number} of {path}"
        times = [_seconds(answer, where) for answer in answers]
        begin = _seconds(record, where) if "created" in record else min(times, default=0.0)
        for place, (time, answer) in enumerate(
            sorted(zip(times, answers, strict=True), key=lambda pair: pair[0])
        ):
            texts.append(_field(answer, "text", str, where))
            prompts.append(question)
            score = float(_field(answer, "score", int | float, where))
            author = str(answer.get("author", "unknown"))
            rows.append((score, (time - begin) / _HOURS, place, author))
        if len(rows) > MAX_ROWS:
            raise UserError(f"Expected at most {MAX_ROWS:,} answers in {path}, found more.")
    if not rows:
        raise UserError(f"Expected answers in {path}, found none.")
    score, hours, place, author = zip(*rows, strict=True)
    return Logs(
        texts=texts,
        prompts=prompts,
        outcome=np.array(score),
        confounders={"hours": np.array(hours), "place": np.array(place, np.float64)},
        groups={"author": np.array(author)},
    )


def _field(answer: Any, name: str, kind: Any, where: str) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(
            f"Expected answers with {name} in {where}, found {readable(repr(value))[:40]}."
        )
    return value


def _seconds(record: Any, where: str) -> float:
    """Seconds of a time stamp, or of an ISO date."""
    value = _field(record, "created", str | int | float, where)
    if not isinstance(value, str):
        return float(value)
    try:
        when = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise UserError(
            f"Expected an ISO date as created in {where}, found {readable(repr(value))[:40]}."
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return when.timestamp()


def preference_score(votes: float, *, accepted: bool = False) -> float:
    """Score of an answer as public preference sets round it.

    ``round(log2(1 + votes))``, one more if it was accepted, -1 for negative votes.

    >>> preference_score(7), preference_score(7, accepted=True), preference_score(-2)
    (3.0, 4.0, -1.0)
    """
    if votes < 0:
        return -1.0
    return float(round(math.log2(1 + votes)) + accepted)


def read_mind(folder: str | Path) -> Logs:
    """The MIND news data: ``news.tsv`` and ``behaviors.tsv`` of a folder; titles and clicks.

    One row for each news item that was shown. The outcome is clicks per impression, the confounder
    ``log_impressions`` (how popular the recommender took it to be), groups are the ``category`` and
    ``subcategory``. The data must not be passed on: their licence is Microsoft's.

    Raises:
      UserError: no such files, or lines of another form.
    """
    folder = Path(folder)
    shown: dict[str, list[int]] = {}
    for where, row in _tab_separated(folder / "behaviors.tsv", 5):
        for item in row[4].split():
            name, mark, clicked = item.rpartition("-")
            if not mark or clicked not in ("0", "1"):
                raise UserError(
                    f"Expected impressions such as N1-0 in {where}, found {readable(item)[:40]}."
                )
            count = shown.setdefault(name, [0, 0])
            count[0] += 1
            count[1] += clicked == "1"
    texts, prompts, rows = [], [], []
    for _, row in _tab_separated(folder / "news.tsv", 4):
        if row[0] in shown:
            many, clicks = shown[row[0]]
            texts.append(row[3])
            prompts.append(row[2])
            rows.append((clicks / many, math.log(many), row[1], row[2]))
    if not rows:
        raise UserError(f"Expected news in {folder} that were shown, found none.")
    rate, popularity, category, subcategory = zip(*rows, strict=True)
    return Logs(
        texts=texts,
        prompts=prompts,
        outcome=np.array(rate),
        confounders={"log_impressions": np.array(popularity)},
        groups={"category": np.array(category), "subcategory": np.array(subcategory)},
    )


def _tab_separated(path: Path, least: int) -> Iterator[tuple[str, list[str]]]:
    """Where each line is, and its fields; a line is held at a time."""
    if not path.is_file():
        raise UserError(f"Expected a file {path}, found none.")
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"line {number} of {path}"
            if number > MAX_ROWS or len(line) > MAX_LINE_BYTES:
                raise UserError(
                    f"Expected at most {MAX_ROWS:,} lines of {MAX_LINE_BYTES:,} bytes in {path}, "
                    "found more."
                )
            try:
                fields = line.decode("utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError:
                raise UserError(f"Expected UTF-8 in {where}, found other bytes.") from None
            if len(fields) < least:
                raise UserError(
                    f"Expected at least {least} fields between tabs in {where}, found "
                    f"{len(fields)}."
                )
            yield where, fields
