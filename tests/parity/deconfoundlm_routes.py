"""Check of the golden estimates of deconfoundlm, in float64 alone: no route runs in float32."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators import fixed_effects
from jaxcore.estimators.deconfound import routes, values
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import covariance
from tests.parity.golden import Golden


def check_deconfound(path: Path) -> None:
    file = Golden(path)
    x = file.group("in")

    def close(what: str, ours) -> None:
        golden, ours = file[f"out/{what}"], np.asarray(ours)
        assert ours.shape == golden.shape, f"{what}: {ours.shape}, expected {golden.shape}"
        bound = 1e-10 * np.max(np.abs(golden)) + 1e-11
        assert np.max(np.abs(ours - golden)) <= bound, f"{what}: {ours} against {golden}"

    Y, C, Z, phi = x["Y"], x["C"], x["Z"], x["phi"]
    alone = routes.ols_c(Y, C)
    close("ols_C_only/delta", alone.theta)
    close("ols_C_only/resid_reward", routes.adjusted(Y, C, alone.theta))
    joint = routes.ols_c(Y, C, phi)
    close("ols_joint/delta", joint.theta)
    close("ols_joint/beta", joint.diagnostics["exogenous"][1:])
    texts = routes.ols_c(Y, phi, C)  # the text's coefficients, confounders taken out
    close("fwl/beta", texts.theta)
    left = routes.given(Y, C)
    close("fwl/y_resid", left)
    close("one_sided/beta", routes.ols_c(left, phi).theta)
    iv = routes.iv(Y, C, Z)
    close("iv/delta", iv.theta)
    close("iv/se_hc0", iv.se)
    close("iv/adjusted_reward", routes.adjusted(Y, C, iv.theta))
    close("iv/first_stage_F", iv.diagnostics["first_stage_F"])
    folds, k, penalty = x["fold"], file.config["K"], file.config["ridge"]
    plm = routes.plm(Y, C, phi, folds, k, penalty=penalty)
    close("plm/y_resid", plm.diagnostics["y_residual"])
    close("plm/c_resid", plm.diagnostics["c_residual"])
    close("plm/delta_dml2", plm.theta)
    close("plm/se_hc0", plm.se)
    close("plm/adjusted_reward", routes.adjusted(Y, C, plm.theta, np.mean(C, axis=0)))
    close("plm/delta_dml1", routes.plm(Y, C, phi, folds, k, penalty=penalty, kind="dml1").theta)
    _groups(x, close, file.config["n_groups"])
    _values(x, close)


def _groups(x, close, n_groups) -> None:
    Y, phi, group = x["Y_fe"], x["phi"], x["group"]
    columns = np.column_stack([Y, phi])
    one = fixed_effects.demean(columns, group).values
    beta = fixed_effects.within(one[:, 0], one[:, 1:]).theta
    close("fe1/beta", beta)
    count = np.bincount(group, minlength=n_groups)
    alpha = np.bincount(group, Y - phi @ beta, n_groups) / np.maximum(count, 1)
    close("fe1/alpha", alpha)
    close("fe1/adjusted_reward", Y - (alpha[group] - np.mean(alpha[group])))
    residual = one[:, 0] - one[:, 1:] @ beta
    found = fixed_effects.shrunken(residual, alpha, count.astype(float), phi.shape[1])
    close("blup/sigma2", found.noise)
    close("blup/var_alpha", found.spread)
    close("blup/alpha", found.effects)
    both = np.column_stack([group, x["time"]])
    for method in fixed_effects.METHODS:
        two = fixed_effects.demean(columns, both, method=method, tol=1e-13).values
        close("fe2/y_within", two[:, 0])
        fit = fixed_effects.within(two[:, 0], two[:, 1:])
        close("fe2/beta", fit.theta)
        units = Units(clusters=group)
        with jax.enable_x64(True):
            spread = covariance(jnp.asarray(fit.psi), units, small_sample=False)
        close("fe2/se_cluster_CR0", np.sqrt(np.diag(spread)))


def _values(x, close) -> None:
    t, y, e, m1, m0 = (x[f"aipw_{name}"] for name in ("t", "y", "e", "m1", "m0"))
    found = values.attribute_effect(y, t, e, m0, m1, clip=None)
    close("aipw/psi", found.diagnostics["u"])
    close("aipw/ate", found.theta)
    n = len(y)
    close("aipw/se", found.se * np.sqrt(n / (n - 1)))  # the reference divides by n - 1
    logged, sampled = x["cpo_g_logged"], x["cpo_g_sampled"]
    values_found = values.policy_values(y, x["cpo_log_ratio"], logged, sampled, largest=None)
    close("cpo/ipw_value", values_found.ipw)
    close("cpo/snipw_value", values_found.snipw)
    close("cpo/dr_value", values_found.doubly_robust)


CHECKS = {"deconfound": check_deconfound}
