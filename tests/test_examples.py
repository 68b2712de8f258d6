"""The example files run as their first lines say."""

import json
import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_task_of_ones_own_learns_and_is_done(tmp_path, monkeypatch, capsys):
    run = tmp_path / "curve"
    monkeypatch.setattr(sys, "argv", ["own_task.py", str(run)])
    runpy.run_path(str(EXAMPLES / "own_task.py"), run_name="__main__")
    found = capsys.readouterr().out
    assert float(found.split()[-1]) < 0.1
    assert json.loads((run / "config.json").read_text())["task_config"] == {"width": 32, "rows": 64}
    runpy.run_path(str(EXAMPLES / "own_task.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1] == found.splitlines()[-1]
