"""The routes over a thousand samples: means, and coverage of the intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators.deconfound.studies import deconfound_study
from jaxcore.estimators.monte_carlo import MonteCarlo, replicate

REPS = 1000


@pytest.mark.statistical
def test_intervals_cover_and_the_baseline_is_off():
    study = deconfound_study(400)
    with jax.enable_x64(True):
        run = jax.jit(lambda index: replicate(study.draw, jax.random.key(7), index, at_once=250))
        found = jax.device_get(run(jnp.arange(REPS)))
    table = MonteCarlo(names=study.names, truth=study.truth, theta=found.theta, se=found.se).table()
    rows = {row["name"]: row for row in table}
    for name, mean, sd in (("plm", 2.0, 0.067), ("iv", 1.985, 0.292), ("ols_c", 3.589, 0.156)):
        row = rows[name]
        assert row["mean"] == pytest.approx(mean, abs=4 * row["sd"] / np.sqrt(REPS) + 0.005), name
        assert row["sd"] == pytest.approx(sd, rel=0.12), name
    for name in ("plm", "iv"):
        assert 0.92 <= rows[name]["coverage"] <= 0.98, name
    assert rows["ols_c"]["coverage"] < 0.01
