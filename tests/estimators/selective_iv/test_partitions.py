"""Repeated partitions, learners of least loss, and fits on disk."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcore.errors import UserError
from jaxcore.estimators import nuisance
from jaxcore.estimators.estimate import aggregate_repeats
from jaxcore.estimators.linear_iv import ConfidenceSet, majority
from jaxcore.estimators.nuisance import HostLearner
from jaxcore.estimators.selective_iv import SelectiveIV, SelectiveIVResult
from jaxcore.estimators.selective_iv.cv_loss import choose_candidates
from jaxcore.estimators.selective_iv.moment import Clip
from jaxcore.estimators.selective_iv.simulate import simulate_siv2

FAST = SelectiveIV(learners=("const", "lin"), n_folds=2)
REPEATED = dataclasses.replace(FAST, n_rep=3)


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        return jax.device_get(simulate_siv2(jax.random.key(11), 400))


@pytest.fixture(scope="module")
def repeated(sample):
    return REPEATED.fit(*sample)


@pytest.fixture(scope="module")
def alone(sample, repeated):
    """The three partitions of ``repeated`` as fits of their own."""
    ids = [e.diagnostics["fold_ids"] for e in repeated.repetitions]
    return [FAST.fit(*sample, fold_ids=i) for i in ids]


def aggregated(estimates):
    with jax.enable_x64(True):
        theta, se = (jnp.stack([jnp.asarray(v) for v in x]) for x in zip(*estimates, strict=True))
        return [np.asarray(v) for v in aggregate_repeats(theta, se)]


def test_every_analysis_is_aggregated_over_the_partitions(sample, repeated, alone):
    W = np.column_stack([np.ones(400), sample[3][:, 0]])
    for analysis in (
        lambda r: r.estimate,
        lambda r: r.cate(W),
        lambda r: r.gate(sample[3][:, 0] > 0),
        lambda r: {e.estimator: e for e in r.baselines()}["GENIUS, orthogonal, constant effect"],
    ):
        found = analysis(repeated)
        theta, se = aggregated([(e.theta, e.se) for e in map(analysis, alone)])
        np.testing.assert_allclose(found.theta, theta, rtol=1e-9)
        np.testing.assert_allclose(found.se, se, rtol=1e-9)


def test_sensitivity_is_aggregated_over_the_partitions(repeated, alone):
    found, parts = repeated.sensitivity(0.01), [r.sensitivity(0.01) for r in alone]
    z = 1.959963984540054
    for side, sign in ((0, -1), (1, 1)):
        pairs = [(p.bounds[side], abs(p.limits[side] - p.bounds[side]) / z) for p in parts]
        theta, se = aggregated(pairs)
        np.testing.assert_allclose(found.bounds[side], theta, rtol=1e-9)
        np.testing.assert_allclose(found.limits[side], theta + sign * z * se, rtol=1e-8)
    assert np.isclose(found.nu, np.median([p.nu for p in parts]), rtol=1e-9)
    value = float(found.robustness_value)
    if value > 0:
        at = repeated.sensitivity(value).limits
        assert min(abs(at)) < 1e-6 * max(abs(at))


def test_robust_set_is_what_half_of_the_partitions_hold(repeated, alone):
    found, parts = repeated.robust_set(), [r.robust_set() for r in alone]
    for t in np.linspace(-20, 20, 401):
        assert (t in found) == (sum(t in p for p in parts) >= 2)


def test_majority_of_sets():
    line = ConfidenceSet(((-np.inf, np.inf),))
    rays = ConfidenceSet(((-np.inf, 0.0), (3.0, np.inf)))
    one = ConfidenceSet(((-1.0, 1.0),))
    assert majority([rays]) == rays and majority([line, line]) == line
    assert majority([rays, one, line]).intervals == ((-np.inf, 1.0), (3.0, np.inf))
    assert majority([one, ConfidenceSet(((2.0, 4.0),)), ConfidenceSet(((5.0, 6.0),))]) == (
        ConfidenceSet(())
    )
    assert "disagree" in ConfidenceSet(()).describe()


def test_weights_and_clusters_enter_the_robust_set(sample):
    twice = [np.concatenate([v, v]) for v in sample]
    pair = np.tile(np.arange(400), 2)
    ids = np.arange(400) % 2
    config = dataclasses.replace(FAST, learners=("lin",))
    once = config.fit(*sample, fold_ids=ids)
    plain = once.robust_set()
    paired = config.fit(*twice, clusters=pair, fold_ids=np.tile(ids, 2)).robust_set()
    # 400 clusters: Student's t, and a variance that is 400 / 399 times as large.
    wider = 2 * stats.norm.cdf(stats.t.ppf(0.975, 399) * np.sqrt(400 / 399)) - 1
    np.testing.assert_allclose(paired.intervals, once.robust_set(wider).intervals, rtol=1e-6)
    weighted = config.fit(*sample, weights=np.linspace(0.5, 2, 400), fold_ids=ids).robust_set()
    assert weighted != plain


def losses(sample, e, nu):
    """Log-losses of pi and mu, and of the residual product, by hand."""
    Y, A, Z, _ = sample
    mu = np.where(Z > 0.5, nu.mu1, nu.mu0)
    residual = (A - mu) * (Y - nu.g - nu.delta * mu)
    return (
        -np.mean(Z * np.log(nu.pi) + (1 - Z) * np.log(1 - nu.pi)),
        -np.mean(A * np.log(mu) + (1 - A) * np.log(1 - mu)),
        np.mean((residual - nu.rho - nu.delta * mu * (1 - mu)) ** 2),
    )


def test_learners_of_least_loss_have_it(sample):
    """Against fits of every combination alone: log-losses first, then the residual product."""
    ids = np.arange(400) % 2
    both = FAST.fit(*sample, fold_ids=ids)
    names = ("const", "lin")
    chosen = tuple(int(i) for i in both.estimate.diagnostics["selected_by_loss"])

    def single(c):
        learners = {
            b: (names[i],) for b, i in zip(("pi", "mu", "g", "delta", "rho"), c, strict=True)
        }
        r = SelectiveIV(learners=learners, n_folds=2).fit(*sample, fold_ids=ids)
        return losses(sample, r.estimate, r.nuisances), r.theta

    pi = [single((i, 0, 0, 0, 0))[0][0] for i in (0, 1)]
    mu = [single((0, j, 0, 0, 0))[0][1] for j in (0, 1)]
    first = (int(np.argmin(pi)), int(np.argmin(mu)))
    rest = {
        c: single((*first, *c)) for c in [(g, d, r) for g in (0, 1) for d in (0, 1) for r in (0, 1)]
    }
    best = min(rest, key=lambda c: rest[c][0][2])
    assert chosen == (*first, *best)
    row = {e.estimator: e for e in both.baselines()}
    found = row["multiply robust, learners of least cross-validated loss"]
    assert abs(float(found.theta) - rest[best][1]) < 1e-9 and float(found.se) > 0


def test_least_loss_among_given_predictions(sample):
    """The one learner that knows the truth is taken, in every block."""
    rng = np.random.default_rng(0)
    n = 4000
    Z, V = rng.integers(0, 2, n), rng.normal(size=n)
    pi, mu1, mu0 = np.full(n, 0.5), np.full(n, 0.6), np.full(n, 0.2)
    A = (rng.uniform(size=n) < np.where(Z == 1, mu1, mu0)).astype(float)
    Y = 1.0 + 2.0 * A + V
    off = np.stack
    candidates = {
        "pi": off([pi + 0.3, pi]),
        "mu1": off([mu1 - 0.4, mu1]),
        "mu0": off([mu0 + 0.4, mu0]),
        "delta": off([np.full(n, 2.0), np.full(n, 5.0)]),
        "g": off([off([np.full(n, 4.0)] * 2), off([np.full(n, 1.0)] * 2)]),
        "rho": off([off([np.full(n, 0.0)] * 2), off([np.full(n, 1.0)] * 2)]),
    }
    with jax.enable_x64(True):
        c = {k: jnp.asarray(v) for k, v in candidates.items()}
        args = [jnp.asarray(v, jnp.float64) for v in (Y, A, Z)]
        index = choose_candidates(*args, c, jnp.ones(n), clip=Clip())
    assert index.tolist() == [1, 1, 1, 0, 0]


# --- on disk ------------------------------------------------------------------------------------


def test_a_fit_comes_back_from_disk(sample, repeated, tmp_path):
    repeated.save(tmp_path / "fit")
    back = SelectiveIVResult.load(tmp_path / "fit")
    assert back.config == REPEATED
    assert back.summary() == repeated.summary() and back.notices == repeated.notices
    np.testing.assert_array_equal(back.psi, repeated.psi)
    assert back.psi.dtype == np.float64
    assert back.robust_set() == repeated.robust_set()
    assert back.combinations() == repeated.combinations()
    np.testing.assert_array_equal(back.sensitivity(0.01).limits, repeated.sensitivity(0.01).limits)
    again = back.config.fit(*sample)
    assert again.theta == repeated.theta
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit"]
    with pytest.raises(UserError, match="new folder"):
        repeated.save(tmp_path / "fit")


class Mean:
    """A learner on the host: the mean of the target."""

    def fit(self, X, y, sample_weight=None):
        self.value = np.average(y, weights=sample_weight)
        return self

    def predict(self, X):
        return np.full(len(X), self.value)

    def predict_proba(self, X):
        return np.stack([1 - self.predict(X), self.predict(X)], axis=1)


def test_learners_come_back_or_are_asked_for(sample, tmp_path):
    host = HostLearner(Mean())
    lasso = nuisance.Lasso(alpha=0.1, basis=nuisance.Polynomial(degree=2))
    learners = {
        "pi": (nuisance.Logistic(),),
        "mu": (nuisance.Logistic(alpha=0.1),),
        "g": (lasso, host),
        "delta": ("lin",),
        "rho": (nuisance.Ridge(),),
    }
    weights = np.linspace(0.5, 1.5, 400)
    config = SelectiveIV(learners=learners, n_folds=2)
    fit = config.fit(*sample, weights=weights, clusters=np.arange(400) // 2)
    fit.save(tmp_path / "fit")
    back = SelectiveIVResult.load(tmp_path / "fit")
    assert back.config.blocks["g"][0] == lasso and back.config.blocks["mu"] == learners["mu"]
    assert back.learner_names == fit.learner_names
    assert (
        back.se == fit.se and back.confint(joint=True).tolist() == fit.confint(joint=True).tolist()
    )
    with pytest.raises(UserError, match="give it again"):
        back.config.fit(*sample)


def test_folders_that_hold_no_fit(repeated, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        SelectiveIVResult.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="another folder"):
        SelectiveIVResult.load(tmp_path)
    repeated.save(tmp_path / "fit")
    arrays = [p for p in (tmp_path / "fit").rglob("*") if p.is_file() and "/d/" in str(p)]
    for path in arrays:
        path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(UserError, match="damaged"):
        SelectiveIVResult.load(tmp_path / "fit")
    text = json.loads((tmp_path / "fit" / "config.json").read_text())
    assert text["settings"]["n_rep"] == 3
    with pytest.raises(UserError, match="written"):
        repeated.save(tmp_path / "config.json" / "fit")  # a file is no folder
