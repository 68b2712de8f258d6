"""Checks of the golden files of selective_iv: in float64 in full, and again in plain float32."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators import bootstrap, double_ml, genius, select
from jaxcore.estimators.datasets import load_401k_columns
from jaxcore.estimators.estimate import aggregate_repeats
from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.nuisance import (
    ElasticNet,
    KernelRidge,
    Lasso,
    Logistic,
    LogisticLasso,
    Ridge,
    basis,
)
from jaxcore.estimators.selective_iv import (
    bases,
    moment,
    parametric,
    sensitivity,
    simulate,
)
from jaxcore.estimators.variance import variance
from tests.parity.golden import Golden, close, equal


class _Check:
    """One golden file in one precision: inputs as arrays, comparisons at its tolerance."""

    def __init__(self, path: Path, double: bool, rtol: float, atol: float):
        self.file, self.double = Golden(path), double
        self.rtol, self.atol = rtol, atol
        self.config = self.file.config

    def inputs(self) -> dict[str, jax.Array]:
        return {k: self.array(v) for k, v in self.file.group("in").items() if v.dtype.kind == "f"}

    def array(self, value: np.ndarray) -> jax.Array:
        return jnp.asarray(value, float)

    def close(self, what: str, ours) -> None:
        golden = self.file[what]
        if self.double:
            tol = {"rtol": self.rtol, "atol": self.atol}
        else:
            tol = {"rtol": 2e-3, "atol": 1e-4 * float(np.max(np.abs(golden)))}
        close(ours, golden, what=what, **tol)

    def equal(self, what: str, ours) -> None:
        equal(ours, self.file[what], what=what)


def _both(path: Path, rtol: float = 1e-9, atol: float = 1e-11) -> Iterator[_Check]:
    for double in (True, False):
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            yield _Check(path, double, rtol, atol)


def _nuisances(x: dict[str, jax.Array]) -> moment.Nuisances:
    return moment.Nuisances(**{k: x[k] for k in ("pi", "mu1", "mu0", "g", "delta", "rho")})


def check_if_core(path: Path) -> None:
    for c in _both(path):
        x = c.inputs()
        Y, A, Z, nu = x["Y"], x["A"], x["Z"], _nuisances(x)
        estimate = jax.jit(moment.from_predictions)(Y, A, Z, nu)
        c.close("out/u", estimate.diagnostics["u"])
        c.close("out/theta", estimate.theta)
        c.close("out/phi", estimate.psi)
        c.close("out/phi", moment.influence_function(Y, A, Z, nu))
        c.close("out/se", estimate.se)
        c.close("out/ci95", estimate.confint(0.95))
        c.close("mid/D", moment.variance_contrast(nu.mu1, nu.mu0))
        clip = moment.Clip(
            pi=tuple(c.config["clip_pi"]), mu=(0.0, 1.0), min_abs_D=c.config["min_abs_D"]
        )
        c.close("mid/D_clipped", moment.variance_contrast(nu.mu1, nu.mu0, clip.min_abs_D))
        clipped = moment.from_predictions(Y, A, Z, nu, clip=clip)
        c.close("out/u_clipped", clipped.diagnostics["u"])
        c.close("out/theta_clipped", clipped.theta)
        c.close("out/se_clipped", clipped.se)
        zero = jnp.zeros_like(Y)
        one_sided = moment.Nuisances(
            pi=nu.pi, mu1=nu.mu1, mu0=zero, g=nu.g * Z, delta=nu.delta, rho=zero
        )
        u = moment.moment_uncentred(
            Y, A * Z, Z, one_sided, clip=dataclasses.replace(moment.NO_CLIP, one_sided=True)
        )
        c.close("out/u_onesided", u)
        c.close("out/theta_onesided", jnp.mean(u))
        t = bootstrap.t_statistics(estimate.psi, estimate.se, x["xi"])
        c.close("out/boot_t", t)
        for name in c.file.group("out"):
            if name.startswith("boot_crit"):
                level = int(name.removeprefix("boot_crit")) / 100
                c.close(f"out/{name}", bootstrap.critical_value(t, level))


def check_mr_parametric(path: Path) -> None:
    for c in _both(path):
        x = c.inputs()
        Y, A, Z, X = (x[k] for k in "YAZX")
        names = ("pi", "mu", "mu1", "mu0", "g", "d", "r")
        estimate = jax.jit(parametric.mr_parametric)(
            Y, A, Z, parametric.Bases(*[x[f"B{k}"] for k in names])
        )
        d = estimate.diagnostics
        c.close("out/theta", estimate.theta)
        c.close("out/u", d["u"])
        c.close("out/se_if", d["se_if"])
        c.close("out/se_sandwich", estimate.se)
        c.close("out/cov", d["cov"])
        c.close("out/IF_full", estimate.psi)
        for name in ("alpha", "beta", "psi", "kappa", "eta"):
            c.close(f"out/{name}", getattr(d["coefficients"], name))
        nu = d["nuisances"]
        for name in ("pi", "delta", "g", "rho"):
            c.close(f"out/nuis_{name}", getattr(nu, name))
        c.close("out/nuis_mu", jnp.where(Z > 0.5, nu.mu1, nu.mu0))
        c.close("out/nuis_D", moment.variance_contrast(nu.mu1, nu.mu0))
        for scenario, wrong in c.config["scenarios"].items():
            bases = simulate.bases_siv1(Z, X, tuple(wrong))
            one = jax.jit(parametric.mr_parametric)(Y, A, Z, bases)
            c.close(f"out/theta_{scenario}", one.theta)
            c.close(f"out/se_if_{scenario}", one.diagnostics["se_if"])
            c.close(f"out/se_sandwich_{scenario}", one.diagnostics["se_sandwich"])
        W = jnp.concatenate([jnp.ones_like(Y)[:, None], X], axis=1)
        pairs = {
            "ols": ols(Y, A, W),
            "tsls": tsls(Y, A, Z, W),
            "genius_nox": genius.genius(Y, A, Z),
        }
        for name, one in pairs.items():
            c.close(f"out/{name}", jnp.stack([one.theta, one.se]))
        c.close("out/genius_x", genius.genius(Y, A, Z, Bpi=x["Bpi"], Bmu=x["Bmu"]).theta)


def check_crossfit_select(path: Path) -> None:
    for c in _both(path):
        x, k = c.inputs(), c.config["K"]
        Y, A, Z, X = (x[name] for name in "YAZX")
        fold = jnp.asarray(c.file["in/fold"], jnp.int32)
        B, mask = basis.library(c.config["lib"], X)
        clip = moment.Clip(
            pi=(c.config["clip_pi"], 1 - c.config["clip_pi"]),
            mu=(c.config["clip_mu"], 1 - c.config["clip_mu"]),
            min_abs_D=c.config["min_D"],
        )
        masks = dict.fromkeys(moment.BLOCKS, mask)
        models = {name: tuple(kept) for name, kept in c.config["models"].items()}
        fits = bases.fit_bases(Y, A, Z, B, masks, fold, k, ridge=c.config["lam_logit"], clip=clip)
        U = bases.all_moments(fits, Y, A, Z, B, fold, clip=clip)
        c.close("mid/U", U)
        T, _ = select.fold_means(U, fold, k)
        c.close("out/T", T)
        theta = jnp.mean(U, axis=0)
        se = jnp.sqrt(variance(U - theta[None]))
        c.close("out/theta", theta)
        c.close("out/se", se)
        for rule, name in (("minimax", "minimax"), ("mixed_minimax", "mixed")):
            chosen = select.select(T, rule, models, moment.BLOCKS)
            c.close(f"out/B_{name}", chosen.criterion)
            c.equal(f"out/sel_{name}", chosen.index)
            c.close(f"out/theta_{name}", theta[tuple(chosen.index)])
            c.close(f"out/se_{name}", se[tuple(chosen.index)])
            for model, risk in chosen.risks.items():
                c.close(f"out/R_{model}", risk)
        soft = select.smooth_select(
            U,
            fold,
            k,
            models,
            moment.BLOCKS,
            beta=c.config["soft_beta"],
            lam=c.config["soft_lambda"],
        )
        c.close("out/soft_theta", soft.theta)
        c.close("out/soft_scale", soft.scale)
        c.close("out/soft_B", soft.criterion)
        c.close("out/soft_weights", soft.weights)
        c.close("out/soft_grad", soft.gradient)
        c.close("out/soft_IF", soft.psi)
        c.close("out/soft_se", soft.se)


def check_pseudo_risk(path: Path) -> None:
    for c in _both(path):
        x = c.inputs()
        for rule, name in (("minimax", "minimax"), ("mixed_minimax", "mixed")):
            chosen = select.select(x["T"], rule, moment.MODELS, moment.BLOCKS)
            c.close(f"out/B_{name}", chosen.criterion)
            c.equal(f"out/sel_{name}", chosen.index)
            for model, risk in chosen.risks.items():
                c.close(f"out/R_{model}", risk)
            robust = select.select(
                x["T_dr"], rule, select.DOUBLY_ROBUST, select.DOUBLY_ROBUST_BLOCKS
            )
            c.close(f"out/dr_B_{name}", robust.criterion)
            c.equal(f"out/dr_sel_{name}", robust.index)


def check_learners(path: Path) -> None:
    for c in _both(path, rtol=1e-5, atol=1e-9):
        x, cfg = c.inputs(), c.config
        X, y, yb = x["X"], x["y"], x["yb"]
        w, key = jnp.ones_like(y), jax.random.key(0)
        raw = {"standardize": False}
        learners = {
            "ridge": (Ridge(alpha=cfg["lam"], **raw), y),
            "logit_ridge": (Logistic(alpha=cfg["lam"], **raw), yb),
            "lasso": (Lasso(alpha=cfg["lasso_alpha"], **raw), y),
            "enet": (
                ElasticNet(alpha=cfg["lasso_alpha"], l1_ratio=cfg["l1_ratio"], **raw),
                y,
            ),
            "logit_lasso": (LogisticLasso(alpha=cfg["logit_lasso_alpha"], **raw), yb),
        }
        for name, (learner, target) in learners.items():
            fit = learner.fit(X, target, w, key)
            c.close(f"out/{name}", jnp.concatenate([fit.intercept[None], fit.coef]))
        kernel = KernelRidge(alpha=cfg["kr_alpha"], gamma=cfg["gamma"], **raw)
        fit = kernel.fit(X, y, w, key)
        c.close("out/kr_dual", fit.dual)
        c.close("out/kr_pred", kernel.predict(fit, x["Xt"]))


def check_repeat_aggregate(path: Path) -> None:
    for c in _both(path):
        x = c.inputs()
        for how in ("median", "mean"):
            theta, se = aggregate_repeats(x["theta_r"], x["se_r"], how=how)
            c.close(f"out/theta_{how}", theta)
            c.close(f"out/se_{how}", se)


def check_plm_sensitivity(path: Path) -> None:
    for c in _both(path):
        x, level = c.inputs(), c.config["level"]
        Y, A, Z = x["Y"], x["A"], x["Z"]
        plm = genius.genius_plm(
            *[x[k] for k in ("Y", "A", "Z", "pi", "mu", "m", "v", "c")], level=level
        )
        c.close("out/plm_theta", plm.theta)
        c.close("out/plm_se", plm.se)
        c.close("out/plm_a", plm.diagnostics["a"])
        c.close("out/plm_b", plm.diagnostics["b"])
        robust = plm.diagnostics["robust_set"]
        c.close("out/robust_quadratic", robust.quadratic)
        c.close("out/robust_roots", robust.roots)
        c.equal("out/robust_is_interval", robust.is_interval)
        nu = _nuisances(x)
        estimate = moment.from_predictions(Y, A, Z, nu)
        u = estimate.diagnostics["u"]
        c.close("out/u", u)
        c.close("out/theta", estimate.theta)
        bounds = sensitivity.sensitivity_bounds(u, A, Z, nu, c.config["G"], level=level)
        c.close("out/nu", bounds.nu)
        c.close("out/nu_if", bounds.nu_if)
        c.close("out/nu_se", bounds.nu_se)
        c.close("out/bounds", bounds.bounds)
        c.close("out/bounds_ci", bounds.limits)


def k401_basis(name: str) -> jax.Array:
    """Design matrix "abadie", "lin", "quad" or "cubic" of the analyses shown in the documentation.

    "abadie" is the constant, income, age - 25, its square, married, family size; "lin" the same
    scaled (income / 100, (age - 25) / 10, family size / 4); "quad" adds income squared, income
    times age, income times married, age times married; "cubic" adds income cubed.
    """
    c = load_401k_columns()
    one, inc, age = np.ones_like(c["inc"]), c["inc"], c["age"] - 25
    marr, fsize = c["marr"], c["fsize"]
    if name == "abadie":
        columns = [one, inc, age, age**2, marr, fsize]
    else:
        inc, age, fsize = inc / 100, age / 10, fsize / 4
        columns = [one, inc, age, age**2, marr, fsize]
        if name in ("quad", "cubic"):
            columns += [inc**2, inc * age, inc * marr, age * marr]
        if name == "cubic":
            columns.append(inc**3)
    return jnp.asarray(np.stack(columns, axis=1), float)


def check_k401(path: Path) -> None:
    for c in _both(path, rtol=1e-7):
        columns, roles = load_401k_columns(), ("outcome", "treatment", "instrument")
        Y, A, Z = (c.array(columns[c.config[role]]) for role in roles)
        W = k401_basis("abadie")
        for name, one in (("ols", ols(Y, A, W)), ("tsls", tsls(Y, A, Z, W))):
            c.close(f"out/{name}", jnp.stack([one.theta, one.se]))
        for name, delta in c.config["delta_basis"].items():
            B = k401_basis(name)
            bases = parametric.Bases(B, B, B, B, B, k401_basis(delta), B)
            one = parametric.mr_parametric(Y, A, Z, bases, se="if", one_sided=True)
            c.close(f"out/onesided_{name}", jnp.stack([one.theta, one.se]))
            nu = one.diagnostics["nuisances"]
            d = moment.variance_contrast(nu.mu1, nu.mu0)
            c.close(f"out/D_range_{name}", jnp.stack([d.min(), d.max()]))
            c.close(f"out/pi_range_{name}", jnp.stack([nu.pi.min(), nu.pi.max()]))
            logit = Logistic(alpha=0.0, max_steps=50)
            late = double_ml.iivm(
                Y,
                A,
                Z,
                B[:, 1:],
                ml_g=Ridge(alpha=0.0),
                ml_m=logit,
                ml_r=logit,
                n_folds=1,
                fold_ids=jnp.zeros(Y.shape[0], jnp.int32),
                clip=(0.0, 1.0),
                always_takers=False,
            )
            c.close(f"out/late_{name}", jnp.stack([late.theta, late.se]))
            constant = genius.genius(Y, A, Z, Bpi=B, Bmu=B, one_sided=True)
            c.close(f"out/genius_{name}", constant.theta)


def check_discrete_law(path: Path) -> None:
    """Every formula of the moment on an exact law: nuisances, influence function, 32 patterns."""
    for c in _both(path):
        P, y = c.array(c.file["in/P"]), c.array(c.file["in/y_values"])
        law = DiscreteLaw(P, y)
        true = law.nuisances()
        for name in ("pi", "mu", "g", "delta", "rho"):
            c.close(f"mid/{name}", true[name])
        for name, value in law.moments().items():
            c.close(f"mid/{name}", value)
        c.close("out/theta", law.theta(true))
        phi = law.moment_at(true) - law.theta(true)
        c.close("out/phi", phi)
        c.close("out/var_eff", jnp.sum(P * phi**2))
        wrong = {k: c.array(c.file[f"in/wrong_{k}"]) for k in true}
        biases = []
        for code in c.file["out/correct_code"]:
            right = dict(zip(c.config["order"], code, strict=True))
            mixed = {k: true[k] if right[k] else wrong[k] for k in true}
            biases.append(jnp.sum(P * law.moment_at(mixed)) - law.theta(true))
        c.close("out/bias", jnp.stack(biases))


class DiscreteLaw:
    """A law on (x, z, a, y) with finite support and its exact nuisances (x, or x and z, first)."""

    def __init__(self, P: jax.Array, y_values: jax.Array):
        self.P, self.y = P, y_values

    def _means(self):
        P = self.P / jnp.sum(self.P)
        x = jnp.sum(P, axis=(1, 2, 3))
        xz = jnp.sum(P, axis=(2, 3))
        mu = jnp.sum(P[:, :, 1], axis=2) / xz
        m = jnp.sum(P * self.y[None, None, None], axis=(2, 3)) / xz
        ay = jnp.sum(P[:, :, 1] * self.y[None, None], axis=2) / xz
        return x, xz, mu, m, ay - mu * m, mu * (1 - mu)

    def moments(self) -> dict[str, jax.Array]:
        _, _, _, m, C, V = self._means()
        return {"m": m, "C": C, "V": V, "D": V[:, 1] - V[:, 0]}

    def nuisances(self) -> dict[str, jax.Array]:
        x, xz, mu, m, C, V = self._means()
        delta = (C[:, 1] - C[:, 0]) / (V[:, 1] - V[:, 0])
        return {
            "pi": xz[:, 1] / x,
            "mu": mu,
            "g": m - delta[:, None] * mu,
            "delta": delta,
            "rho": C[:, 1] - delta * V[:, 1],
        }

    def theta(self, nu: dict[str, jax.Array]) -> jax.Array:
        x = jnp.sum(self.P, axis=(1, 2, 3)) / jnp.sum(self.P)
        return jnp.sum(x * nu["delta"])

    def moment_at(self, nu: dict[str, jax.Array]) -> jax.Array:
        """``u`` at every support point, through the library's own function."""
        shape = self.P.shape
        x, z, a, y = (i.reshape(-1) for i in np.indices(shape))
        values = moment.Nuisances(
            pi=nu["pi"][x],
            mu1=nu["mu"][x, 1],
            mu0=nu["mu"][x, 0],
            g=nu["g"][x, z],
            delta=nu["delta"][x],
            rho=nu["rho"][x],
        )
        u = moment.moment_uncentred(
            self.y[y], jnp.asarray(a, self.P.dtype), jnp.asarray(z, self.P.dtype), values
        )
        return u.reshape(shape)


CHECKS: dict[str, Callable[[Path], None]] = {
    "discrete_law": check_discrete_law,
    "if_core": check_if_core,
    "mr_parametric": check_mr_parametric,
    "crossfit_select": check_crossfit_select,
    "pseudo_risk": check_pseudo_risk,
    "learners": check_learners,
    "repeat_aggregate": check_repeat_aggregate,
    "plm_sensitivity": check_plm_sensitivity,
    "k401": check_k401,
}
