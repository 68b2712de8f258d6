"""How many programs the first fit compiles: each costs time before there is a number."""

import jax
import jax.monitoring
import numpy as np
import pytest

from jaxcore.estimators.selective_iv import SelectiveIV
from jaxcore.estimators.selective_iv.simulate import simulate_siv2

N = 400
CONFIG = SelectiveIV(learners=("const", "lin"), n_folds=2)
counted = []


def _count(name, *_, **__):
    if name == "/jax/core/compile/backend_compile_duration":
        counted.append(name)


@pytest.fixture(scope="module", autouse=True)
def _listener():
    jax.monitoring.register_event_duration_secs_listener(_count)
    yield
    jax.monitoring.unregister_event_duration_listener(_count)


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        return jax.device_get(simulate_siv2(jax.random.key(11), N))


def compilations(call):
    counted.clear()
    result = call()
    return len(counted), result


@pytest.mark.parametrize("kind", ["plain", "clustered and weighted"])
def test_first_fit_compiles_few_programs_and_the_next_none(sample, kind):
    rng = np.random.default_rng(0)
    more = {}
    if kind != "plain":
        more = {"clusters": np.arange(N) // 4, "weights": rng.uniform(0.5, 2, N)}
    jax.clear_caches()
    first, result = compilations(lambda: CONFIG.fit(*sample, **more))
    assert 1 <= first <= 8
    told, _ = compilations(lambda: (result.summary(), result.confint(0.9), result.to_dict()))
    assert told == 0
    assert compilations(lambda: CONFIG.fit(*sample, **more))[0] == 0
    fewer = {name: v[:-5] for name, v in more.items()}
    near, _ = compilations(lambda: CONFIG.fit(*(v[:-5] for v in sample), **fewer))
    assert near <= 1  # the folds of another number of units


def test_rows_that_fill_a_program_up_leave_no_trace(sample):
    ids = np.arange(N) % 2
    plain = CONFIG.fit(*sample, fold_ids=ids)
    weighted = CONFIG.fit(
        *(np.concatenate([v, v[:3]]) for v in sample),
        fold_ids=np.r_[ids, ids[:3]],
        weights=np.r_[np.ones(N), np.zeros(3)],
    )
    assert plain.psi.shape == plain.u.shape == (N,)
    assert abs(plain.psi.sum()) < 1e-8
    assert abs(plain.se - plain.u.std() / np.sqrt(N)) < 1e-10
    assert weighted.psi.shape == (N + 3,) and np.all(weighted.psi[N:] == 0)
