"""The benchmarks' harness on a tiny function, and one whole benchmark in its smoke mode."""

import json
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from benchmarks import dea_net, harness, restoration
from jaxcore.errors import UserError


def square(x):
    return x @ x


def test_a_compiled_program_runs_and_states_its_cost():
    x = jnp.ones((8, 8))
    program = harness.compiled(square, x)
    assert program.call()[0, 0] == 8
    assert program.facts["compile_s"] >= 0
    assert program.facts["memory_mb"] >= 0
    assert harness.gflop(square, jnp.ones((100, 100))) == pytest.approx(2e-3, rel=0.02)


def test_rivals_take_turns_and_the_order_turns_too(monkeypatch):
    monkeypatch.setattr(harness, "PAUSE", 0)
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    times = harness.interleaved(calls, 2)
    assert "".join(seen) == "abc" + "bca" + "cab"  # the first turn is the warm-up
    assert {t["repeats"] for t in times.values()} == {2}
    for t in times.values():
        assert t["min_s"] <= t["quartiles_s"][0] <= t["median_s"] <= t["quartiles_s"][1]


def test_ratios_are_against_each_rival_and_the_fastest():
    times = {"us": {"median_s": 2.0}, "a": {"median_s": 6.0}, "b": {"median_s": 3.0}}
    found = harness.ratios(times, "us", ("a", "b"))
    assert found == {"over_a": 3.0, "over_b": 1.5, "over_fastest": 1.5}


def test_results_are_replaced_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    harness.write({"a": 1}, path)
    harness.write({"a": 2}, path)
    assert json.loads(path.read_text()) == {"a": 2}
    with pytest.raises(TypeError):
        harness.write({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    with pytest.raises(UserError):
        harness.write({}, tmp_path)


def run_restoration(monkeypatch, path, parts):
    monkeypatch.setitem(sys.modules, "deepinv", None)  # as if it were not installed
    restoration.main(smoke=True, output=path, parts=parts)
    record = json.loads(path.read_text())
    assert record.keys() == set(parts)
    for found in record.values():
        assert found["rival"]["absent"].startswith("not installed: ")
        assert found["smoke"] and found["environment"]["versions"]["jax"]
    return record


def one_product(monkeypatch, module, name):
    """In place of the network, whose programs take a minute to compile."""
    network = SimpleNamespace(
        init=lambda key, cfg: {"kernel": jnp.ones((3, 4096))},
        apply=lambda params, x, cfg: x @ params["kernel"] @ params["kernel"].T,
    )
    monkeypatch.setattr(module, name, network)


WITH_THE_NETWORK = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["stub", "network"]
)


@WITH_THE_NETWORK
def test_restoration_without_its_rival(tmp_path, monkeypatch, whole):
    if not whole:
        one_product(monkeypatch, restoration, "adair")
    path = tmp_path / "restoration.json"
    record = run_restoration(monkeypatch, path, ("restormer_forward",))
    forward = record["restormer_forward"]["forward_16"]
    assert forward["scan"]["median_s"] > 0 and forward["gflop"] > 0
    assert "over_fastest" not in forward["scan"]


def run_dea_net(monkeypatch, path, parts):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    dea_net.main(smoke=True, output=path, parts=parts)
    record = json.loads(path.read_text())
    assert record.keys() == set(parts)
    for found in record.values():
        assert found["rival"]["absent"] == "not installed: torch"
        assert found["smoke"] and found["environment"]["versions"]["jax"]
    return record


@WITH_THE_NETWORK
def test_dea_net_without_its_rival(tmp_path, monkeypatch, whole):
    if not whole:
        one_product(monkeypatch, dea_net, "dea_net")
    found = run_dea_net(monkeypatch, tmp_path / "dea_net.json", ("forward_256",))["forward_256"]
    assert found["scan"]["median_s"] > 0 and found["unrolled"]["compile_s"] >= 0
    assert found["gflop"] > 0
    assert "over_fastest" not in found["scan"] and "published_gflop" not in found


@pytest.mark.slow
def test_dea_net_with_training_steps(tmp_path, monkeypatch):
    found = run_dea_net(monkeypatch, tmp_path / "dea_net.json", ("step",))["step"]
    assert found["gradients"]["float64_by_tensor"] < 1e-9
    assert found["merged"]["over_five_convolutions"] > 0


@pytest.mark.slow
def test_restoration_with_training_steps(tmp_path, monkeypatch):
    path = tmp_path / "restoration.json"
    record = run_restoration(monkeypatch, path, ("restormer_step", "adair"))
    assert record["restormer_step"]["step_16"]["scan"]["compile_s"] > 0
    assert record["adair"]["step_16"]["scan"]["images_per_s"] > 0
