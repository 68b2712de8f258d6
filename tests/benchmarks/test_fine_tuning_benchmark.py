"""The benchmark of fine-tuning in its smoke mode, without the rival."""

import json
import sys

import pytest

from benchmarks import fine_tuning


@pytest.mark.slow
def test_it_measures_steps_and_completions_beside_the_machine(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trl", None)  # as if it were not installed
    path = tmp_path / "fine_tuning.json"
    fine_tuning.main(smoke=True, output=path)
    found = json.loads(path.read_text())["tiny"]
    for name in ("dpo", "grpo", "completions"):
        assert found[name]["jaxcore"]["tokens_per_s"] > 0
        assert found[name]["limit_tokens_per_s"] > 0
    assert found["dpo"]["loss"] < 0.6931  # something was learned of the pairs
