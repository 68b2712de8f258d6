"""The Python of the pages in ``docs/`` and ``examples/`` runs, top to bottom, as they say.

A block of text after one of Python is what it prints, to a thousandth; numbers with a decimal point
elsewhere in a page of ``docs/`` are roundings of printed ones.
"""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.M | re.S)
NUMBER = re.compile(r"(?:(?<=[\s\[(=])-)?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def words_and_numbers(text):
    """The text without numbers, widths of columns and the version; and the numbers."""
    text = re.sub(r"jaxcore: \S+", "", text)
    rest = re.sub(r"[\s-]+", " ", NUMBER.sub("#", text))
    return rest.strip(), [float(x) for x in NUMBER.findall(text)]


def is_rounding(quoted, printed):
    digits = len(quoted.partition(".")[2])
    return any(abs(float(quoted) - abs(x)) <= 0.5001 * 10**-digits for x in printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, names, printed = page.read_text(), {}, ""
    for block, shown in BLOCK.findall(text):
        exec(compile(block, page.name, "exec"), names)
        out = capsys.readouterr().out
        printed += out
        if shown:
            (said, quoted), (really, found) = words_and_numbers(shown), words_and_numbers(out)
            assert said == really
            np.testing.assert_allclose(quoted, found, rtol=1e-3, atol=1e-3, err_msg=out)
    if page.is_relative_to(ROOT / "docs"):
        prose = re.sub(r"^```.*?^```|`[^`]*`", "", text, flags=re.M | re.S)
        _, found = words_and_numbers(printed)
        quoted = re.findall(r"\d+\.\d+", prose)
        assert [x for x in quoted if not is_rounding(x, found)] == []
    else:
        check_savings(text, names["result"], printed)


def check_savings(text, result, printed):
    """The table of estimators side by side."""
    assert "one-sided" in printed
    assert f"| selective IV | see below | {result.theta:.2f} ({result.se:.2f}) |" in text
    for other, row in zip(
        result.baselines(),
        (
            "OLS |",
            "OLS with Z |",
            "AIPW, linear |",
            "2SLS |",
            "LATE, linear and logistic |",
            "GENIUS |",
        ),
        strict=False,
    ):
        line = next(x for x in text.splitlines() if x.startswith(f"| {row}"))
        assert f"{float(other.theta):.2f} ({float(other.se):.2f})" in line, (line, other.theta)
