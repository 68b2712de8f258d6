"""`SelectiveIV` as users call it: settings, results, notices, and everything that is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcore.errors import UserError
from jaxcore.estimators import nuisance
from jaxcore.estimators.datasets import load_401k
from jaxcore.estimators.nuisance import BSpline, HostLearner
from jaxcore.estimators.report import write_report
from jaxcore.estimators.selective_iv import PlugIn, SelectiveIV, VaryingCoefficient
from jaxcore.estimators.selective_iv.simulate import simulate_siv2

FILES = ("summary.txt", "estimate.json", "estimates.png", "overlap.png", "pseudo_risk.png")

N = 400
FAST = SelectiveIV(learners=("const", "lin"), n_folds=2)


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        return jax.device_get(simulate_siv2(jax.random.key(11), N))


@pytest.fixture(scope="module")
def result(sample):
    return FAST.fit(*sample)


def test_same_seed_same_numbers_to_the_bit(sample, result):
    again = FAST.fit(*sample)
    assert again.theta == result.theta and again.se == result.se
    np.testing.assert_array_equal(again.psi, result.psi)
    assert dataclasses.replace(FAST, seed=1).fit(*sample).theta != result.theta


def test_theta_and_error_follow_from_the_moments(result):
    u = result.u
    assert abs(result.theta - u.mean()) < 1e-10
    assert abs(result.se - u.std() / np.sqrt(N)) < 1e-10
    low, high = result.confint(0.9)
    assert abs((high - low) / 2 / result.se - 1.6448536) < 1e-5


def test_tables_agree_with_the_choice(result):
    rows = result.combinations()
    assert len(rows) == 32
    best = min(rows, key=lambda r: r["criterion"])
    assert {b: best[b] for b in result.chosen()} == result.chosen()
    assert abs(best["estimate"] - result.theta) < 1e-9
    assert abs(best["criterion"] - sum(best[f"R_M{i}"] for i in (1, 2, 3, 4))) < 1e-9
    table = result.selection_table()
    assert len(table) == 10 and sum(r["chosen"] for r in table) == 5
    pytest.importorskip("pandas")
    assert list(result.selection_table(frame=True)["block"]) == [r["block"] for r in table]


def test_given_folds_and_rows_in_another_order(sample, result):
    ids = np.asarray(result.estimate.diagnostics["fold_ids"])
    order = np.random.default_rng(0).permutation(N)
    moved = FAST.fit(*(v[order] for v in sample), fold_ids=ids[order])
    assert abs(moved.theta - result.theta) < 1e-9
    assert abs(moved.se - result.se) < 1e-9


def test_units_of_the_covariates_do_not_matter(sample, result):
    Y, A, Z, X = sample
    moved = FAST.fit(Y, A, Z, 1000 * X + 5)
    assert abs(moved.theta - result.theta) < 1e-6


def test_effect_scales_with_the_outcome(sample, result):
    Y, A, Z, X = sample
    scaled = FAST.fit(3 * Y + 10, A, Z, X)
    assert abs(scaled.theta - 3 * result.theta) < 1e-6
    assert abs(scaled.se - 3 * result.se) < 1e-6


def test_repetitions_are_aggregated(sample):
    many = dataclasses.replace(FAST, n_rep=3).fit(*sample)
    thetas = [float(e.theta) for e in many.repetitions]
    assert len(set(thetas)) == 3 and many.theta == np.median(thetas)
    assert "median of 3 partitions" in many.summary()


def test_integer_weights_are_repetitions_of_units_in_their_fold(sample):
    Y, A, Z, X = sample
    times = np.random.default_rng(0).integers(1, 3, N)
    again = np.repeat(np.arange(N), times)
    ids = np.arange(N) % 2
    config = dataclasses.replace(FAST, standardise=False)
    weighted = config.fit(Y, A, Z, X, weights=times, fold_ids=ids)
    repeated = config.fit(Y[again], A[again], Z[again], X[again], fold_ids=ids[again])
    assert abs(weighted.theta - repeated.theta) < 1e-8
    assert weighted.se > repeated.se  # repeated rows are not independent


def test_clusters_change_the_error_not_the_folds_inside(sample):
    clusters = np.array([f"c{i // 4}" for i in range(N)])
    r = FAST.fit(*sample, clusters=clusters)
    ids = np.asarray(r.estimate.diagnostics["fold_ids"])
    assert all(len(set(ids[4 * g : 4 * g + 4])) == 1 for g in range(N // 4))
    sums = np.add.reduceat(r.psi, np.arange(0, N, 4))
    g = N // 4
    assert abs(r.se - np.sqrt((sums**2).sum() * g / (g - 1)) / N) < 1e-9
    plain = dataclasses.replace(FAST, se="if").fit(*sample, clusters=clusters)
    assert abs(plain.theta - r.theta) < 1e-9 and plain.se != r.se


def test_every_unit_twice_in_clusters_tells_no_more_than_once(sample):
    """Errors of everything that is shown beside the estimate are clustered too.

    With N clusters the variance is multiplied by N / (N - 1), and Student's t is a little wider.
    """
    factor = np.sqrt(N / (N - 1))
    pairs, ids = np.tile(np.arange(N), 2), np.arange(N) % 2
    twice = [np.concatenate([v, v]) for v in sample]
    one = dataclasses.replace(FAST, learners=("lin",))
    once = one.fit(*sample, fold_ids=ids)
    both = one.fit(*twice, fold_ids=np.tile(ids, 2), clusters=pairs)
    assert f"{N} clusters" in both.summary() and "clusters" not in once.summary()
    for ours, theirs in zip(both.baselines(), once.baselines(), strict=True):
        np.testing.assert_allclose(ours.se, factor * theirs.se, rtol=1e-6, err_msg=ours.estimator)
    wider = 2 * stats.norm.cdf(stats.t.ppf(0.975, N - 1) * factor) - 1
    np.testing.assert_allclose(both.sensitivity(0.05).limits, once.sensitivity(0.05, wider).limits)
    for name in ("d_test_t", "first_stage_t"):
        assert abs(both.diagnostics()[name] / once.diagnostics()[name] - 1) < 1e-6
    parametric = dataclasses.replace(one, n_folds=1, se="sandwich")
    paired = parametric.fit(*twice, clusters=pairs)
    assert abs(paired.se / parametric.fit(*sample).se - factor) < 1e-6


@pytest.mark.parametrize("criterion", ["minimax", "smooth"])
def test_other_rules(sample, criterion):
    r = dataclasses.replace(FAST, criterion=criterion).fit(*sample)
    assert np.isfinite(r.theta) and r.se > 0
    if criterion == "smooth":
        assert abs(sum(x["weight"] for x in r.selection_table()) - 5) < 1e-9


def test_parametric_with_sandwich(sample):
    r = SelectiveIV(learners=("lin",), n_folds=1, se="sandwich", criterion=None).fit(*sample)
    assert r.se > 0 and np.isfinite(r.theta)
    assert r.estimate.estimator == "multiply robust, parametric"
    assert len(r.robust_set().intervals) in (1, 2)
    assert "selected_by_loss" not in r.estimate.diagnostics  # nothing to choose


def test_overlap_discard(sample):
    config = SelectiveIV(
        learners=("lin",), n_folds=2, overlap="discard", clip=(0.05, 0.65), min_abs_D=0.05
    )
    r = config.fit(*sample)
    raw = r.estimate.diagnostics["raw"]
    D = raw.mu1 * (1 - raw.mu1) - raw.mu0 * (1 - raw.mu0)
    kept = (raw.pi >= 0.05) & (raw.pi <= 0.65) & (np.abs(D) >= 0.05)
    outside = int((~kept).sum())
    assert abs(r.theta - r.u[kept].mean()) < 1e-9
    assert outside > 0 and any(f"left out {outside} of {N} units" in n for n in r.notices)


def test_general_learners_one_of_each_kind(sample):
    from sklearn.ensemble import RandomForestRegressor

    forest = HostLearner(RandomForestRegressor(20, min_samples_leaf=10, random_state=0))
    learners = {
        "pi": [nuisance.Logistic(), nuisance.Boosting(binary=True, n_trees=10)],
        "mu": ["lin"],
        "m": [nuisance.Ridge(), forest],
        "g": [nuisance.Ridge(basis=BSpline())],
        "delta": [VaryingCoefficient(), nuisance.Ridge(), PlugIn(learner=nuisance.Ridge())],
        "rho": [nuisance.Ridge()],
    }
    r = SelectiveIV(learners=learners, n_folds=2).fit(*sample)
    assert np.isfinite(r.theta) and r.se > 0
    assert r.chosen()["mu"] == "lin" and len(r.combinations()) == 6
    discard = SelectiveIV(
        learners={**learners, "m": ["lin"], "delta": [VaryingCoefficient()]},
        n_folds=2,
        overlap="discard",
        clip=(0.2, 0.8),
    ).fit(*sample)
    assert any("outside the overlap bounds" in n for n in discard.notices)


def test_effects_of_groups_and_projections(sample, result):
    X = sample[3]
    high = X[:, 0] > 0
    gate = result.gate(np.where(high, "high", "low"))
    assert gate.names == ("high", "low")
    assert abs(gate.theta[0] - result.u[high].mean()) < 1e-9
    share = high.mean()
    assert abs(share * gate.theta[0] + (1 - share) * gate.theta[1] - result.theta) < 1e-9
    assert gate.confint(joint=True).shape == (2, 2)
    W = np.c_[np.ones(N), X]
    cate = result.cate(W, ["one", "x1", "x2"])
    np.testing.assert_allclose(cate.theta, np.linalg.lstsq(W, result.u, rcond=None)[0], rtol=1e-8)
    r = result.u - W @ cate.theta
    V = np.linalg.inv(W.T @ W) @ (W * (r**2)[:, None]).T @ W @ np.linalg.inv(W.T @ W)
    np.testing.assert_allclose(cate.se, np.sqrt(np.diag(V)), rtol=1e-6)
    with pytest.raises(UserError, match="linearly independent"):
        result.cate(np.c_[np.ones(N), np.ones(N)])
    with pytest.raises(UserError, match="one row per unit"):
        result.gate(np.ones(3))
    with pytest.raises(UserError, match="at least 2 units in every group, found one in b"):
        result.gate(np.array(["b"] + ["a"] * (N - 1)))
    with pytest.raises(UserError, match="group label for every unit"):
        result.gate(np.r_[np.nan, np.ones(N - 1)])
    with pytest.raises(UserError, match="regressors"):
        result.cate(np.ones((N, 0)))


def test_sensitivity_widens_with_the_violation(result):
    widths = [np.ptp(result.sensitivity(G).limits) for G in (0.0, 0.01, 0.1)]
    assert widths[0] < widths[1] < widths[2]
    for bad in (-1, float("nan")):
        with pytest.raises(UserError, match="G >= 0"):
            result.sensitivity(bad)


def test_baselines_say_what_they_assume(result):
    names = [e.estimator for e in result.baselines()]
    assert len(names) == 8 and any("2SLS" in n for n in names)
    assert all(np.isfinite(e.theta) and e.se > 0 for e in result.baselines())


def test_report_and_file(result, tmp_path):
    pytest.importorskip("matplotlib")
    folder = write_report(result, tmp_path / "r")
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    content = json.loads((folder / "estimate.json").read_text())
    assert abs(content["estimate"]["estimate"] - result.theta) < 1e-12
    assert len(content["estimators"]) == 9
    with pytest.raises(UserError, match="Expected a new folder"):
        write_report(result, folder)
    write_report(result, folder, overwrite=True)
    result.to_npz(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz") as arrays:
        np.testing.assert_array_equal(arrays["phi"], result.psi)
        assert json.loads(str(arrays["config"]))["config"]["n_folds"] == 2
    with pytest.raises(UserError, match=r"ending in \.npz"):
        result.to_npz(tmp_path / "fit.pkl")


def test_a_report_on_a_full_disk_leaves_nothing(result, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(result, tmp_path / "r")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="No space left"):
        write_report(result, tmp_path / "mine")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def test_estimators_that_fail_are_named_in_the_report(result, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    others = result.baselines()
    others[2] = dataclasses.replace(others[2], theta=np.float64("nan"))
    monkeypatch.setattr(type(result), "baselines", lambda _: others)
    text = (write_report(result, tmp_path / "r") / "summary.txt").read_text()
    assert f"{others[2].estimator} " in text
    assert "cannot be computed" in next(t for t in text.splitlines() if others[2].estimator in t)


def test_a_fit_is_one_line_in_a_notebook(result):
    assert repr(result).startswith("SelectiveIVResult(theta=") and "\n" not in repr(result)


# --- notices ------------------------------------------------------------------------------------


def _binary(rng, p):
    return (rng.uniform(size=len(p)) < p).astype(float)


def test_one_sided_data_are_noticed_and_equal_aipw_among_z_one():
    Y, A, Z, X = load_401k()
    keep = np.arange(9275) % 9 == 0
    r = SelectiveIV(learners=("lin",), n_folds=2).fit(*(np.asarray(v)[keep] for v in (Y, A, Z, X)))
    assert r.one_sided and "one-sided" in " ".join(r.notices)
    nu, s = r.nuisances, r.sample
    aipw = nu.delta + s.Z / nu.pi * (
        s.A / nu.mu1 * (s.Y - nu.g - nu.delta) - (1 - s.A) / (1 - nu.mu1) * (s.Y - nu.g)
    )
    np.testing.assert_allclose(r.u, aipw, atol=1e-10 * np.abs(aipw).max())
    assert np.all(np.asarray(nu.rho) == 0) and np.all(np.asarray(nu.mu0) == 0)


def test_strong_but_useless_instrument_is_warned_about():
    rng = np.random.default_rng(0)
    n = 2000
    X, Z = rng.normal(size=(n, 1)), _binary(rng, np.full(n, 0.5))
    A = _binary(rng, np.where(Z == 1, 0.7, 0.3))  # mu0 + mu1 = 1
    Y = A + Z + rng.normal(size=n)
    r = FAST.fit(Y, A, Z, X)
    text = " ".join(r.notices)
    assert "weak identification" in text and "near 1" in text
    assert r.relevance.first_stage_t > 10 and abs(r.relevance.d_test_t) < 3.16


def test_an_instrument_without_effect_is_warned_about():
    rng = np.random.default_rng(1)
    n = 1000
    Z, A = _binary(rng, np.full(n, 0.5)), _binary(rng, np.full(n, 0.3))
    r = FAST.fit(A + rng.normal(size=n), A, Z, rng.normal(size=(n, 1)))
    text = " ".join(r.notices)
    assert "weak identification" in text and "moves the treatment strongly" not in text


def test_left_out_columns_and_rows_are_counted(sample):
    Y, A, Z, X = sample
    wide = np.c_[X, np.ones(N), X[:, 0] * 2]
    Y2 = Y.copy()
    Y2[[3, 5]] = np.nan
    with pytest.raises(UserError, match="2 in the outcome"):
        FAST.fit(Y2, A, Z, wide)
    r = dataclasses.replace(FAST, missing="drop").fit(
        Y2, A, Z, wide, covariates=["a", "b", "one", "a2"]
    )
    text = " ".join(r.notices)
    assert f"dropped 2 rows of {N}" in text and "1 constant covariate: one" in text
    assert "1 basis column(s)" in text and r.sample.n == N - 2
    assert r.gate(np.arange(N) % 2).theta.shape == (2,)  # labels of all rows given


def test_binary_covariates_may_enter_a_quadratic_basis(sample):
    Y, A, Z, X = sample
    r = SelectiveIV(learners=("quad",), n_folds=2).fit(Y, A, Z, np.c_[X[:, 0], X[:, 1] > 0])
    assert np.isfinite(r.theta)


def test_single_precision_is_near_double(sample, result):
    r = dataclasses.replace(FAST, double=False).fit(
        *sample, fold_ids=np.asarray(result.estimate.diagnostics["fold_ids"])
    )
    assert r.psi.dtype == np.float32
    assert abs(r.theta - result.theta) < 2e-3 * abs(result.theta)


def test_jax_arrays_are_data_too(sample, result):
    with jax.enable_x64(True):
        r = FAST.fit(*(jnp.asarray(v) for v in sample))
    assert r.theta == result.theta
