"""What the READMEs show: Python runs, commands are understood, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from jaxcore import cli

ROOT = Path(__file__).parent.parent
FOLDERS = ("models", "estimators", "benchmarks", "docs", "examples")
WHOLE = ("docs", "examples")  # whose Python runs as one, in tests/estimators/test_pages.py
PAGES = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
PAGES = sorted(page for page in PAGES if "data" not in page.parts)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(language):
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}:{i}")
        for page in PAGES
        if language != "python" or page.relative_to(ROOT).parts[0] not in WHOLE
        for i, (kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]


def commands():
    """Lines such as ``jaxcore restore ...`` without their remarks; \\ continues a line."""
    for param in blocks(""):
        for line in param.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["jaxcore"]:
                yield pytest.param(words[1:], id=" ".join(words)[:60])


# Blocks that need files a reader brings along are marked so in the page.
@pytest.mark.parametrize("text", [p for p in blocks("python") if "adair5d.ckpt" not in p.values[0]])
def test_python_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "README", "exec"), {})


@pytest.mark.parametrize("argv", list(commands()))
def test_commands_are_understood(argv):
    if argv[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            cli.parse(argv)
        assert stop.value.code == 0
    else:
        assert callable(cli.parse(argv))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
