"""How fast are effects of many groups taken out of many features, and in how much memory?

    python -m benchmarks.deconfound            # the rival too, if it is installed
    python -m benchmarks.deconfound --smoke    # tiny sizes

* ``large``: a million rows, 512 features, 100,000 groups, in blocks: seconds and peak memory.
* ``equal``: fewer features, so that the rival can hold them; coefficients are compared first.
* ``two_kinds``: authors and weeks; conjugate gradients, alternating projections, the rivals.
* ``chain``: the same with ten times the weeks, so that authors hardly hang together.

The rivals are linearmodels' AbsorbingLS and pyfixest's feols (``pip install -e '.[rivals-econ]'``,
an environment of its own). The first takes minutes for ``chain`` and is left out there.
"""

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.harness import RESULTS, Call, interleaved, limits, ratios, record_parts, say
from jaxcore.estimators import fixed_effects
from jaxcore.estimators.absorbed import Block, absorb

PARTS = ("large", "equal", "two_kinds", "chain")
RIVALS = ("linearmodels", "pyfixest")
AGREE = 1e-6  # relative difference of coefficients
_ROWS = 50_000  # of a block


def block(seed: int, rows: int, d: int, groups: int) -> Block:
    """Rows drawn by a seed: reading them again gives the same."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, groups, rows)
    x = rng.standard_normal((rows, d), np.float32)
    x[:, 0] += (ids % 7).astype(np.float32)
    y = x @ np.linspace(-1, 1, d, dtype=np.float32) + np.sin(ids) + rng.standard_normal(rows)
    return y, x, ids


def large(smoke: bool) -> dict[str, Any]:
    """Seconds of each pass, and peak memory of the process."""
    n, d, groups = (2000, 8, 100) if smoke else (1_000_000, 512, 100_000)
    rows = min(_ROWS, n // 2)
    drawing = 0.0

    def blocks() -> Any:
        nonlocal drawing
        for seed in range(n // rows):
            start = time.perf_counter()
            drawn = block(seed, rows, d, groups)
            drawing += time.perf_counter() - start
            yield drawn

    start = time.perf_counter()
    found = absorb(blocks, groups)
    seconds = time.perf_counter() - start - drawing
    worst = float(np.max(np.abs(found.beta - np.linspace(-1, 1, d)) / found.se))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    work = 2 * n * d**2 / 1e9  # products of the features, most of the arithmetic
    say(f"  {seconds:.1f} s without drawing, {memory:.2f} GB at most, {work / seconds:.0f} GFLOP/s")
    return {
        "rows": n,
        "features": d,
        "groups": groups,
        "seconds": round(seconds, 2),
        "drawing_s": round(drawing, 2),
        "peak_memory_gb": round(memory, 3),
        "rows_in_float64_gb": round(8 * n * (d + 1) / 1e9, 2),
        "worst_error_in_standard_errors": round(worst, 2),
        "gflop_s": round(work / seconds, 1),
        "products_alone_gflop_s": round(_products(min(rows, 20_000), d), 1),
        **limits("matrix_product_gflop_s"),
    }


def _products(n: int, d: int) -> float:
    """What NumPy reaches in double precision with nothing but products of features, best of 5."""
    x = np.random.default_rng(0).standard_normal((n, d))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(x.T, x)
        seconds.append(time.perf_counter() - start)
    return 2 * n * d**2 / 1e9 / min(seconds)


def equal(smoke: bool) -> dict[str, Any]:
    """One kind of groups, all rows in memory, beside the rival."""
    n, d, groups = (2000, 2, 100) if smoke else (200_000, 32, 20_000)
    y, x, ids = block(0, n, d, groups)
    x = x.astype(np.float64)

    columns: Any = np.column_stack([y, x])
    numbers: Any = ids

    def in_memory() -> np.ndarray:
        left = fixed_effects.demean(columns, numbers, n_groups=groups).values
        return np.asarray(fixed_effects.within(left[:, 0], left[:, 1:]).theta)

    calls: dict[str, Call] = {
        "blocks": lambda: absorb(lambda: [(y, x, ids)], groups).beta,
        "demean": in_memory,
    }
    return _timed(calls, y, x, ids[:, None], "blocks", smoke)


def two_kinds(smoke: bool) -> dict[str, Any]:
    """Two kinds of groups, poorly connected: most authors write in two neighbouring weeks."""
    n, groups = (2000, 100) if smoke else (20_000, 2_000)
    return _neighbours(n, groups, 50, smoke, methods=("cg", "alternating"), rivals=RIVALS)


def chain(smoke: bool) -> dict[str, Any]:
    """The same, with so many weeks that what happens in one is hardly heard of in another."""
    n, groups, weeks = (2000, 100, 50) if smoke else (200_000, 20_000, 500)
    return _neighbours(n, groups, weeks, smoke, methods=("cg",), rivals=("pyfixest",))


def _neighbours(
    n: int, groups: int, weeks: int, smoke: bool, *, methods: Sequence[str], rivals: Sequence[str]
) -> dict[str, Any]:
    y, x, author = block(1, n, 2, groups)
    week = (author * weeks // groups + np.random.default_rng(2).integers(0, 2, n)).astype(int)
    ids, x = np.stack([author, week], axis=1), x.astype(np.float64)
    y = y + np.cos(week)

    columns: Any = np.column_stack([y, x])
    numbers: Any = ids

    def ours(method: Any) -> np.ndarray:
        left = fixed_effects.demean(columns, numbers, method=method)
        passes[method] = int(left.n_iter)
        return np.asarray(fixed_effects.within(left.values[:, 0], left.values[:, 1:]).theta)

    passes: dict[str, int] = {}
    calls: dict[str, Call] = {name: lambda name=name: ours(name) for name in methods}
    return _timed(calls, y, x, ids, "cg", smoke, rivals) | {"passes": passes}


def _timed(
    calls: dict[str, Call],
    y: np.ndarray,
    x: np.ndarray,
    ids: np.ndarray,
    best: str,
    smoke: bool,
    rivals: Sequence[str] = RIVALS,
) -> dict[str, Any]:
    """Coefficients against each other, then times; a rival that fails is told with its time."""
    found = {name: np.asarray(call()) for name, call in calls.items()}
    failed: dict[str, Any] = {}
    for name in rivals:
        rival = _RIVALS[name](y, x, ids)
        if rival is None:
            continue
        start = time.perf_counter()
        try:
            found[name] = np.asarray(rival())
            calls = calls | {name: rival}
        except ValueError as error:
            seconds = round(time.perf_counter() - start, 2)
            failed[name] = {"after_s": seconds, "message": str(error)}
    size = np.max(np.abs(found[best]))
    apart = {n: float(np.max(np.abs(b - found[best])) / size) for n, b in found.items()}
    times = interleaved(calls, 1 if smoke else 3, warm_up=0)
    agreeing = tuple(n for n in calls if n in rivals and apart[n] < AGREE)
    if agreeing:
        times[best] |= ratios(times, best, agreeing)
    say("  " + ", ".join(f"{name} {t['median_s']:.2f} s" for name, t in times.items()))
    shape = {"rows": len(y), "features": x.shape[1], "groups": (ids.max(axis=0) + 1).tolist()}
    return {**shape, "apart": apart, "times": times} | ({"failed": failed} if failed else {})


def _linearmodels(y: np.ndarray, x: np.ndarray, ids: np.ndarray) -> Call | None:
    try:
        import pandas as pd
        from linearmodels.iv.absorbing import AbsorbingLS
    except ImportError:
        return None
    absorbed = pd.DataFrame({f"k{j}": pd.Categorical(c) for j, c in enumerate(ids.T)})
    features = pd.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])

    def fit() -> np.ndarray:
        fitted = AbsorbingLS(y, features, absorb=absorbed).fit(cov_type="robust")
        return fitted.params.to_numpy()

    return fit


def _pyfixest(y: np.ndarray, x: np.ndarray, ids: np.ndarray) -> Call | None:
    try:
        import pandas as pd
        from pyfixest.estimation import feols
    except ImportError:
        return None
    names = [f"x{j}" for j in range(x.shape[1])]
    kinds = {f"k{j}": column for j, column in enumerate(ids.T)}
    frame = pd.DataFrame({"y": y} | dict(zip(names, x.T, strict=True)) | kinds)
    formula = f"y ~ {' + '.join(names)} | {' + '.join(kinds)}"

    def fit() -> np.ndarray:
        return feols(formula, data=frame, vcov="hetero", fixef_rm="none").coef().to_numpy()

    return fit


_RIVALS = {"linearmodels": _linearmodels, "pyfixest": _pyfixest}


def main(
    smoke: bool = False,
    output: Path = RESULTS / "deconfound.json",
    parts: tuple[str, ...] = PARTS,
) -> None:
    """Measure and write JSON.

    Args:
      smoke: tiny sizes.
      output: where.
      parts: which of large, equal, two_kinds, chain.
    """
    table = {"large": large, "equal": equal, "two_kinds": two_kinds, "chain": chain}

    def run(name: str) -> dict[str, Any]:
        say(name)
        return {"smoke": smoke, **table[name](smoke)}

    record_parts(output, parts, run, "linearmodels", "pyfixest", "pandas")


if __name__ == "__main__":
    tyro.cli(main)
