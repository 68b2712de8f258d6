"""The accelerator's benchmark: its floors, its turns, its table, and one part from end to end."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.accelerator import beside, floors, networks, report
from benchmarks.accelerator.__main__ import Options, jobs, measure, room
from benchmarks.accelerator.measure import Record, read, timed
from benchmarks.accelerator.ours import SETTINGS


def test_a_floor_counts_products_and_convolutions_once():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 16))

    def two(w, x):
        return jnp.tanh(x @ w) @ w.T

    found = floors.forward(two, w, x)
    size = 4 * (8 * 16 + 4 * 8 + 4 * 8 + 2 * (4 * 16 + 4 * 8))  # in, out, two maps there and back
    assert found["gbytes"] == pytest.approx(size / 1e9, rel=1e-4)
    assert found["tflop"] == pytest.approx(2 * 2 * 4 * 8 * 16 / 1e12, rel=1e-4)


def test_a_step_reads_the_maps_of_the_forward_pass_again():
    x, w = jnp.ones((64, 64)), jnp.ones((64, 64))

    def loss(w, x):
        return jnp.sum(jnp.square(x @ w))

    forward, step = floors.forward(loss, w, x), floors.step(loss, w, x)
    one = 4 * 64 * 64 / 1e9  # the size of x, of w, of the gradient, and of the map
    assert forward["gbytes"] == pytest.approx((2 + 2) * one, rel=1e-2)
    assert step["gbytes"] == pytest.approx((2 + 2 + 2 * 2 + 1) * one, rel=1e-2)
    assert step["tflop"] == pytest.approx(2 * forward["tflop"], rel=1e-4)


def test_times_are_of_one_call():
    found = timed(lambda: time.sleep(0.02), lambda _: None)
    assert found["ms"] == pytest.approx(20, rel=0.5) and found["calls"] > 1


def test_what_fails_is_written_and_the_next_row_goes_on(tmp_path):
    record = Record(tmp_path / "found.json", tmp_path / "lock")

    def broken():
        with record.compiling("a"):
            raise ValueError("no such\nkernel")

    record.attempt("a", broken)
    with record.timing("b"):
        assert read(record.path)["doing"] == "timing b"
    record.add("b", ms=1.0)
    found = read(record.path)["found"]
    assert found == {"a": {"failed": "ValueError: no such kernel"}, "b": {"ms": 1.0}}


def test_full_memory_is_waited_for(tmp_path, monkeypatch):
    record, tries = Record(tmp_path / "found.json", tmp_path / "lock"), []
    monkeypatch.setattr("benchmarks.accelerator.measure.RESTS", (0.01, 0.01))

    def run(successful):
        tries.append(0)
        if len(tries) < successful:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    record.attempt("a", lambda: run(3))
    assert len(tries) == 3 and "a" not in record.found
    record.attempt("b", lambda: run(100))
    assert len(tries) == 6 and "RESOURCE_EXHAUSTED" in record.found["b"]["failed"]


RECORD = {
    "limits": {
        "rows": {
            "copy": {"ms": 1.0, "gb_s": 2000.0},
            "product float32": {"ms": 1.0, "tflop_s": 400.0},
            "product bfloat16": {"ms": 1.0, "tflop_s": 800.0},
        }
    },
    "net_step": {
        "rows": {
            "jaxcore f32": {"ms": 10.0, "floor": {"gbytes": 10.0, "tflop": 0.4}},
            "torch f32": {"ms": 30.0},
            "torch f32 channels_last": {"ms": 25.0},
            "torch.compile f32": {"ms": 20.0},
            "torch bf16": {"ms": 5.0},
            "torch.compile bf16": {"failed": "compiling took more than 60 s"},
        }
    },
}


def test_rows_are_judged_by_the_card_and_the_fastest_rival_of_their_type():
    row = report.judged(RECORD)["net_step"]["rows"]["jaxcore f32"]
    assert row["floor_bytes_ms"] == 5 and row["floor_flops_ms"] == 1 and row["of_limit"] == 0.5
    assert (row["over_eager"], row["over_eager_rival"]) == (2.5, "torch f32 channels_last")
    assert (row["over_all"], row["over_all_rival"]) == (2.0, "torch.compile f32")
    disturbed = {**RECORD["net_step"]["rows"]["jaxcore f32"], "disturbed": True}
    rows = {**RECORD["net_step"]["rows"], "jaxcore f32": disturbed}
    judged = report.judged({**RECORD, "net_step": {"rows": rows}})["net_step"]["rows"]
    assert "over_eager" not in judged["jaxcore f32"]
    table = "\n".join(report.lines(RECORD, "net_step"))
    assert "50 %" in table and "compiling took more than 60 s" in table


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("which", ["forward", "step"])
def test_every_network_can_be_traced_in_its_tiny_size(name, which):
    network = networks.NETWORKS[name]
    cfg = network.config(which, "bfloat16", True)
    arrays, params = network.arrays(which, True), network.module.param_shapes(cfg)
    run = networks.forward if which == "forward" else networks.loss
    out = jax.eval_shape(run(network, cfg), params, *arrays)
    assert out.shape == (() if which == "step" else network.arrays("step", True)[-1].shape)


def test_a_part_from_end_to_end_and_what_takes_too_long(tmp_path):
    output = tmp_path / "result.json"
    options = Options(smoke=True, parts=("limits",), output=output, sides=("jaxcore",))
    measure(options)
    found = json.loads(output.read_text())["limits"]
    assert found["rows"]["copy"]["gb_s"] > 0 and found["environment"]["versions"]["jax"]
    measure(
        Options(smoke=True, parts=("monte_carlo",), output=output, sides=("jaxcore",), budget=0.6)
    )
    both = json.loads(output.read_text())
    assert both["limits"]["rows"] == found["rows"]  # what is not run stays
    failed = [row["failed"] for row in both["monte_carlo"]["rows"].values()]
    assert failed and "the budget was spent" in failed[0]


def test_processes_that_compile_side_by_side_start_together():
    old, new = (SimpleNamespace(started=time.time() - age) for age in (60, 0.5))
    assert room([], 2) and room([new], 2)
    assert not room([new, new], 2) and not room([old], 2)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_computes_beside_is_paused_while_something_is_timed(tmp_path):
    other = subprocess.Popen(["sleep", "60"], process_group=0)
    number, lock = tmp_path / "pid", tmp_path / "lock"
    try:
        number.write_text(f"{other.pid}\n")
        record = Record(tmp_path / "found.json", lock, number)
        with record.timing("a"):
            assert state(other.pid) == "T"
            beside.resume(number, lock)
            assert state(other.pid) == "T"  # not while somebody has the turn
        beside.resume(number, lock)
        assert state(other.pid) != "T"
        number.unlink()
        beside.pause(number)  # it has ended
        assert state(other.pid) != "T"
    finally:
        other.kill()
        other.wait()


def test_jobs_of_a_part():
    options = Options(sides=("jaxcore", "torch.compile"), also=("sunet_step shifted",))
    more = jobs("sunet_step", dataclasses.replace(options, fast=("sunet_step bfloat16",)))
    assert [(job.side, job.dtype, job.depthwise) for job in more] == [
        ("torch.compile", "bfloat16", None),
        ("jaxcore", "float32", None),
        ("jaxcore", "float32", "shifted"),
        ("jaxcore", "bfloat16", None),
        ("jaxcore", "bfloat16", "shifted"),
    ]
    sides = [job.side for job in jobs("sunet_step", Options(sides=("jaxcore", "torch")))]
    assert sides == ["torch", "jaxcore", "jaxcore"]
    assert [job.side for job in jobs("adair_step", Options(sides=("torch",)))] == []
    assert [job.dtype for job in jobs("blocks", Options(sides=("jaxcore",)))] == [
        "float32",
        "bfloat16",
    ]
    chosen = [job.setting.split() for job in jobs("compile", Options())]
    assert chosen and all(name in networks.NETWORKS and of in SETTINGS for name, _, of in chosen)


@pytest.mark.torch
def test_sunet_in_pytorch_gives_the_same_images():
    torch = pytest.importorskip("torch")
    from benchmarks.sunet_torch import SUNet
    from jaxcore.models import sunet

    cfg = sunet.SUNetConfig.tiny()
    params = sunet.init(jax.random.key(0), cfg)
    weights = sunet.to_torch(params, cfg)
    net = SUNet(cfg).eval()
    tensors = {key.removeprefix(sunet.PREFIX): torch.tensor(a) for key, a in weights.items()}
    net.load_state_dict(tensors)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    with torch.no_grad():
        theirs = net(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    ours = jax.jit(lambda params, x: sunet.apply(params, x, cfg))(params, x)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
