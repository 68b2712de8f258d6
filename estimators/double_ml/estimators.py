"""`PLR`, `PLIV`, `IRM` and `IIVM`: from data to a fit with everything chosen and checked."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import jax
import numpy as np

from jaxcore.data.columns import array_of, frame_columns
from jaxcore.data.tables import as_table, design
from jaxcore.errors import UserError
from jaxcore.estimators.checks import check_sample
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.fitting import (
    Fixed,
    check_training,
    fit_notices,
    fit_partition,
    learners_of,
)
from jaxcore.estimators.double_ml.model import Model
from jaxcore.estimators.double_ml.result import DoubleMLResult
from jaxcore.estimators.double_ml.several_treatments import (
    SeveralTreatments,
    built,
    fit_several,
    treatments_of,
)
from jaxcore.estimators.frames import FitsFrames, WithInstrument, WithoutInstrument
from jaxcore.estimators.nuisance import candidates
from jaxcore.estimators.nuisance.candidates import Candidate
from jaxcore.estimators.nuisance.tuning import Grid, Tuned
from jaxcore.estimators.options import Option, settings_function
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.report import PICTURES, WEIGHTED
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.settings import CrossFitting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoubleML(CrossFitting, FitsFrames[DoubleMLResult]):
    """What the four estimators share; their learners are fields named as in `models`."""

    model: ClassVar[Model]

    @property
    def chosen(self) -> Model:
        """The model that is fitted."""
        return self.model

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_folds < 2:
            raise UserError(f"Expected at least 2 folds, found {self.n_folds}.")
        for name in self.chosen.learners:
            self._regression(name)

    def _regression(self, name: str) -> Any:
        """The learner of a setting; names are resolved as far as the model knows the target."""
        roles = {n.target for n in self.chosen.nuisances.values() if n.learner == name}
        binary = roles <= set(self.chosen.binary)
        return candidates.resolved(getattr(self, name), name, binary=binary)

    @classmethod
    def options(cls) -> Callable[..., Any]:
        """Settings that the command line can say; see `FitsFrames.options`."""
        return _options(cls)

    def tune(self, grids: Mapping[str, Grid] | None = None, *, n_inner: int = 3) -> Self:
        """The same settings with learners that choose theirs by cross-validation in every fit.

        A fit chooses among the combinations of a grid by the loss on inner folds of its training
        rows alone, so that the rows of a fold never choose the learner that predicts them. The
        losses and the chosen settings are in the summary and in `DoubleMLResult.tuning`.

        Args:
          grids: learner -> setting -> values to try, as ``{"ml_m": {"alpha": [0.01, 0.1, 1]}}``;
            an empty mapping takes the grid of `nuisance.tuning.GRIDS`. None tunes all learners.
          n_inner: inner folds.

        Raises:
          UserError: an unknown learner or setting, no values, or a learner from outside (give
            scikit-learn's ``GridSearchCV`` instead).

        >>> IRM(ml_g="ridge", ml_m="ridge").tune({"ml_m": {}}).ml_m
        Tuned(learner='ridge', grid={}, n_inner=3)
        """
        known = self.chosen.learners
        grids = {name: {} for name in known} if grids is None else grids
        unknown = [name for name in grids if name not in known]
        if unknown:
            raise UserError(f"Expected learners {', '.join(known)}, found {', '.join(unknown)}.")
        if n_inner < 2:
            raise UserError(f"Expected at least 2 inner folds, found {n_inner}.")
        changed = {
            name: Tuned(learner=getattr(self, name), grid=dict(grid), n_inner=n_inner)
            for name, grid in grids.items()
        }
        return dataclasses.replace(self, **changed)

    def _fitted(
        self,
        Y: Any,
        A: Any,
        Z: Any,
        X: Any,
        *,
        weights: Any,
        clusters: Any,
        fold_ids: Any,
        covariates: Sequence[str] | None,
    ) -> DoubleMLResult:
        self.check_given(fold_ids)
        _check_one(self, A)
        model, given = self.chosen, {name: getattr(self, name) for name in self.model.learners}
        sample = check_sample(
            Y,
            A,
            Z,
            X,
            weights=weights,
            clusters=clusters,
            covariates=covariates,
            missing=self.missing,
            binary=model.binary,
            levels=self.levels,
            holes=all(candidates.takes_missing(self._regression(name)) for name in given),
        )
        learners, fixed = learners_of(model, sample, given), self._fixed(sample)
        check = check_training(model, sample)
        every = []
        with self.precision():
            key = jax.random.key(self.seed)
            for ids, k in partitions(self, sample, fold_ids, binary=model.binary, check=check):
                options = {"clip": self.clip, "fixed": fixed, "key": key}
                every.append(fit_partition(model, sample, learners, ids, k, **options))
        notices = [*sample.notices, *_told(fixed), *fit_notices(model, sample, every[0])]
        return DoubleMLResult.build(self, model, sample, every, notices, learners)

    def restored(self, parts: Restored) -> Any:
        """The result of a fit that was saved."""
        model, sample = self.chosen, parts.sample
        given = {name: getattr(self, name) for name in model.learners}
        if "treatments" in parts.more:
            found = treatments_of(parts)
            return built(self, sample, found, given, parts.notices)
        learners = learners_of(model, sample, given)
        return DoubleMLResult.build(self, model, sample, parts.repetitions, parts.notices, learners)

    def _fixed(self, sample: Any) -> Fixed:
        return ()


def _check_one(estimator: Any, A: Any) -> None:
    columns = frame_columns(A)
    many = len(columns) if columns is not None else (np.shape(array_of(A)) + (1, 1))[1]
    if many > 1 and hasattr(estimator, "fit_several"):
        raise UserError(
            f"Expected one column for the treatment, found {many}: fit_several takes several."
        )


_NEVER = "nobody with Z=0 is treated: E[A|Z=0,X] is 0 by design"
_ALWAYS = "everybody with Z=1 is treated: E[A|Z=1,X] is 1 by design"


def _told(fixed: Fixed) -> list[str]:
    return [_NEVER if name == "ml_r0" else _ALWAYS for name, _ in fixed]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PLR(DoubleML, WithoutInstrument[DoubleMLResult]):
    """Partially linear regression: ``Y = theta A + g(X) + e``, the treatment of any kind.

    Learners are names of `nuisance.candidates.NAMED`, learners of `nuisance`, or outside ones with
    ``fit`` and ``predict``. ``fit`` returns a `DoubleMLResult`; this object does not change.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 2))
    >>> A = X[:, 0] + rng.normal(size=60)
    >>> Y = 2 * A + X[:, 0] + rng.normal(size=60)
    >>> result = PLR(ml_l="ridge", ml_m="ridge", n_folds=2).fit(Y, A, X)
    >>> 1.5 < result.theta < 2.5
    True

    References:
      Robinson (1988); Chernozhukov et al. (2018), section 4.1.
    """

    model = models.PLR
    ml_l: Candidate = "lasso"  # of E[Y|X]
    ml_m: Candidate = "lasso"  # of E[A|X]

    def fit_several(
        self,
        Y: Any,
        A: Any,
        X: Any,
        *,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        treatments: Sequence[str] | None = None,
        covariates: Sequence[str] | None = None,
    ) -> SeveralTreatments:
        """Effects of several treatments, each given the others, with intervals of all at once.

        Args:
          Y: outcome.
          A: treatments, (n, q); names are those of a frame.
          X: covariates; for every treatment the others are covariates, too.
          weights: observation weights.
          clusters: see `fit`.
          fold_ids: see `fit`.
          treatments: names of the columns of ``A``.
          covariates: names of the columns of ``X``.

        Raises:
          UserError: what is wrong with the data.
        """
        learners = {"ml_l": self.ml_l, "ml_m": self.ml_m}
        more: dict[str, Any] = {"weights": weights, "clusters": clusters, "fold_ids": fold_ids}
        more |= {"treatments": treatments, "covariates": covariates}
        return fit_several(self, learners, Y, A, X, **more)

    def fit_frame_several(
        self,
        frame: Any,
        *,
        outcome: str,
        treatments: Sequence[str],
        covariates: Sequence[str] | str = (),
        weights: str | None = None,
        clusters: str | Sequence[str] | None = None,
        fold_ids: Any = None,
    ) -> SeveralTreatments:
        """`fit_several` from named columns of a dataframe; see `fit_frame`."""
        table = as_table(frame)
        names = (covariates,) if isinstance(covariates, str) else tuple(map(str, covariates))
        kinds = (clusters,) if isinstance(clusters, str) else tuple(clusters or ())
        table.check([outcome, *treatments, *names, *kinds])
        D, X = (design(table, tuple(columns))[0] for columns in (treatments, names))
        found = self.fit_several(
            table.numbers(outcome),
            D,
            X,
            weights=None if weights is None else table.numbers(weights),
            clusters={kind: table.values(kind) for kind in kinds} if kinds else None,
            fold_ids=table.values(fold_ids) if isinstance(fold_ids, str) else fold_ids,
            treatments=treatments,
            covariates=names,
        )
        return found.named({"outcome": outcome, "treatment": ", ".join(treatments)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PLIV(DoubleML, WithInstrument[DoubleMLResult]):
    """Partially linear regression with an instrument; treatment and instrument of any kind.

    Learners and ``fit`` as in `PLR`.

    References:
      Chernozhukov et al. (2018), section 4.2.
    """

    model = models.PLIV
    ml_l: Candidate = "lasso"  # of E[Y|X]
    ml_m: Candidate = "lasso"  # of E[Z|X]
    ml_r: Candidate = "lasso"  # of E[A|X]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IRM(DoubleML, WithoutInstrument[DoubleMLResult]):
    """Average effect of a treatment of two levels, all confounders measured (AIPW).

    Learners and ``fit`` as in `PLR`.

    References:
      Robins, Rotnitzky and Zhao (1994); Chernozhukov et al. (2018), section 5.1.
    """

    model = models.IRM
    labelled = models.IRM.binary
    report_pictures = (*PICTURES, "overlap.png", *WEIGHTED)
    ml_g: Candidate = "lasso"  # of E[Y|A,X] in each arm
    ml_m: Candidate = "lasso"  # of the propensity P(A=1|X)
    target: str = "ATE"  # or "ATT", the effect on the treated

    @property
    def chosen(self) -> Model:
        """The model of the target."""
        return models.irm_of(self.target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IIVM(DoubleML, WithInstrument[DoubleMLResult]):
    """Average effect among compliers, with a valid instrument of two levels (LATE).

    Learners and ``fit`` as in `PLR`.

    References:
      Chernozhukov et al. (2018), section 5.2.
    """

    model = models.IIVM
    labelled = models.IIVM.binary
    report_pictures = (*PICTURES, "overlap.png", *WEIGHTED)
    ml_g: Candidate = "lasso"  # of E[Y|Z,X] in each arm
    ml_m: Candidate = "lasso"  # of P(Z=1|X)
    ml_r: Candidate = "lasso"  # of E[A|Z,X] in each arm
    # Units that take the treatment without the instrument, or never; None: as the data show.
    always_takers: bool | None = None
    never_takers: bool | None = None

    def _fixed(self, sample: Any) -> Fixed:
        out: Fixed = ()
        for z, value, asked, name in (
            (0, 0.0, self.always_takers, "always_takers"),
            (1, 1.0, self.never_takers, "never_takers"),
        ):
            takes = sample.A[sample.Z == z]
            none = bool(np.all(takes == value))
            if asked is False and not none:
                raise UserError(
                    f"Expected no units with A={1 - value:g} where Z={z} with {name}=False, found "
                    f"{int(np.sum(takes != value))}."
                )
            if none if asked is None else not asked:
                out += ((f"ml_r{z}", value),)
        return out


def _options(cls: type[DoubleML]) -> Callable[..., DoubleML]:
    """A function whose arguments are the settings that a command line can say."""
    learners = {
        name: " and ".join(n.symbol for n in cls.model.nuisances.values() if n.learner == name)
        for name in cls.model.learners
    }
    without = [] if cls.model.binary else ["clip", "treated"]
    if models.INSTRUMENT not in cls.model.binary:
        without.append("assigned")
    more = {}
    if cls is IRM:
        targets = Literal["ATE", "ATT"]
        more["target"] = Option("target", targets, "average effect, or that on the treated.")
    return settings_function(cls, learners, more, without=without, tune=True)
