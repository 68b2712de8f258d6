"""The benchmark of folders in its smoke mode."""

import json

import pytest

from benchmarks import folders


def test_it_measures_the_network_the_folder_and_one_by_one(monkeypatch, tmp_path):
    pytest.importorskip("skimage")
    monkeypatch.setattr(folders, "limits", lambda *names: {})
    folders.main(smoke=True, output=tmp_path / "found.json", parts=("dea_net",))
    found = json.loads((tmp_path / "found.json").read_text())["dea_net"]
    assert found["pictures"] == found["sizes"] == 4
    assert found["times"].keys() == {"network", "folder", "one_by_one"}
    assert found["times"]["network"]["of_network"] == 1
    assert found["times"]["folder"]["processor_of_network"] > 0
