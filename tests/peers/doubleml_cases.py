"""Data and nuisance functions on which DoubleML and this library must give the same numbers."""

import numpy as np

N, PERIODS = 150, 5


def data() -> dict[str, np.ndarray]:
    """One sample for all models of a single period."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(N, 2))
    z = (rng.uniform(size=N) < m_of(x)).astype(float)
    u = rng.normal(size=N)
    d = (0.8 * z - 0.6 + 0.3 * x[:, 0] + 0.6 * u + 0.5 * rng.normal(size=N) > 0).astype(float)
    dose = x[:, 0] + rng.normal(size=N)
    y = 0.7 * d + 0.5 * dose + x @ [1.0, -0.5] + u
    level = rng.integers(0, 3, N)
    after = rng.integers(0, 2, N).astype(float)
    group = np.array(["a", "b", "c"])[rng.integers(0, 3, N)]
    return {
        "x": x,
        "z": z,
        "d": d,
        "dose": dose,
        "y": y,
        "level": level,
        "after": after,
        "group": group,
    }


def m_of(x):
    """A probability."""
    return 0.5 + 0.3 * np.tanh(x[:, 0])


def g_of(x, arm=0.0):
    """A mean of the outcome."""
    return 0.8 * x[:, 0] - 0.4 * x[:, 1] + arm * (0.6 + 0.1 * x[:, 0])


def l_of(x):
    """Another one, which leaves a covariate out."""
    return 0.9 * x[:, 0]


def share_of(x, arm=0.0):
    """Another probability."""
    return 0.35 + 0.3 * arm + 0.1 * np.tanh(x[:, 1])


def panel() -> dict[str, np.ndarray]:
    """Outcomes of units that start treatment at different times, and covariates that move."""
    rng = np.random.default_rng(8)
    first = rng.choice([2.0, 3.0, 4.0, np.inf], size=N)
    x = rng.normal(size=(N, 1, 2)) + 0.2 * rng.normal(size=(N, PERIODS, 2))
    times = np.arange(1.0, PERIODS + 1)
    since = times[None] - np.where(np.isinf(first), 99, first)[:, None]
    y = rng.normal(size=(N, 1)) + 0.5 * times[None] * (1 + 0.3 * x[:, 0, :1])
    y = y + np.where(since >= 0, 1 + 0.5 * since, 0) + rng.normal(size=(N, PERIODS))
    return {"y": y, "first": first, "x": x, "times": times}
