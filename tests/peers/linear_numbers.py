"""Numbers of linearmodels (clusters of two kinds) and wildboottest on a case of this folder.

    python -m tests.peers.linear_numbers > tests/peers/linear.json

in an environment with ``linearmodels`` and ``wildboottest``.
"""

import json
import warnings

import numpy as np

N, FIRMS, YEARS = 96, 8, 6
VALUES = (0.5, 0.7, 1.2)  # tested ones


def data() -> dict[str, np.ndarray]:
    """A regression with an instrument whose errors depend on firm and year."""
    rng = np.random.default_rng(11)
    firm, year = np.arange(N) % FIRMS, rng.integers(0, YEARS, N)
    common = rng.normal(size=FIRMS)[firm] + 0.7 * rng.normal(size=YEARS)[year]
    w = rng.normal(size=N)
    z = rng.normal(size=N) + 0.5 * rng.normal(size=FIRMS)[firm]
    a = z + 0.5 * w + common + rng.normal(size=N)
    y = 0.5 * a + w + common + rng.normal(size=N)
    return {"y": y, "a": a, "z": z, "w": w, "firm": firm, "year": year}


def numbers() -> dict[str, object]:
    """Clustered errors, and bootstrap p-values.

    Those of two-stage least squares are without a correction for few clusters, those of least
    squares with one for each kind.
    """
    import pandas as pd
    from linearmodels.iv import IV2SLS
    from linearmodels.panel import PooledOLS

    warnings.simplefilter("ignore")  # of two kinds of clusters, the constant's variance is negative
    frame = pd.DataFrame(data())
    frame["one"] = 1.0
    model = IV2SLS(frame.y, frame[["one", "w"]], frame[["a"]], frame[["z"]])
    indexed = frame.set_index([np.arange(N), np.zeros(N, int)])
    pooled = PooledOLS(indexed.y, indexed[["one", "a", "w"]])
    out: dict[str, object] = {}
    for name, columns in (("firm", ["firm"]), ("both", ["firm", "year"])):
        fit = model.fit(cov_type="clustered", clusters=frame[columns])
        out[f"tsls_{name}"] = {"theta": float(fit.params["a"]), "se": float(fit.std_errors["a"])}
        fit = pooled.fit(
            cov_type="clustered", clusters=indexed[columns], group_debias=True, debiased=False
        )
        out[f"ols_{name}"] = {"theta": float(fit.params["a"]), "se": float(fit.std_errors["a"])}
    return out | {"wild": wild()}


def wild() -> list[float]:
    """P-values of the restricted wild cluster bootstrap with every change of signs."""
    import pandas as pd
    import statsmodels.api as sm
    from wildboottest.wildboottest import wildboottest

    c = data()
    out = []
    for value in VALUES:
        frame = pd.DataFrame({"one": 1.0, "a": c["a"], "w": c["w"]})
        model = sm.OLS(c["y"] - value * c["a"], frame)
        found = wildboottest(
            model,
            param="a",
            cluster=pd.Series(c["firm"]),
            B=9999,
            weights_type="rademacher",
            impose_null=True,
            bootstrap_type="11",
            seed=1,
            show=False,
        )
        out.append(float(found["p-value"].iloc[0]))
    return out


if __name__ == "__main__":
    print(json.dumps(numbers(), indent=1))
