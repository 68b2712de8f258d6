"""Simulation studies: replications of an estimator on drawn samples, and their table.

A replication is a pure function of its key, and the key of replication ``r`` depends on the seed
and ``r`` only. So numbers are the same however replications are split over batches, devices and
interrupted runs. `jaxcore.estimators.studies` runs long studies in a run directory.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.variance import normal_quantile
from jaxcore.parallel.mesh import DATA_AXIS, FSDP_AXIS
from jaxcore.typing import Key


class Replication(NamedTuple):
    """Estimates and standard errors of one drawn sample; NaN where there is no error."""

    theta: Float[Array, " q"]
    se: Float[Array, " q"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What is replicated: several estimators on samples of one design."""

    names: tuple[str, ...]  # of the first columns of `Replication.theta`
    extras: tuple[str, ...] = ()  # of further columns, which are averaged and nothing else
    truth: float
    draw: Callable[[Key], Replication]


def replicate(
    draw: Callable[[Key], Any],
    key: Key,
    index: Int[Array, " b"],
    *,
    at_once: int = 1,
    mesh: Mesh | None = None,
) -> Any:
    """Run the replications with the given numbers.

    Args:
      draw: from a key to a pytree of arrays.
      key: key of the whole study.
      index: numbers of the replications.
      at_once: replications computed together by `jax.vmap`.
      mesh: devices over which the replications are split; their count must divide ``index``.

    Returns:
      The results with a leading axis over ``index``.
    """

    def run(index: Int[Array, " b"]) -> Any:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        return jax.lax.map(draw, keys, batch_size=min(at_once, index.shape[0]))

    if mesh is None:
        return run(index)
    rows = PartitionSpec((DATA_AXIS, FSDP_AXIS))
    return jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)(index)


def monte_carlo(
    estimator: Callable[[Any], Any],
    dgp: Callable[[Key, int], Any],
    n: int,
    reps: int,
    key: Key,
    *,
    truth: float | None = None,
    at_once: int = 1,
    mesh: Mesh | None = None,
) -> "MonteCarlo":
    """Replicate an estimator on samples of a design.

    Args:
      estimator: pure function from a sample to an `Estimate` (or anything with ``theta``, ``se``).
      dgp: from a key and a size to a sample.
      n: units per sample.
      reps: replications.
      key: key of the study.
      truth: the estimated quantity, for bias and coverage; None leaves them out.
      at_once: replications computed together; more is faster for small samples and takes more
        memory.
      mesh: devices over which replications are split.

    >>> import jax
    >>> from jaxcore.estimators import influence
    >>> def dgp(key, n):
    ...     return jax.random.normal(key, (n,))
    >>> def mean(y):
    ...     return influence.solve(influence.LinearScore(-jnp.ones_like(y), y))
    >>> out = monte_carlo(mean, dgp, 50, 20, jax.random.key(0), truth=0.0)
    >>> out.theta.shape
    (20, 1)
    """
    if reps < 1 or n < 1:
        raise UserError(f"Expected at least one replication of one unit, found {reps} of {n}.")
    devices = 1 if mesh is None else mesh.devices.size
    padded = -(-reps // devices) * devices

    def draw(k: Key) -> Replication:
        estimate = estimator(dgp(k, n))
        return Replication(jnp.ravel(estimate.theta), jnp.ravel(estimate.se))

    out = jax.jit(lambda index: replicate(draw, key, index, at_once=at_once, mesh=mesh))(
        jnp.arange(padded, dtype=jnp.int32)
    )
    theta, se = (np.asarray(x)[:reps] for x in out)
    names = (
        ("theta",) if theta.shape[1] == 1 else tuple(f"theta[{j}]" for j in range(theta.shape[1]))
    )
    return MonteCarlo(names=names, truth=truth, theta=theta, se=se)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonteCarlo:
    """Results of all replications."""

    names: tuple[str, ...]
    truth: float | None
    theta: np.ndarray  # r, q
    se: np.ndarray  # r, q
    extras: tuple[str, ...] = ()  # names of the columns after ``names``

    def extra_means(self) -> dict[str, float]:
        """Means of the extra columns (shares, counts)."""
        first = len(self.names)
        return {
            name: float(np.nanmean(self.theta[:, first + j])) for j, name in enumerate(self.extras)
        }

    def table(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One row per estimator, each figure with its Monte-Carlo standard error (``..._mcse``).

        bias, median_bias, sd (ddof 1), mean_se, coverage of the Wald interval, rmse. Replications
        without a finite estimate, or error where there are errors, are left out and counted in
        ``failed``.
        """
        return [self._row(j, level) for j in range(len(self.names))]

    def _row(self, j: int, level: float) -> dict[str, Any]:
        good = np.isfinite(self.theta[:, j])
        has_se = bool(np.isfinite(self.se[:, j]).any())
        if has_se:
            good &= np.isfinite(self.se[:, j])
        theta, se = self.theta[good, j], self.se[good, j]
        r = len(theta)
        row: dict[str, Any] = {"name": self.names[j], "reps": r, "failed": int((~good).sum())}
        if r < 2:
            raise UserError(f"Expected at least 2 finite replications, found {r}.")
        sd = float(np.std(theta, ddof=1))
        row |= {"mean": float(np.mean(theta)), "sd": sd, "sd_mcse": sd / np.sqrt(2 * (r - 1))}
        if has_se:
            row["mean_se"] = float(np.mean(se))
            row["mean_se_mcse"] = float(np.std(se, ddof=1) / np.sqrt(r))
        if self.truth is not None:
            error = theta - self.truth
            square = error**2
            rmse = float(np.sqrt(np.mean(square)))
            row |= {
                "bias": float(np.mean(error)),
                "bias_mcse": sd / np.sqrt(r),
                "median_bias": float(np.median(error)),
                "median_bias_mcse": float(np.sqrt(np.pi / 2) * sd / np.sqrt(r)),
                "rmse": rmse,
                "rmse_mcse": float(np.std(square, ddof=1) / np.sqrt(r) / (2 * rmse))
                if rmse
                else 0.0,
            }
            if has_se:
                inside = np.abs(error) <= normal_quantile(level) * se
                cover = float(np.mean(inside))
                row["coverage"] = cover
                row["coverage_mcse"] = float(np.sqrt(cover * (1 - cover) / r))
        return row

    def text(self, level: float = 0.95) -> str:
        """The table as aligned text."""
        return table_text(self.table(level))


def table_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `MonteCarlo.table` as text, Monte-Carlo errors in brackets."""
    shown = ("bias", "median_bias", "sd", "mean_se", "coverage", "rmse")
    cells = [["", *shown]]
    for row in rows:
        line = [row["name"]]
        for name in shown:
            value, error = row.get(name), row.get(f"{name}_mcse")
            sign = "+" if "bias" in name else ""
            line.append("" if value is None else f"{value:{sign}.3f} ({error:.3f})")
        cells.append(line)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]

    def text(line: list[str]) -> str:
        right = [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *right]).rstrip()

    return "\n".join(text(line) for line in cells)
