"""`Estimate`: what every estimator returns."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from html import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import bootstrap
from jaxcore.estimators.report import PICTURES, Report
from jaxcore.estimators.tables import Sheet, formatted
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import (
    degrees_of_freedom,
    quantile,
    tail,
    variance,
    words_on_clusters,
)


def scope_of(x: Array | np.ndarray) -> contextlib.AbstractContextManager:
    """An x64 scope if ``x`` is a concrete float64 array, else a scope that changes nothing."""
    if not isinstance(x, Tracer) and np.dtype(x.dtype) == np.float64:
        return jax.enable_x64(True)
    return contextlib.nullcontext()


@functools.partial(jax.jit, static_argnames=("n_boot", "kind"))
def _drawn(
    seed: np.int64,
    psi: Float[Any, "n *q"],
    se: Float[Any, "*q"],
    units: Units,
    *,
    n_boot: int,
    kind: str,
) -> Float[Array, "b *q"]:
    """t-statistics of variance one: errors of several partitions hold more than that of psi."""
    own = jnp.sqrt(variance(psi, units))
    se = jnp.where(own > 0, own, se)
    key = jax.random.key(seed)
    return bootstrap.multiplier(key, psi, se, n_boot=n_boot, kind=kind, units=units)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Point estimates, standard errors and one influence value per unit.

    A frozen pytree: it passes through ``jit`` and ``vmap``. The standard error of an unclustered
    estimate is ``sqrt(sum(psi**2)) / n``; clustered or sandwich errors are stored as they are.
    With clusters, intervals and p-values are those of Student's t with one degree of freedom less
    than there are clusters (of the kind with the fewest), and are not for use inside ``jit``.

    >>> import jax.numpy as jnp
    >>> e = Estimate.from_psi(jnp.float32(1.0), jnp.array([1.0, -1.0, 1.0, -1.0]))
    >>> float(e.se)
    0.5
    """

    theta: Float[Array, "*q"]  # one number or a vector of q estimates
    se: Float[Array, "*q"]  # standard error of each
    psi: Float[Array, "n *q"]  # centred influence value of each unit
    diagnostics: dict[str, Any] = dataclasses.field(default_factory=dict)
    clusters: Int[Array, "n *ways"] | None = None  # cluster number of each unit, of each kind
    names: tuple[str, ...] = dataclasses.field(default=("theta",), metadata={"static": True})
    estimator: str = dataclasses.field(default="", metadata={"static": True})
    notices: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @classmethod
    def from_psi(
        cls,
        theta: Float[Array, "*q"],
        psi: Float[Array, "n *q"],
        units: Units = INDEPENDENT,
        **fields: Any,
    ) -> "Estimate":
        """Build an estimate whose standard error is that of the mean of ``psi``.

        Args:
          theta: the estimates.
          psi: centred influence values, one row per unit, observation weights included.
          units: their clusters are used.
          **fields: the remaining fields.
        """
        se = jnp.sqrt(variance(psi, units))
        return cls(theta=theta, se=se, psi=psi, clusters=units.clusters, **fields)

    @property
    def n_obs(self) -> int:
        """Number of units."""
        return self.psi.shape[0]

    @property
    def df(self) -> int | None:
        """Degrees of freedom of the intervals; None (the normal law) without clusters."""
        if isinstance(self.clusters, Tracer):
            raise UserError(
                "Expected intervals and p-values of clustered estimates outside of jit and vmap, "
                "found them inside."
            )
        return degrees_of_freedom(self.clusters)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notices, and a word on clusters if there are few."""
        more = () if isinstance(self.clusters, Tracer) else words_on_clusters(self.clusters)
        return self.notices + tuple(text for text in more if text not in self.notices)

    def confint(
        self, level: float = 0.95, *, joint: bool = False, n_boot: int = 2000, seed: int = 0
    ) -> Float[Array, "*q 2"]:
        """Confidence intervals ``[lower, upper]``.

        Args:
          level: coverage in (0, 1).
          joint: cover all estimates at once, by a multiplier bootstrap of the largest |t|; with
            clusters its critical value is carried from the normal law to Student's t.
          n_boot: bootstrap draws for the joint interval.
          seed: seed of those draws.
        """
        critical: Any = quantile(level, self.df)
        with scope_of(self.psi):
            if joint:
                draws = self._multiplier(n_boot, "normal", seed)
                critical = self._like(bootstrap.critical_value(draws, level))
                if self.df is not None:
                    critical = quantile(1 - float(tail(critical)), self.df)
            half = critical * self.se
            stack: Any = np.stack if self._on_host else jnp.stack  # NumPy compiles nothing
            return stack([self.theta - half, self.theta + half], axis=-1)

    def pvalue(self, null: float = 0.0) -> Float[Array, "*q"]:
        """Two-sided Wald p-values of ``theta == null``."""
        if self._on_host or self.df is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (np.asarray(self.theta) - null) / np.asarray(self.se)
            p: Any = tail(t, self.df)
            return p if self._on_host else jnp.asarray(p, self.se.dtype)
        with scope_of(self.psi):
            return jax.scipy.special.erfc(jnp.abs((self.theta - null) / self.se) / 2**0.5)

    def bootstrap(
        self, n: int = 1000, kind: str = "normal", *, seed: int = 0
    ) -> Float[Array, "b *q"]:
        """Multiplier-bootstrap t-statistics, shape ``(n, q)``; see `bootstrap.multiplier`."""
        with scope_of(self.psi):
            return self._like(self._multiplier(n, kind, seed))

    def _multiplier(self, n: int, kind: str, seed: int) -> Array:
        units = Units(clusters=self.clusters)
        return _drawn(np.int64(seed), self.psi, self.se, units, n_boot=n, kind=kind)

    def on_host(self) -> "Estimate":
        """The same estimate with NumPy arrays, safe to use outside the scope it was computed in."""
        return jax.device_get(self)

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict per estimate: name, estimate, standard error, t, p, interval."""
        theta, se = np.atleast_1d(np.asarray(self.theta)), np.atleast_1d(np.asarray(self.se))
        p = np.atleast_1d(np.asarray(self.pvalue()))
        ci = np.asarray(self.confint(level)).reshape(-1, 2)
        names = self.names
        if len(names) != len(theta):
            names = tuple(f"{names[0]}[{i}]" for i in range(len(theta)))
        return [
            {
                "name": names[i],
                "estimate": float(theta[i]),
                "std_error": float(se[i]),
                "t": float(theta[i] / se[i]) if se[i] else float("nan"),
                "p_value": float(p[i]),
                "lower": float(ci[i, 0]),
                "upper": float(ci[i, 1]),
            }
            for i in range(len(theta))
        ]

    def sheet(
        self,
        level: float = 0.95,
        *,
        about: Sequence[tuple[str, str]] = (),
        details: Sequence[str] = (),
    ) -> Sheet:
        """The table of the estimates with intervals at ``level``, and the notices.

        Args:
          level: coverage.
          about: names and values of what it was made from.
          details: further lines.
        """
        percent = f"{100 * level:g}%"
        cells = [
            (
                r["name"],
                f"{r['estimate']:.6g}",
                f"{r['std_error']:.6g}",
                f"{r['t']:.3f}",
                f"{r['p_value']:.4f}",
                f"{r['lower']:.6g}",
                f"{r['upper']:.6g}",
            )
            for r in self.rows(level)
        ]
        return Sheet(
            title=f"{self.estimator or 'estimate'}, {self.n_obs} units",
            head=("", "estimate", "std. error", "t", "p", f"[{percent}", f"{percent}]"),
            rows=tuple(cells),
            about=tuple(about),
            notes=self.remarks,
            details=tuple(details),
        )

    def summary(self, level: float = 0.95, form: str = "text") -> str:
        """The table of `sheet` as "text", "markdown", "latex" or "html"."""
        return formatted(self.sheet(level), form)

    def _repr_html_(self) -> str:
        return self.summary(form="html") if self._on_host else f"<pre>{escape(repr(self))}</pre>"

    def facts(self) -> tuple[tuple[str, str], ...]:
        """What stands below the estimate when several are side by side."""
        return (("units", str(self.n_obs)),)

    def to_frame(self, level: float = 0.95, *, library: str | None = None) -> Any:
        """The table of `rows` as a dataframe.

        Args:
          level: coverage of the interval columns.
          library: "pandas" or "polars"; None takes the first that is installed.

        Raises:
          UserError: no dataframe library is installed.
        """
        return frame_from_rows(self.rows(level), library)

    def plot(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """Draw estimates with intervals; returns the matplotlib axes."""
        from jaxcore.estimators import plots

        return plots.intervals(self.rows(level), ax=ax, level=level)

    @property
    def report_pictures(self) -> tuple[str, ...]:
        """Names of the pictures in a report."""
        return PICTURES

    def report(self, level: float = 0.95) -> Report:
        """Summary, numbers and the intervals drawn, for `write_report`."""
        content = {
            "estimates": self.rows(level),
            "level": level,
            "n": self.n_obs,
            "notices": list(self.remarks),
        }
        (name,) = self.report_pictures
        return Report(self.summary(level), content, {name: self.plot(level=level).figure})

    @property
    def _on_host(self) -> bool:
        return isinstance(self.psi, np.ndarray)

    def _like(self, x: Any) -> Any:
        """Give ``x`` back as NumPy when this estimate lives on the host."""
        return np.asarray(x) if self._on_host else x


def frame_from_rows(rows: list[dict[str, Any]], library: str | None = None) -> Any:
    """A pandas or polars dataframe with one row per dict.

    Raises:
      UserError: the asked library, or any if none is asked for, is not installed.
    """
    for name in (library,) if library else ("pandas", "polars"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        return module.DataFrame(rows)
    raise UserError(
        f"Expected {library or 'pandas or polars'} for a dataframe, found it is not installed."
    )


def aggregate_repeats(
    theta: Float[Array, "r *q"], se: Float[Array, "r *q"], *, how: str = "median"
) -> tuple[Float[Array, "*q"], Float[Array, "*q"]]:
    """Combine repeated cross-fitting partitions into one estimate and standard error.

    Args:
      theta: estimates of each repetition.
      se: standard errors of each repetition.
      how: "median" or "mean".

    Returns:
      ``theta`` and ``sqrt(agg(se**2 + (theta_r - theta)**2))``.

    References:
      Chernozhukov et al. (2018), Double/debiased machine learning, definition 3.3.

    >>> import jax.numpy as jnp
    >>> [float(x) for x in aggregate_repeats(jnp.array([0.0, 1.0, 5.0]), jnp.zeros(3))]
    [1.0, 1.0]
    """
    if how not in ("median", "mean"):
        raise UserError(f"Expected how='median' or 'mean', found {how!r}.")
    xp = theta.__array_namespace__()
    agg = xp.median if how == "median" else xp.mean
    centre = agg(theta, axis=0)
    return centre, xp.sqrt(agg(se**2 + (theta - centre[None]) ** 2, axis=0))


def aggregate_estimates(estimates: Sequence[Estimate], *, how: str = "median") -> Estimate:
    """One estimate from those of repeated partitions; influence values are their means.

    Everything else is that of the first. See `aggregate_repeats`.
    """
    if len(estimates) == 1:
        return estimates[0]
    xp = estimates[0].psi.__array_namespace__()
    theta, se = aggregate_repeats(
        xp.stack([xp.asarray(e.theta) for e in estimates]),
        xp.stack([xp.asarray(e.se) for e in estimates]),
        how=how,
    )
    psi = xp.mean(xp.stack([xp.asarray(e.psi) for e in estimates]), axis=0)
    return dataclasses.replace(estimates[0], theta=theta, se=se, psi=psi)
