"""The benchmark of group effects in its smoke mode."""

import json
import sys

from benchmarks import deconfound


def test_it_measures_time_memory_and_agreement(monkeypatch, tmp_path):
    for rival in deconfound.RIVALS:  # as if they were not installed
        monkeypatch.setitem(sys.modules, rival, None)
    monkeypatch.setattr(deconfound, "limits", lambda *names: {})
    path = tmp_path / "deconfound.json"
    deconfound.main(smoke=True, output=path)
    record = json.loads(path.read_text())
    assert record["large"]["worst_error_in_standard_errors"] < 6
    assert record["large"]["peak_memory_gb"] > 0
    parts = {"equal": {"blocks", "demean"}, "two_kinds": {"cg", "alternating"}, "chain": {"cg"}}
    for part, names in parts.items():
        assert record[part]["apart"].keys() == record[part]["times"].keys() == names
        assert max(record[part]["apart"].values()) < 1e-6
