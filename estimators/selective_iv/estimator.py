"""`SelectiveIV`: settings, checks, folds; the arithmetic is in pure functions next door."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample, check_sample
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.nuisance import basis as bases
from jaxcore.estimators.selective_iv.fitting import BASIS_KINDS, Fitter
from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient
from jaxcore.estimators.selective_iv.moment import BLOCKS, MODELS, Clip
from jaxcore.estimators.selective_iv.selected import CRITERIA

if TYPE_CHECKING:
    from jaxcore.estimators.selective_iv.result import SelectiveIVResult

SES = ("if", "sandwich", "cluster")
AGGREGATES = ("median", "mean")
_NUMBERS = (int, float, np.generic, np.ndarray, jax.Array)  # leaves of a learner are settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveIV:
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

    # Candidates, the same for every block or one sequence per block of `BLOCKS` (and "m" =
    # E[Y|Z,X] for general learners): names or objects of `nuisance.basis` (fitted jointly), or
    # learners of `nuisance` (fitted one after the other).
    learners: Sequence[Any] | Mapping[str, Sequence[Any]] = ("const", "lin", "quad")
    criterion: str | None = "mixed_minimax"  # "minimax", "smooth", None with one learner a block
    n_folds: int = 5  # 1 only with se="sandwich": parametric, all rows
    n_rep: int = 1  # repeated partitions
    aggregate: str = "median"  # of the repetitions, or "mean"
    clip: tuple[float, float] = (0.01, 0.99)  # bounds of P(Z=1|X) and P(A=1|Z,X)
    min_abs_D: float = 0.01  # floor of |D|
    overlap: str = "truncate"  # or "discard" units beyond the bounds
    # "if", "cluster" or "sandwich"; None: "cluster" if clusters are given. Of errors with given
    # clusters only "if" takes the units as independent.
    se: str | None = None
    one_sided: bool | str = "auto"  # nobody with Z=0 is treated
    ridge: float = 1e-3  # penalty of the logistic regressions on bases
    beta: float = 5.0  # sharpness of the soft maximum of "smooth"
    lam: float = 10.0  # sharpness of the soft weights of "smooth"
    models: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: MODELS)
    missing: str = "error"  # or "drop": rows with missing values are left out and counted
    standardise: bool = True  # covariates to mean 0 and variance 1 before the bases
    stratify: bool = True  # folds with equal shares of (Z, A)
    double: bool = True  # float64
    seed: int = 0

    def __post_init__(self):
        if self.criterion not in CRITERIA:
            raise UserError(f"Expected a criterion of {CRITERIA}, found {self.criterion!r}.")
        if self.se not in (*SES, None):
            raise UserError(f"Expected se of {SES} or None, found {self.se!r}.")
        for name in ("n_folds", "n_rep", "seed"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or abs(value) >= 1 << 63:
                raise UserError(f"Expected a 64-bit whole number for {name}, found {value!r}.")
        if self.n_rep < 1:
            raise UserError(f"Expected at least one repetition, found n_rep={self.n_rep}.")
        if self.aggregate not in AGGREGATES:
            raise UserError(f"Expected aggregate of {AGGREGATES}, found {self.aggregate!r}.")
        if self.se == "sandwich" and (self.n_folds, self.n_rep) != (1, 1):
            raise UserError(
                "Expected n_folds=1 and n_rep=1 with se='sandwich' (a parametric fit on all "
                f"rows), found n_folds={self.n_folds} and n_rep={self.n_rep}."
            )
        if self.se != "sandwich" and self.n_folds < 2:
            raise UserError(
                f"Expected at least 2 folds (1 only with se='sandwich'), found {self.n_folds}."
            )
        if self.one_sided not in (True, False, "auto"):
            raise UserError(f"Expected one_sided True, False or 'auto', found {self.one_sided!r}.")
        for name in ("ridge", "beta", "lam"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"Expected a finite {name} >= 0, found {getattr(self, name)}.")
        if not self.models or any(not set(kept) <= set(BLOCKS) for kept in self.models.values()):
            raise UserError(
                f"Expected at least one model, each keeping blocks of {BLOCKS}, found "
                f"{dict(self.models)}."
            )
        if self.overlap == "discard" and (self.criterion == "smooth" or self.se == "sandwich"):
            raise UserError(
                "Expected overlap='truncate' with the smooth criterion or se='sandwich', found "
                "'discard'."
            )
        _ = self.bounds, self.blocks

    @property
    def bounds(self) -> Clip:
        """All bounds of nuisances in one place."""
        if np.shape(self.clip) != (2,):
            raise UserError(f"Expected two numbers for clip, found {self.clip!r}.")
        low, high = self.clip
        return Clip(
            pi=(low, high), mu=(low, high), min_abs_D=self.min_abs_D,
            overlap=self.overlap,
        )  # fmt: skip

    @property
    def blocks(self) -> dict[str, tuple[Any, ...]]:
        """Candidates of every block."""
        given = self.learners
        if not isinstance(given, Mapping):
            given = dict.fromkeys(BLOCKS, given)
        unknown = set(given) - {*BLOCKS, "m"}
        absent = set(BLOCKS) - set(given)
        if unknown or absent:
            raise UserError(
                f"Expected learners for the blocks {', '.join(BLOCKS)} (and m), "
                f"found {', '.join(given) or 'none'}."
            )
        out = {k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in given.items()}
        for name, candidates in out.items():
            if not candidates:
                raise UserError(f"Expected at least one learner for {name}, found none.")
            for one in candidates:
                _check_candidate(name, one)
        if self.criterion is None and any(len(out[b]) != 1 for b in BLOCKS):
            raise UserError(
                "Expected one learner per block without a criterion, found "
                f"{[len(out[b]) for b in BLOCKS]}."
            )
        return out

    def precision(self) -> contextlib.AbstractContextManager:
        """The scope the arithmetic runs in."""
        return jax.enable_x64(True) if self.double else contextlib.nullcontext()

    @property
    def clustered(self) -> bool:
        """Whether errors heed clusters, if there are any."""
        return self.se != "if"

    @property
    def all_bases(self) -> bool:
        """Whether every candidate is a basis."""
        return all(isinstance(c, BASIS_KINDS) for b in BLOCKS for c in self.blocks[b])

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
    ) -> "SelectiveIVResult":
        """Estimate from arrays.

        Args:
          Y: outcome.
          A: treatment, 0 or 1.
          Z: instrument, 0 or 1.
          X: covariates, (n, p).
          weights: observation weights.
          clusters: cluster labels of any kind; folds never split a cluster.
          fold_ids: fold of each unit (0, 1, ...), instead of random ones.
          covariates: names of the columns of ``X``.

        Raises:
          UserError: what is wrong with the data or settings.
        """
        from jaxcore.estimators.selective_iv.result import SelectiveIVResult

        sample = check_sample(
            Y, A, Z, X, weights=weights, clusters=clusters, covariates=covariates,
            missing=self.missing,
        )  # fmt: skip
        if self.se == "cluster" and clusters is None:
            raise UserError("Expected clusters with se='cluster', found none.")
        one_sided = self._one_sided(sample)
        if fold_ids is not None and self.se == "sandwich":
            raise UserError(
                "Expected no fold_ids with se='sandwich' (all rows at once), found some."
            )
        if fold_ids is not None:
            if self.n_rep > 1:
                raise UserError(f"Expected n_rep=1 with given folds, found {self.n_rep}.")
            given = np.asarray(fold_ids)
            if given.shape != sample.kept.shape:
                raise UserError(
                    f"Expected {len(sample.kept)} fold ids, found an array of shape {given.shape}."
                )
            fold_ids = given[sample.kept]
        with self.precision():
            fitter = Fitter(self, sample, one_sided)
            repeats = fitter.repetitions(fold_ids)
        notices = list(sample.notices) + fitter.notices
        return SelectiveIVResult.build(self, sample, one_sided, repeats, notices)

    def fit_frame(
        self,
        frame: Any,
        *,
        outcome: str,
        treatment: str,
        instrument: str,
        covariates: Sequence[str] | str,
        weights: str | None = None,
        clusters: str | None = None,
    ) -> "SelectiveIVResult":
        """Estimate from named columns of a dataframe (pandas, polars, pyarrow, dict of arrays)."""
        from jaxcore.data.tables import as_table, design

        if isinstance(covariates, str):
            covariates = (covariates,)
        table = as_table(frame)
        named = [outcome, treatment, instrument, *covariates]
        table.check(named + [c for c in (weights, clusters) if c is not None])
        X, names = design(table, covariates)
        return self.fit(
            table.numbers(outcome), table.numbers(treatment), table.numbers(instrument), X,
            weights=None if weights is None else table.numbers(weights),
            clusters=None if clusters is None else table.values(clusters),
            covariates=names,
        )  # fmt: skip

    def fit_formula(
        self,
        formula: str,
        frame: Any,
        *,
        weights: str | None = None,
        clusters: str | None = None,
    ) -> "SelectiveIVResult":
        """Estimate from a formula ``outcome ~ treatment | instrument | covariates``.

        Covariates may be transformed as in formulaic: ``"y ~ a | z | x + bs(age, 4) + C(marr)"``.
        """
        from jaxcore.data.tables import as_table, formula_parts

        table = as_table(frame)
        Y, A, Z, X, names = formula_parts(formula, table)
        return self.fit(
            Y, A, Z, X,
            weights=None if weights is None else table.numbers(weights),
            clusters=None if clusters is None else table.values(clusters),
            covariates=names,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["learners"] = {k: [label(c) for c in v] for k, v in self.blocks.items()}
        out["models"] = {k: list(v) for k, v in self.models.items()}
        out["clip"] = list(self.clip)
        return out

    def _one_sided(self, sample: Sample) -> bool:
        """Whether nobody without the instrument is treated; refuses what must be recoded."""
        A, Z = sample.A, sample.Z
        treated = {z: A[z == Z] for z in (0, 1)}
        for z, a, how in (
            (1, 1.0, "recode the treatment and the instrument as 1-A and 1-Z"),
            (1, 0.0, "recode the instrument as 1-Z"),
            (0, 1.0, "recode the treatment as 1-A"),
        ):
            if np.all(treated[z] == a) and self.one_sided is not False:
                raise UserError(
                    f"Expected both treated and untreated units where Z={z}, found only A={a:g}: "
                    f"{how}."
                )
        empty = bool(np.all(treated[0] == 0))
        if self.one_sided is True and not empty:
            raise UserError(
                "Expected no treated units where Z=0 with one_sided=True, "
                f"found {int(treated[0].sum())}."
            )
        return empty if self.one_sided == "auto" else bool(self.one_sided)


def _check_candidate(block: str, candidate: Any) -> None:
    """Refuse what is no candidate for a block."""
    if isinstance(candidate, str):
        bases.resolve(candidate)
    elif isinstance(candidate, (VaryingCoefficient, PlugIn)):
        if block != "delta":
            raise UserError(f"Expected {label(candidate)} for delta only, found it for {block}.")
        if isinstance(candidate, PlugIn):
            _check_candidate(block, candidate.learner)
    elif not isinstance(candidate, (*BASIS_KINDS, HostLearner)):
        outside = jax.tree_util.all_leaves([candidate])  # no learner of ours, which are pytrees
        if outside or not isinstance(candidate, Learner):
            raise UserError(
                f"Expected bases or learners of jaxcore.estimators.nuisance for {block} (others "
                f"as HostLearner(...)), found {candidate!r}."
            )
        if not all(isinstance(leaf, _NUMBERS) for leaf in jax.tree.leaves(candidate)):
            raise UserError(
                f"Expected {type(candidate).__name__} of JAX learners, found {label(candidate)}."
            )


def label(learner: Any) -> str:
    """Short name of a candidate.

    >>> label("quad"), label(bases.Polynomial(degree=2))
    ('quad', 'Polynomial(degree=2)')
    """
    if isinstance(learner, str):
        return learner
    if isinstance(learner, HostLearner) or not dataclasses.is_dataclass(learner):
        return repr(learner)
    changed = []
    for field in dataclasses.fields(learner):
        value = getattr(learner, field.name)
        plain = field.default is not dataclasses.MISSING and value == field.default
        if not plain:
            text = label(value) if dataclasses.is_dataclass(value) else repr(value)
            changed.append(f"{field.name}={text}")
    return f"{type(learner).__name__}({', '.join(changed)})"
