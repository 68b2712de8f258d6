"""The Python of the pages in ``examples/`` runs, top to bottom, and says what the page says."""

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("page", sorted(EXAMPLES.glob("*.md")), ids=lambda p: p.name)
def test_page(page, capsys):
    text = page.read_text()
    names = {}
    for block in BLOCK.findall(text):
        exec(compile(block, page.name, "exec"), names)
    result, printed = names["result"], capsys.readouterr().out
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
