"""Replications: figures by hand, equal numbers however they are split, resumption after a kill."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.monte_carlo import MonteCarlo, monte_carlo, replicate, table_text
from jaxcore.estimators.studies import IndexBatches, MonteCarloTask, run_study
from jaxcore.parallel import make_mesh
from jaxcore.train.logging import Silent

SETTINGS = {"study": "siv1", "n": 200, "reps": 61, "block": 2, "options": {"scenarios": ["all"]}}
TASK = MonteCarloTask(**SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study run without a stop, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run_study(TASK, folder, save_every=100, reporter=Silent()), folder


def mean_estimator(y):
    return influence.solve(influence.LinearScore(-jnp.ones_like(y), y))


def draw(key):
    y = jax.random.normal(key, (30,))
    return {"mean": jnp.mean(y), "bits": jax.random.bits(key, (30,))}


def test_numbers_do_not_depend_on_batches_or_devices():
    key, index = jax.random.key(3), jnp.arange(8, dtype=jnp.int32)
    alone = [draw(jax.random.fold_in(key, i)) for i in range(8)]
    mesh = make_mesh(devices=jax.devices()[:2])
    for options in ({}, {"at_once": 3}, {"mesh": mesh}, {"mesh": mesh, "at_once": 2}):
        out = jax.jit(functools.partial(replicate, draw, key, **options))(index)
        for i in range(8):
            np.testing.assert_array_equal(out["bits"][i], alone[i]["bits"])
            np.testing.assert_allclose(out["mean"][i], alone[i]["mean"], rtol=1e-5, atol=1e-7)


def test_estimator_and_design_of_ones_own():
    out = monte_carlo(
        mean_estimator,
        lambda k, n: 2 + jax.random.normal(k, (n,)),
        40,
        101,
        jax.random.key(0),
        truth=2.0,
        at_once=10,
        mesh=make_mesh(devices=jax.devices()[:2]),
    )
    assert out.theta.shape == (101, 1)
    (row,) = out.table()
    assert abs(row["bias"]) < 4 * row["bias_mcse"] and 0.85 < row["coverage"] <= 1
    with pytest.raises(UserError, match="at least one replication"):
        monte_carlo(mean_estimator, lambda k, n: k, 1, 0, jax.random.key(0))


def test_table_by_hand():
    theta, se = np.array([[1.0], [2.0], [3.0], [np.nan]]), np.array([[0.4], [0.6], [0.5], [1.0]])
    out = MonteCarlo(names=("m",), truth=1.5, theta=theta, se=se)
    (row,) = out.table()
    assert row["failed"] == 1 and row["reps"] == 3
    assert abs(row["bias"] - 0.5) < 1e-12 and abs(row["median_bias"] - 0.5) < 1e-12
    assert abs(row["sd"] - 1) < 1e-12 and abs(row["mean_se"] - 0.5) < 1e-12
    assert abs(row["rmse"] - np.sqrt((0.25 + 0.25 + 2.25) / 3)) < 1e-12
    assert abs(row["coverage"] - 2 / 3) < 1e-12
    assert abs(row["bias_mcse"] - 1 / np.sqrt(3)) < 1e-12
    assert "+0.500 (0.577)" in table_text([row])
    lost = MonteCarlo(names=("m",), truth=1.5, theta=theta, se=np.where(theta == 3, np.nan, se))
    (row,) = lost.table()  # a replication without an error is not counted, the others are
    assert row["failed"] == 2 and row["reps"] == 2 and row["coverage"] == 1
    (row,) = MonteCarlo(names=("m",), truth=1.5, theta=theta, se=se * np.nan).table()
    assert row["failed"] == 1 and "coverage" not in row


def test_errors_of_the_monte_carlo_errors():
    """The Monte-Carlo errors are the spread of the figures over repeated studies."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        theta = rng.normal(size=(200, 1))
        rows.append(MonteCarlo(names=("m",), truth=0.0, theta=theta, se=np.ones((200, 1))).table())
    for name in ("bias", "sd", "rmse", "coverage", "median_bias"):
        spread = np.std([r[0][name] for r in rows])
        claimed = np.mean([r[0][f"{name}_mcse"] for r in rows])
        assert 0.85 < claimed / spread < 1.18, name


def test_last_block_is_filled_and_positions_are_kept():
    it = IndexBatches(5, 2, 0)
    assert next(it)["index"].tolist() == [0, 1]
    state = it.get_state()
    other = IndexBatches(5, 2, 0)
    other.set_state(state)
    assert [next(other)["index"].tolist() for _ in range(2)] == [[2, 3], [4, 4]]
    with pytest.raises(StopIteration):
        next(other)


def test_study_is_the_same_on_two_devices_and_in_other_blocks(whole, tmp_path):
    one, _ = whole
    two = run_study(
        dataclasses.replace(TASK, block=4),
        tmp_path,
        reporter=Silent(),
        mesh=make_mesh(devices=jax.devices()[:2]),
    )
    assert np.isfinite(one.theta).all()
    np.testing.assert_allclose(two.theta, one.theta, rtol=1e-9)
    np.testing.assert_allclose(two.se, one.se, rtol=1e-9)


def test_killed_study_goes_on_with_the_same_numbers(whole, tmp_path):
    """SIGKILL after the first checkpoint; the rest is computed once, and equal to the last bit."""
    code = f"""
        from jaxcore.train.logging import Silent
        from jaxcore.estimators.studies import MonteCarloTask, run_study
        task = MonteCarloTask(**{SETTINGS!r})
        run_study(task, {str(tmp_path / "killed")!r}, save_every=1, reporter=Silent())
        """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    folder = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir()):
            break
        time.sleep(0.05)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert any(p.name.isdigit() for p in Path(folder).iterdir())
    resumed = run_study(TASK, tmp_path / "killed", save_every=1, reporter=Silent())
    np.testing.assert_array_equal(resumed.theta, whole[0].theta)
    np.testing.assert_array_equal(resumed.se, whole[0].se)


def test_other_settings_do_not_go_on_with_a_run(whole):
    with pytest.raises(UserError, match="n was 200"):
        run_study(dataclasses.replace(TASK, n=300), whole[1], reporter=Silent())


@pytest.mark.parametrize("bad", [{"reps": 0}, {"n": 0}, {"block": 0}])
def test_impossible_studies(bad):
    with pytest.raises(UserError, match="at least 1"):
        MonteCarloTask(**{"study": "siv1", "n": 10, "reps": 1, **bad})
    with pytest.raises(UserError, match="siv1, siv2"):
        MonteCarloTask(study="siv9", n=10, reps=1).build()
