"""From data to several numbers at once: the same checks, folds and notices as of one effect."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import overlap
from jaxcore.estimators.checks import Sample, check_sample
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.frames import FitsFrames
from jaxcore.estimators.nuisance import HostLearner, Learner, label
from jaxcore.estimators.nuisance.candidates import learner_for, resolved, takes_missing
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.result import SeveralResult
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.settings import CrossFitting

S = TypeVar("S", bound=SeveralResult)
ZERO_ONE = np.array([0.0, 1.0])  # the kind of a target that is a probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class Several(CrossFitting, FitsFrames[S], Generic[S]):
    """What these estimators share; their learners are fields that begin with ``ml_``."""

    result: ClassVar[type[SeveralResult]]
    binary: ClassVar[tuple[str, ...]] = ("treatment", "instrument")
    many: ClassVar[bool] = False  # the treatment has several levels

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_folds < 2:
            raise UserError(f"Expected at least 2 folds, found {self.n_folds}.")
        for name in self.learner_fields():
            resolved(getattr(self, name), name)

    @classmethod
    def learner_fields(cls) -> tuple[str, ...]:
        """Names of the settings that hold learners."""
        return tuple(f.name for f in dataclasses.fields(cls) if f.name.startswith("ml_"))

    # What an estimator says of itself:

    @abstractmethod
    def symbols(self) -> Mapping[str, str]:
        """Setting of a learner -> what it learns."""
        ...

    def targets(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Setting of a learner -> an example of its target; probabilities if not told otherwise."""
        return {}

    @abstractmethod
    def once(
        self, sample: Sample, learners: Mapping[str, Any], ids: np.ndarray, n_folds: int, key: Any
    ) -> Estimate:
        """The estimates of one partition."""
        ...

    def main(self, found: Estimate) -> Estimate:
        """The estimates of the result, from those of `once`."""
        return found

    @abstractmethod
    def chances(self, sample: Sample, found: Estimate) -> tuple[str, np.ndarray]:
        """The probability of what each unit has, and its symbol."""
        ...

    def clipped(self, sample: Sample, found: Estimate) -> int:
        """Units whose probability is at its bounds."""
        return int(found.diagnostics["n_clipped"])

    def remarks(self, sample: Sample) -> list[str]:
        """What is doubtful about the data."""
        return []

    def checked(self, sample: Sample) -> Sample:
        """The sample, or a refusal of what this estimator cannot take."""
        return sample

    # What all do with it:

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
    ) -> S:
        self.check_given(fold_ids)
        given = {name: getattr(self, name) for name in self.learner_fields()}
        sample = check_sample(
            Y,
            A,
            Z,
            X,
            weights=weights,
            clusters=clusters,
            covariates=covariates,
            missing=self.missing,
            binary=self.binary,
            many=self.many,
            levels=self.levels,
            holes=all(takes_missing(resolved(one, name)) for name, one in given.items()),
        )
        sample = self.checked(sample)
        learners = self._learners(sample)
        every = []
        with self.precision():
            key = jax.random.key(self.seed)
            checks = self._check_training(sample)
            for ids, k in partitions(self, sample, fold_ids, binary=("treatment",), check=checks):
                found = self.once(sample, learners, ids, k, key).on_host()
                _check_finite(found, learners)
                found.diagnostics["fold_ids"] = ids
                every.append(found)
        notices = [*sample.notices, *self.remarks(sample), *self._overlap(sample, every[0])]
        return self.build(sample, every, notices, learners)

    def restored(self, parts: Restored) -> S:
        """The result of a fit that was saved."""
        return self.build(
            parts.sample, parts.repetitions, parts.notices, self._learners(parts.sample)
        )

    def _learners(self, sample: Sample) -> dict[str, Learner | HostLearner]:
        examples = dict.fromkeys(self.learner_fields(), ZERO_ONE) | dict(self.targets(sample))
        return {name: learner_for(getattr(self, name), name, of) for name, of in examples.items()}

    def build(
        self,
        sample: Sample,
        every: Sequence[Estimate],
        notices: Sequence[str],
        learners: Mapping[str, Any],
    ) -> S:
        """The result, from the estimates of every partition."""
        with self.precision():
            main = [self.main(found) for found in every]
            estimate = aggregate_estimates(main, how=self.aggregate).on_host()
        kept = {"fold_ids": every[0].diagnostics["fold_ids"]}
        whole: Any = self.result(
            config=self,
            sample=sample,
            estimate=dataclasses.replace(estimate, notices=tuple(notices), diagnostics=kept),
            repetitions=tuple(every),
            learners={symbol: learners[name] for name, symbol in self.symbols().items()},
        )
        return whole

    def _check_training(self, sample: Sample) -> Callable[[np.ndarray, int], None]:
        """Every value of treatment and instrument must occur outside of every fold."""
        columns = {"treatment": sample.A} | (
            {"instrument": sample.Z} if len(self.roles) > 2 else {}
        )
        wanted = {role: np.unique(values) for role, values in columns.items()}

        def checked(rows: np.ndarray, fold: int) -> None:
            for role, values in columns.items():
                absent = np.setdiff1d(wanted[role], values[rows])
                if len(absent):
                    raise UserError(
                        f"Expected all values of the {role} outside every fold, found none of "
                        f"{_told(sample, role, absent[0])} outside fold {fold}: take fewer folds."
                    )

        return checked

    def _overlap(self, sample: Sample, found: Estimate) -> list[str]:
        symbol, own = self.chances(sample, found)
        weights = np.ones(sample.n) if sample.weights is None else sample.weights
        clipped = {symbol: self.clipped(sample, found)}
        load = weights / np.maximum(own, 1e-12)
        return overlap.notices(clipped, overlap.effective_size(load), sample.n)


def _told(sample: Sample, role: str, value: float) -> str:
    if role == "treatment" and sample.levels:
        return repr(sample.levels[int(value)])
    return f"{value:g}"


def arrays_of(sample: Sample) -> tuple[Any, Any]:
    """Outcome and covariates in the precision of the scope; a column of zeros if there are none."""
    dtype = np.dtype(jnp.result_type(float))
    x = sample.X if sample.X.shape[1] else np.zeros((sample.n, 1))
    return jnp.asarray(sample.Y, dtype), jnp.asarray(x, dtype)


def on_host(learners: Mapping[str, Learner | HostLearner]) -> bool:
    """Whether a learner cannot be part of a compiled program."""
    return any(isinstance(one, HostLearner) for one in learners.values())


def _check_finite(found: Estimate, learners: Mapping[str, Any]) -> None:
    if not (np.all(np.isfinite(found.theta)) and np.all(np.isfinite(found.se))):
        bad = ~np.isfinite(np.atleast_1d(found.theta)) | ~np.isfinite(np.atleast_1d(found.se))
        named = [name for name, wrong in zip(found.names, bad, strict=True) if wrong]
        raise UserError(
            f"Expected finite estimates and errors, found others of {', '.join(named)}: use "
            f"penalised learners (found {', '.join(label(one) for one in learners.values())}), "
            "fewer folds, or rescale the data."
        )
