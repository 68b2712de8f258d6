import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.parallel import initialise
from jaxcore.train import load_params
from tests.parallel.jobs import outcomes


def test_a_single_process_needs_nothing():
    assert initialise() is False
    assert initialise() is False


@pytest.mark.parametrize(
    ("count", "index", "message"),
    [("", "0", "JAXCORE_NUM_PROCESSES"), ("2", "two", "JAXCORE_PROCESS_ID"), ("2", "2", "below")],
)
def test_wrong_variables_are_named(monkeypatch, count, index, message):
    monkeypatch.setenv("JAXCORE_COORDINATOR", "localhost:1")
    monkeypatch.setenv("JAXCORE_NUM_PROCESSES", count)
    monkeypatch.setenv("JAXCORE_PROCESS_ID", index)
    with pytest.raises(UserError, match=message):
        initialise()


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_two_processes_over_loopback_train_stop_and_resume_as_one(tmp_path, number):
    straight = outcomes(2, tmp_path / "straight")
    assert straight[0] == straight[1] and straight[0].startswith("DONE 40")
    stopped = outcomes(2, tmp_path / "run", STOP_AT="2", STOP_WITH=number)
    assert stopped[0] == stopped[1] and stopped[0].startswith("INTERRUPTED")
    assert 0 < int(stopped[0].split()[1]) < 40
    assert outcomes(2, tmp_path / "run") == straight
    params = load_params(tmp_path / "run")  # by one process, on one device
    sums = [float(x.sum()) for x in jax.tree.leaves(params)]
    np.testing.assert_allclose(sums, [float(x) for x in straight[0].split()[2:]], rtol=1e-6)
