"""Several treatments in the partially linear model: one fit of each, given the others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.data.columns import check_index, frame_columns
from jaxcore.errors import UserError
from jaxcore.estimators import combine, saved
from jaxcore.estimators.checks import Sample, check_sample, independent_columns
from jaxcore.estimators.columns import covariate_columns
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.fitting import check_training, fit_partition, learners_of
from jaxcore.estimators.double_ml.result import DoubleMLResult
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.result import SeveralResult
from jaxcore.estimators.settings import CrossFitting

TITLE = "PLR, several treatments"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SeveralTreatments(SeveralResult):
    """Effects of several treatments, each given the others; ``result["a"]`` is the fit of one.

    The fit of one treatment has the others among its covariates, and everything that a fit of
    `PLR` has: sensitivity, groups, losses of its learners.
    """

    fits: Mapping[str, DoubleMLResult]

    def __getitem__(self, treatment: str) -> DoubleMLResult:
        """The fit of one treatment.

        Raises:
          UserError: there is no such treatment.
        """
        if treatment not in self.fits:
            raise UserError(f"Expected one of {', '.join(self.fits)}, found {treatment!r}.")
        return self.fits[treatment]

    def details(self) -> list[str]:
        """Learners of every treatment with their losses."""
        lines = []
        for name, fit in self.fits.items():
            outcome, own = fit.evaluate_learners()
            kind = ("log_loss", "log-loss") if "log_loss" in own else ("r2", "R2")
            lines.append(
                f"{name}: E[Y|rest] by {outcome['learner']}, out of fold R2 {outcome['r2']:.3g}; "
                f"E[{name}|rest] by {own['learner']}, {kind[1]} {own[kind[0]]:.3g}"
            )
        if len(self.repetitions) > 1:
            lines.append(f"{self.config.aggregate} of {len(self.repetitions)} partitions")
        return lines

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The estimates of every treatment."""
        trees = {str(j): saved.as_tree(f.repetitions) for j, f in enumerate(self.fits.values())}
        return {"treatments": list(self.fits)}, trees


def fit_several(
    config: CrossFitting,
    learners: Mapping[str, Any],
    Y: Any,
    D: Any,
    X: Any,
    *,
    weights: Any = None,
    clusters: Any = None,
    fold_ids: Any = None,
    treatments: Sequence[str] | None = None,
    covariates: Sequence[str] | None = None,
) -> SeveralTreatments:
    """See `PLR.fit_several`."""
    config.check_given(fold_ids)
    check_index({"outcome": Y, "treatments": D, "covariates": X, "weights": weights})
    n = len(Y)
    treated, names = covariate_columns(D, treatments, n)
    if treatments is None and frame_columns(D) is None:
        names = tuple(f"d{j + 1}" for j in range(len(names)))
    if len(names) < 2:
        raise UserError(f"Expected several treatments, found {len(names)}.")
    x, x_names = covariate_columns(X, covariates, n)
    whole = check_sample(
        Y,
        treated[:, 0],
        None,
        np.concatenate([treated[:, 1:], x], axis=1),
        weights=weights,
        clusters=clusters,
        covariates=(*names[1:], *x_names),
        missing=config.missing,
        binary=(),
        names={"treatment": names[0]},
    )
    constant = [name for name in names[1:] if name not in whole.covariates]
    if constant:
        raise UserError(f"Expected treatments that vary, found one value of {constant[0]!r}.")
    sample = _sample(whole, names)
    ones = np.ones((sample.n, 1))
    if not independent_columns(np.concatenate([ones, sample.A], axis=1), sample.weights).all():
        raise UserError(
            "Expected treatments that are no linear combinations of each other, found "
            f"{', '.join(names)}."
        )
    parts = {name: part_of(sample, j) for j, name in enumerate(names)}
    found: dict[str, list[Estimate]] = {name: [] for name in names}
    every = {name: learners_of(models.PLR, part, learners) for name, part in parts.items()}
    first = parts[names[0]]
    with config.precision():
        key = jax.random.key(config.seed)
        check = check_training(models.PLR, first)
        for ids, k in partitions(config, first, fold_ids, binary=(), check=check):
            for name, part in parts.items():
                options = {"clip": config.clip, "key": key}
                one = fit_partition(models.PLR, part, every[name], ids, k, **options)
                found[name].append(dataclasses.replace(one, names=(name,)))
    return built(config, sample, found, learners, sample.notices)


def built(
    config: CrossFitting,
    sample: Sample,
    found: Mapping[str, Sequence[Estimate]],
    learners: Mapping[str, Any],
    notices: Sequence[str],
) -> SeveralTreatments:
    """The result, from the estimates of every treatment in every partition."""
    fits = {}
    for j, (name, every) in enumerate(found.items()):
        part = part_of(sample, j)
        own = learners_of(models.PLR, part, learners)
        fits[name] = DoubleMLResult.build(config, models.PLR, part, every, (), own)
    with config.precision():
        repetitions = [combine.together(list(one)) for one in zip(*found.values(), strict=True)]
        repetitions = [dataclasses.replace(one, estimator=TITLE).on_host() for one in repetitions]
        estimate = aggregate_estimates(repetitions, how=config.aggregate).on_host()
    ids = next(iter(found.values()))[0].diagnostics["fold_ids"]
    return SeveralTreatments(
        config=config,
        sample=sample,
        estimate=dataclasses.replace(
            estimate, notices=tuple(notices), diagnostics={"fold_ids": ids}
        ),
        repetitions=tuple(repetitions),
        learners=dict(learners),
        fits=fits,
    )


def treatments_of(parts: saved.Restored) -> dict[str, list[Estimate]]:
    """The estimates of every treatment of a saved fit."""
    clusters = parts.repetitions[0].clusters
    return {
        name: saved.from_tree(
            parts.arrays[str(j)], clusters=clusters, names=(name,), estimator=models.PLR.title
        )
        for j, name in enumerate(parts.more["treatments"])
    }


def _sample(whole: Sample, names: Sequence[str]) -> Sample:
    """The treatments as columns of ``A`` instead of covariates."""
    q = len(names)
    columns = np.concatenate([whole.A[:, None], whole.X[:, : q - 1]], axis=1)
    return dataclasses.replace(
        whole,
        A=columns,
        Z=columns,
        X=whole.X[:, q - 1 :],
        covariates=whole.covariates[q - 1 :],
        names={**whole.names, "treatment": ", ".join(names)},
        levels=tuple(names),
    )


def part_of(sample: Sample, place: int) -> Sample:
    """One treatment, with the others as covariates after those that there are."""
    others = [j for j in range(sample.A.shape[1]) if j != place]
    a = sample.A[:, place]
    return dataclasses.replace(
        sample,
        A=a,
        Z=a,
        X=np.concatenate([sample.X, sample.A[:, others]], axis=1),
        covariates=(*sample.covariates, *(sample.levels[j] for j in others)),
        names={**sample.names, "treatment": sample.levels[place]},
        levels=(),
    )
