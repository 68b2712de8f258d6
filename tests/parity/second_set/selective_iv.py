"""Other units, learners, folds, laws and settings for the files of the selective estimator."""

import itertools

import numpy as np

from tests.parity.second_set.change import Arrays, Change, Config, take


def _units(arrays: Arrays, count: int, seed: int) -> None:
    """Draw ``count`` of the units with other numbers for the outcome."""
    total = len(arrays["in/Y"])
    rng = np.random.default_rng(seed)
    take(arrays, total, rng.choice(total, count, replace=False))
    arrays["in/Y"] = arrays["in/Y"] + 0.3 * rng.normal(size=count)


def if_core(arrays: Arrays, config: Config) -> None:
    _units(arrays, 170, 1)
    arrays["in/xi"] = np.random.default_rng(2).normal(size=(40, 170))
    arrays["out/boot_crit75"] = arrays.pop("out/boot_crit90")
    config |= {"clip_pi": [0.35, 0.7], "min_abs_D": 0.1}


def mr_parametric(arrays: Arrays, config: Config) -> None:
    _units(arrays, 430, 3)
    dropped = "M2"
    del config["scenarios"][dropped]
    for key in [k for k in arrays if k.endswith(f"_{dropped}")]:
        del arrays[key]


def crossfit_select(arrays: Arrays, config: Config) -> None:
    _units(arrays, 700, 4)
    config |= {"K": 4, "lib": ["const", "lin", "quad"], "lam_logit": 2e-3, "clip_pi": 0.02}
    config |= {"soft_beta": 4.0, "min_D": 0.02}
    arrays["in/fold"] = np.random.default_rng(5).permutation(np.arange(700) % 4)


def pseudo_risk(arrays: Arrays, config: Config) -> None:
    rng = np.random.default_rng(6)
    arrays["in/T"] = rng.normal(size=(3, 3, 2, 2, 4, 2))
    arrays["in/T_dr"] = rng.normal(size=(3, 5, 2))


def learners(arrays: Arrays, config: Config) -> None:
    take(arrays, 120, np.arange(95))
    take(arrays, 30, np.arange(21))
    for name in ("in/X", "in/Xt"):
        arrays[name] = arrays[name][:, :6]
    config |= {"lam": 0.2, "lasso_alpha": 0.1, "l1_ratio": 0.7, "logit_lasso_alpha": 0.03}
    config |= {"gamma": 0.3, "kr_alpha": 0.7}


def repeat_aggregate(arrays: Arrays, config: Config) -> None:
    rng = np.random.default_rng(7)
    arrays["in/theta_r"], arrays["in/se_r"] = rng.normal(size=6), rng.uniform(1, 2, size=6)


def plm_sensitivity(arrays: Arrays, config: Config) -> None:
    _units(arrays, 650, 8)
    config |= {"G": 0.08, "level": 0.9}


def k401(arrays: Arrays, config: Config) -> None:
    config |= {"outcome": "pira", "delta_basis": {"lin": "lin", "cubic": "lin"}}
    for key in [k for k in arrays if k.endswith("_quad")]:
        del arrays[key]


def discrete_law(arrays: Arrays, config: Config) -> set[str]:
    rng = np.random.default_rng(9)
    P = rng.uniform(0.2, 1.0, size=(5, 2, 2, 4))
    arrays["in/P"], arrays["in/y_values"] = P / P.sum(), rng.normal(size=4)
    for name in ("pi", "mu", "g", "delta", "rho"):
        shape = (5, *arrays[f"in/wrong_{name}"].shape[1:])
        arrays[f"in/wrong_{name}"] = rng.uniform(0.2, 0.8, size=shape)
    config["order"] = config["order"][::-1]
    codes = list(itertools.product((0, 1), repeat=5))[::3]
    arrays["out/correct_code"] = np.array(codes)
    return {"out/correct_code"}


VARIANTS: dict[str, Change] = {
    "crossfit_select": crossfit_select,
    "discrete_law": discrete_law,
    "if_core": if_core,
    "k401": k401,
    "learners": learners,
    "mr_parametric": mr_parametric,
    "plm_sensitivity": plm_sensitivity,
    "pseudo_risk": pseudo_risk,
    "repeat_aggregate": repeat_aggregate,
}
