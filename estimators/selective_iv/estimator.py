"""`SelectiveIV`: from data to a fit; the arithmetic is in pure functions next door."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxcore.errors import UserError
from jaxcore.estimators.checks import check_sample
from jaxcore.estimators.frames import FitsFrames
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.selective_iv import one_sided
from jaxcore.estimators.selective_iv.fitting import Fitter
from jaxcore.estimators.selective_iv.result import SelectiveIVResult, with_nuisances
from jaxcore.estimators.selective_iv.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveIV(Settings, FitsFrames[SelectiveIVResult]):
    """Average treatment effect with an instrument that may act on the outcome itself.

    ``fit`` returns a `SelectiveIVResult` and leaves this object as it is.

    >>> import jax
    >>> from jaxcore.estimators.selective_iv import SelectiveIV, simulate_siv1
    >>> s = simulate_siv1(jax.random.key(0), 500)
    >>> result = SelectiveIV(learners=("const", "lin"), n_folds=2).fit(s.Y, s.A, s.Z, s.X)
    >>> result.confint().shape
    (2,)

    References:
      Sun, Cui and Tchetgen Tchetgen (2022), JMLR 23; Cui and Tchetgen Tchetgen (2024), Biometrika.
      The extension of the selection rule to four models, the minimax and smooth rules, and the
      order in which general learners are fitted are this library's own.
    """

    labelled = ("treatment", "instrument")

    @classmethod
    def options(cls) -> Callable[..., "SelectiveIV"]:
        """Settings that the command line can say; see `FitsFrames.options`."""
        return _from_options

    def fit(
        self,
        Y: Any,
        A: Any,
        Z: Any,
        X: Any,
        *,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        covariates: Sequence[str] | None = None,
    ) -> SelectiveIVResult:
        """Estimate from arrays, lists, series or frames whose rows belong together.

        Args:
          Y: outcome.
          A: treatment, of two levels.
          Z: instrument, of two levels.
          X: covariates, (n, p); names are those of a frame.
          weights: observation weights.
          clusters: cluster labels of any kind; folds never split a cluster.
          fold_ids: fold of each row instead of random ones: numbers from 0, texts, or pairs of
            training and test rows as scikit-learn makes them.
          covariates: names of the columns of ``X``.

        Raises:
          UserError: what is wrong with the data or settings.
        """
        sample = check_sample(
            Y,
            A,
            Z,
            X,
            weights=weights,
            clusters=clusters,
            covariates=covariates,
            missing=self.missing,
            levels=self.levels,
            holes=self.takes_missing,
        )
        if sample.clusters is not None and sample.clusters.ndim == 2:
            raise UserError(
                f"Expected clusters of one kind, found {sample.clusters.shape[1]} kinds."
            )
        if self.se == "cluster" and clusters is None:
            raise UserError("Expected clusters with se='cluster', found none.")
        clip = one_sided.choose(self.bounds, sample, self.one_sided)
        if fold_ids is not None and self.se == "sandwich":
            raise UserError(
                "Expected no fold_ids with se='sandwich' (all rows at once), found some."
            )
        self.check_given(fold_ids)
        with self.precision():
            fitter = Fitter(self, sample, clip)
            repeats = fitter.repetitions(fold_ids)
        notices = [*sample.notices, *fitter.notices]
        return SelectiveIVResult.build(self, sample, clip, repeats, notices)

    def restored(self, parts: Restored) -> SelectiveIVResult:
        """The result of a fit that was saved."""
        clip = dataclasses.replace(self.bounds, one_sided=parts.more["one_sided"])
        repeats = [
            dataclasses.replace(e, diagnostics=with_nuisances(e.diagnostics))
            for e in parts.repetitions
        ]
        result = SelectiveIVResult.build(self, parts.sample, clip, repeats, ())
        noted = dataclasses.replace(result.estimate, notices=parts.notices)
        return dataclasses.replace(result, estimate=noted)


def _from_options(
    learners: tuple[str, ...] = ("const", "lin", "quad"),
    tune: bool = False,
    criterion: Literal["mixed_minimax", "minimax", "smooth"] = "mixed_minimax",
    folds: int = 5,
    repetitions: int = 1,
    clip: tuple[float, float] = (0.01, 0.99),
    missing: Literal["error", "drop"] = "error",
    treated: str | None = None,
    assigned: str | None = None,
    seed: int = 0,
) -> SelectiveIV:
    """Options of the command line.

    Args:
      learners: candidates of every nuisance: the bases const, lin, quad, cubic, spline, fourier, or
        learners lasso, ridge, boosting, stack:A,B, best:A,B, tuned:A.
      tune: choose the learners' settings by cross-validation (bases have none).
      criterion: how one combination of candidates is chosen.
      folds: cross-fitting folds.
      repetitions: repeated partitions, aggregated by medians.
      clip: bounds of the estimated probabilities.
      missing: refuse rows with missing values, or drop and count them.
      treated: level of the treatment that counts as 1.
      assigned: level of the instrument that counts as 1.
      seed: seed of the folds.
    """
    made = SelectiveIV(
        learners=learners,
        criterion=criterion,
        n_folds=folds,
        n_rep=repetitions,
        clip=clip,
        missing=missing,
        treated=treated,
        assigned=assigned,
        seed=seed,
    )
    return made.tune() if tune else made
