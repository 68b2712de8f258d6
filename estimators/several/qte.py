"""`QTE` and `LQTE`: effects on quantiles of the outcome, of everybody and of compliers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import complier_quantiles, curve_plots, quantile_effects
from jaxcore.estimators.balance import Arm, Weighted, arms_of
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.frames import WithInstrument, WithoutInstrument
from jaxcore.estimators.nuisance.candidates import Candidate
from jaxcore.estimators.options import Option, settings_function
from jaxcore.estimators.report import PICTURES, WEIGHTED
from jaxcore.estimators.result import SeveralResult
from jaxcore.estimators.several.door import Several, arrays_of, on_host

_compiled = jax.jit(
    quantile_effects.potential_quantiles,
    static_argnames=("quantiles", "n_folds", "kind", "clip"),
)
_compiled_local = jax.jit(
    complier_quantiles.local_quantiles, static_argnames=("quantiles_at", "n_folds", "clip")
)
DECILES = tuple(round(0.1 * k, 1) for k in range(1, 10))
TIED = 0.05  # share of equal outcomes from which quantiles near them have no sensible error
_AT = Option("quantiles", tuple[float, ...], "at which quantiles, each between 0 and 1.")


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class QTEResult(SeveralResult, Weighted):
    """Effects on the quantiles (or on the means above them), in the order of the settings."""

    config: "_Quantiles"

    def potential(self) -> Estimate:
        """Quantiles of the outcome without the treatment, then with it."""
        return self._aggregated(lambda e: e)

    def arms(self) -> tuple[Arm, ...]:
        """Units by treatment, with an instrument by that, with their weights (first repetition)."""
        _, own = self.config.chances(self.sample, self.repetitions[0])
        local = len(self.config.roles) > 2
        value, letter = (self.sample.Z, "Z") if local else (self.sample.A, "A")
        return arms_of(self.sample, value, (f"{letter} = 0", f"{letter} = 1"), own)

    def tables(self) -> Mapping[str, Estimate]:
        """The quantiles themselves."""
        return {"potential": dataclasses.replace(self.potential(), notices=())}

    def plot(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """Effects over the quantiles with the band of all at once; returns the axes."""
        at, word = np.asarray(self.config.quantiles), self.config.word
        if len(at) == 1:
            return super().plot(ax, level=level)
        return curve_plots.band(self.estimate, at, f"{word} of the outcome", level=level, ax=ax)

    def plot_potential(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """The quantiles with and without treatment; returns the axes."""
        at, word = np.asarray(self.config.quantiles), self.config.word
        return curve_plots.both(self.potential(), at, f"{word} of the outcome", level=level, ax=ax)

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return self.config.report_pictures

    def pictures(self, level: float) -> Sequence[Any]:
        """Figures of a report."""
        curves = [self.plot(level=level).figure, self.plot_potential(level=level).figure]
        return [*curves, self.plot_weights(), self.plot_balance().figure]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Quantiles(Several[QTEResult]):
    result = QTEResult
    report_pictures = (*PICTURES, "potential.png", *WEIGHTED)
    quantiles: tuple[float, ...] = DECILES

    def __post_init__(self) -> None:
        super().__post_init__()
        taus = quantile_effects.checked_quantiles(self.quantiles)
        if np.any(np.diff(taus) <= 0):
            raise UserError(f"Expected ascending quantiles, found {taus.tolist()}.")
        object.__setattr__(self, "quantiles", tuple(map(float, taus)))

    @property
    def word(self) -> str:
        """What is asked for at every quantile."""
        return "quantile"

    def main(self, found: Estimate) -> Estimate:
        """Effects: with the treatment less without."""
        return quantile_effects.quantile_effects(found)

    def checked(self, sample: Sample) -> Sample:
        """Refuse clusters of several kinds."""
        if sample.clusters is not None and sample.clusters.ndim == 2:
            raise UserError(
                f"Expected clusters of one kind for quantiles, found {sample.clusters.shape[1]} "
                "kinds."
            )
        return sample

    def remarks(self, sample: Sample) -> list[str]:
        """A word on outcomes without a density."""
        values, counts = np.unique(sample.Y, return_counts=True)
        most = int(np.argmax(counts))
        if counts[most] < max(TIED * sample.n, 2):
            return []
        return [
            f"{100 * counts[most] / sample.n:.3g}% of the outcomes are {values[most]:g}: errors of "
            "quantiles near it mean nothing"
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QTE(_Quantiles, WithoutInstrument[QTEResult]):
    """Effects of a treatment of two levels on the quantiles of the outcome, if all had it or none.

    All confounders are measured. The difference of two quantiles is no quantile of differences.
    ``kind="tail mean"`` takes the means above the quantiles instead (conditional value at risk).
    Learners as in `double_ml.PLR`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, X = rng.integers(0, 2, 200), rng.normal(size=(200, 1))
    >>> Y = (1 + A) * (X[:, 0] + rng.normal(size=200))
    >>> estimator = QTE(ml_g="ridge", ml_m="ridge", n_folds=2, quantiles=(0.25, 0.75))
    >>> result = estimator.fit(Y, A, X)
    >>> bool(result.theta[0] < 0 < result.theta[1])
    True

    References:
      Kallus, Mao and Uehara (2024); the model of DoubleML's ``DoubleMLQTE``.
    """

    labelled = ("treatment",)
    binary = ("treatment",)
    ml_g: Candidate = "lasso"  # of P(Y <= q|A=a,X); of the tail's mean for "tail mean"
    ml_m: Candidate = "lasso"  # of P(A=1|X)
    kind: str = "quantile"  # or "tail mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in quantile_effects.KINDS:
            kinds = " or ".join(map(repr, quantile_effects.KINDS))
            raise UserError(f"Expected kind={kinds}, found {self.kind!r}.")

    @property
    def word(self) -> str:
        """What is asked for at every quantile."""
        return "quantile" if self.kind == "quantile" else "mean above the quantile"

    @classmethod
    def options(cls) -> Callable[..., "QTE"]:
        """Settings that the command line can say; see `FitsFrames.options`."""
        kinds: Any = Literal[quantile_effects.KINDS]
        more = {"quantiles": _AT, "kind": Option("kind", kinds, "of quantiles or tail means.")}
        learners = {"ml_g": "P(Y<=q|A=a,X)", "ml_m": "P(A=1|X)"}
        return settings_function(cls, learners, more, without=("assigned",))

    def symbols(self) -> Mapping[str, str]:
        """Setting of a learner -> what it learns."""
        of = "P(Y<=q|A=a,X)" if self.kind == "quantile" else "E[tail of Y|A=a,X]"
        return {"ml_m": "P(A=1|X)", "ml_g": of}

    def targets(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Setting of a learner -> an example of its target."""
        return {} if self.kind == "quantile" else {"ml_g": sample.Y}

    def once(
        self, sample: Sample, learners: Mapping[str, Any], ids: np.ndarray, n_folds: int, key: Any
    ) -> Estimate:
        """Both potential outcomes in one partition."""
        y, x = arrays_of(sample)
        a: Any = sample.A.astype(y.dtype)
        fit = quantile_effects.potential_quantiles if on_host(learners) else _compiled
        return fit(
            y,
            a,
            x,
            quantiles=self.quantiles,
            kind=self.kind,
            **learners,
            fold_ids=jnp.asarray(ids),
            n_folds=n_folds,
            clip=(float(self.clip[0]), float(self.clip[1])),
            units=sample.units(y.dtype),
            key=key,
        )

    def chances(self, sample: Sample, found: Estimate) -> tuple[str, np.ndarray]:
        """The probability of the level of each unit."""
        m = np.asarray(found.diagnostics["ml_m"])
        return "P(A=1|X)", np.where(sample.A > 0.5, m, 1 - m)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LQTE(_Quantiles, WithInstrument[QTEResult]):
    """Effects on the quantiles of the outcome of compliers, whom a valid instrument moves.

    Treatment and instrument have two levels, and the instrument keeps nobody from the treatment.
    Learners as in `double_ml.PLR`.

    References:
      Froelich and Melly (2013); Kallus, Mao and Uehara (2024); DoubleML's ``DoubleMLLPQ``.
    """

    labelled = ("treatment", "instrument")
    ml_g: Candidate = "lasso"  # of P(A=a and Y <= q|Z=z,X)
    ml_m: Candidate = "lasso"  # of P(Z=1|X)
    ml_r: Candidate = "lasso"  # of P(A=1|Z=z,X)

    @classmethod
    def options(cls) -> Callable[..., "LQTE"]:
        """Settings that the command line can say; see `FitsFrames.options`."""
        learners = {"ml_g": "P(A=a,Y<=q|Z=z,X)", "ml_m": "P(Z=1|X)", "ml_r": "P(A=1|Z=z,X)"}
        return settings_function(cls, learners, {"quantiles": _AT})

    def symbols(self) -> Mapping[str, str]:
        """Setting of a learner -> what it learns."""
        return {"ml_m": "P(Z=1|X)", "ml_r": "P(A=1|Z=z,X)", "ml_g": "P(A=a,Y<=q|Z=z,X)"}

    def once(
        self, sample: Sample, learners: Mapping[str, Any], ids: np.ndarray, n_folds: int, key: Any
    ) -> Estimate:
        """Both potential outcomes of compliers in one partition."""
        y, x = arrays_of(sample)
        a: Any = sample.A.astype(y.dtype)
        z: Any = sample.Z.astype(y.dtype)
        fit = complier_quantiles.local_quantiles if on_host(learners) else _compiled_local
        return fit(
            y,
            a,
            z,
            x,
            quantiles_at=self.quantiles,
            **learners,
            fold_ids=jnp.asarray(ids),
            n_folds=n_folds,
            clip=(float(self.clip[0]), float(self.clip[1])),
            units=sample.units(y.dtype),
            key=key,
        )

    def chances(self, sample: Sample, found: Estimate) -> tuple[str, np.ndarray]:
        """The probability of the instrument's level of each unit."""
        m = np.asarray(found.diagnostics["ml_m"])
        return "P(Z=1|X)", np.where(sample.Z > 0.5, m, 1 - m)
