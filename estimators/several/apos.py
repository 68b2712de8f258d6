"""`APOS`: mean outcomes under each of several treatment levels, and their differences."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators import combine
from jaxcore.estimators.balance import Arm, Weighted, arms_of
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.columns import level_named
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.frames import WithoutInstrument
from jaxcore.estimators.nuisance.candidates import Candidate
from jaxcore.estimators.options import Option, settings_function
from jaxcore.estimators.report import PICTURES, WEIGHTED
from jaxcore.estimators.result import SeveralResult
from jaxcore.estimators.several.door import Several, arrays_of, on_host
from jaxcore.estimators.treatments import potential_means

_compiled = jax.jit(potential_means, static_argnames=("n_folds", "n_levels", "names", "clip"))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class APOSResult(SeveralResult, Weighted):
    """Mean outcomes if everybody had each level, in the order of the levels."""

    config: "APOS"

    @property
    def levels(self) -> tuple[str, ...]:
        """The treatment levels."""
        return self.sample.levels

    def contrasts(self, reference: Any = None) -> Estimate:
        """Mean of every level less that of one of reference.

        Args:
          reference: a level; None takes that of the settings, or else the first.

        Raises:
          UserError: no such level.
        """
        wanted = self.config.reference if reference is None else reference
        place = 0 if wanted is None else level_named(self.levels, wanted, "reference")
        return self._aggregated(lambda e: combine.contrasts(e, place))

    def arms(self) -> tuple[Arm, ...]:
        """Units by level with their weights (first repetition)."""
        _, own = self.config.chances(self.sample, self.repetitions[0])
        named = tuple(f"A = {level}" for level in self.levels)
        return arms_of(self.sample, self.sample.A, named, own)

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return self.config.report_pictures

    def pictures(self, level: float) -> Sequence[Any]:
        """Figures of a report."""
        figures = self.plot_weights(), self.plot_balance().figure
        return [self.plot(level=level).figure, *figures]

    def tables(self) -> Mapping[str, Estimate]:
        """Differences from the level of reference."""
        title = "differences of potential-outcome means"
        return {"contrasts": dataclasses.replace(self.contrasts(), estimator=title)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class APOS(Several[APOSResult], WithoutInstrument[APOSResult]):
    """Average potential outcomes of a treatment with several levels (doubly robust).

    Levels are numbers or texts. Learners as in `double_ml.PLR`: ``ml_g`` of E[Y|A=a,X] among the
    units of each level, ``ml_m`` of the probability of each level. All confounders are measured.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, X = rng.integers(0, 3, 120), rng.normal(size=(120, 1))
    >>> Y = A + X[:, 0] + rng.normal(size=120)
    >>> result = APOS(ml_g="ridge", ml_m="ridge", n_folds=2).fit(Y, A, X)
    >>> result.names, result.contrasts().names
    (('0', '1', '2'), ('1 - 0', '2 - 0'))

    References:
      Cattaneo (2010); the model of DoubleML's ``DoubleMLAPOS``.
    """

    labelled = ("treatment",)
    report_pictures = (*PICTURES, *WEIGHTED)
    result = APOSResult
    binary = ()
    many = True
    ml_g: Candidate = "lasso"  # of E[Y|A=a,X]
    ml_m: Candidate = "lasso"  # of P(A=a|X)
    reference: Any = None  # level that the others are compared with; None: the first

    @classmethod
    def options(cls) -> Callable[..., "APOS"]:
        """Settings that the command line can say; see `FitsFrames.options`."""
        reference = Option("reference", str | None, "level that the others are compared with.")
        learners = {"ml_g": "E[Y|A=a,X]", "ml_m": "P(A=a|X)"}
        more = {"reference": reference}
        return settings_function(cls, learners, more, without=("treated", "assigned"))

    def symbols(self) -> Mapping[str, str]:
        """Setting of a learner -> what it learns."""
        return {"ml_m": "P(A=a|X)", "ml_g": "E[Y|A=a,X]"}

    def targets(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Setting of a learner -> an example of its target."""
        return {"ml_g": sample.Y}

    def checked(self, sample: Sample) -> Sample:
        """Refuse a reference that is no level."""
        if self.reference is not None:
            level_named(sample.levels, self.reference, "reference")
        return sample

    def once(
        self, sample: Sample, learners: Mapping[str, Any], ids: np.ndarray, n_folds: int, key: Any
    ) -> Estimate:
        """The means in one partition."""
        y, x = arrays_of(sample)
        fit = potential_means if on_host(learners) else _compiled
        return fit(
            y,
            jnp.asarray(sample.A, jnp.int32),
            x,
            **learners,
            fold_ids=jnp.asarray(ids),
            n_folds=n_folds,
            n_levels=len(sample.levels),
            names=sample.levels,
            clip=(float(self.clip[0]), float(self.clip[1])),
            units=sample.units(y.dtype),
            key=key,
        )

    def chances(self, sample: Sample, found: Estimate) -> tuple[str, np.ndarray]:
        """The probability of the level of each unit."""
        m = np.asarray(found.diagnostics["ml_m"])
        return "P(A=a|X)", m[sample.A.astype(int), np.arange(sample.n)]

    def clipped(self, sample: Sample, found: Estimate) -> int:
        """Units whose probability of their own level is at its bounds."""
        _, own = self.chances(sample, found)
        return int(np.sum(np.isin(own, self.clip)))
