"""Settings of `SelectiveIV`, checked when they are made."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance import HostLearner, Learner, candidates, label
from jaxcore.estimators.nuisance import basis as bases
from jaxcore.estimators.nuisance.tuning import Tuned
from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient
from jaxcore.estimators.selective_iv.moment import BLOCKS, MODELS, Clip
from jaxcore.estimators.selective_iv.selected import CRITERIA
from jaxcore.estimators.settings import CrossFitting

SES = ("if", "sandwich", "cluster")

Candidate = str | bases.Basis | Learner | HostLearner | Tuned | PlugIn | VaryingCoefficient
"""A learner of a block: a basis or its name, a learner or its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(CrossFitting):
    """How the effect is estimated; see `SelectiveIV`."""

    report_pictures: ClassVar[tuple[str, ...]] = ("estimates.png", "overlap.png", "pseudo_risk.png")

    # Candidates, the same for every block or one sequence per block of `BLOCKS` (and "m" =
    # E[Y|Z,X] for general learners): names or objects of `nuisance.basis` (fitted jointly), or
    # learners of `nuisance` (fitted one after the other).
    learners: Sequence[Candidate] | Mapping[str, Sequence[Candidate]] = ("const", "lin", "quad")
    criterion: str | None = "mixed_minimax"  # "minimax", "smooth", None with one learner a block
    min_abs_D: float = 0.01  # floor of |D|
    overlap: str = "truncate"  # or "discard" units beyond the bounds
    # "if", "cluster" or "sandwich"; None: "cluster" if clusters are given. With clusters only "if"
    # takes the units as independent.
    se: str | None = None
    one_sided: bool | str = "auto"  # nobody with Z=0 is treated
    ridge: float = 1e-3  # penalty of the logistic regressions on bases
    beta: float = 5.0  # sharpness of the soft maximum of "smooth"
    lam: float = 10.0  # sharpness of the soft weights of "smooth"
    models: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: MODELS)
    standardise: bool = True  # covariates to mean 0 and variance 1 before the bases

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.criterion not in CRITERIA:
            raise UserError(f"Expected a criterion of {CRITERIA}, found {self.criterion!r}.")
        if self.se not in (*SES, None):
            raise UserError(f"Expected se of {SES} or None, found {self.se!r}.")
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
        low, high = self.clip
        return Clip(pi=(low, high), mu=(low, high), min_abs_D=self.min_abs_D, overlap=self.overlap)

    @property
    def blocks(self) -> dict[str, tuple[Candidate, ...]]:
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
        out: dict[str, tuple[Any, ...]] = {
            k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in given.items()
        }
        for name, every in out.items():
            if not every:
                raise UserError(f"Expected at least one learner for {name}, found none.")
            for one in every:
                _check_candidate(name, one)
        if self.criterion is None and any(len(out[b]) != 1 for b in BLOCKS):
            raise UserError(
                "Expected one learner per block without a criterion, found "
                f"{[len(out[b]) for b in BLOCKS]}."
            )
        return out

    @property
    def clustered(self) -> bool:
        """Whether standard errors are clustered, if there are clusters."""
        return self.se != "if"

    @property
    def all_bases(self) -> bool:
        """Whether every candidate is a basis."""
        return all(is_basis(c) for b in BLOCKS for c in self.blocks[b])

    @property
    def takes_missing(self) -> bool:
        """Whether every learner takes NaN among the covariates."""
        return all(_takes_missing(c) for block in self.blocks.values() for c in block)

    def tune(self, *, n_inner: int = 3) -> Self:
        """The same settings with learners that choose theirs by cross-validation in every fit.

        Bases stay as they are: among them the criterion chooses.

        Raises:
          UserError: there are only bases, or a learner has no grid (see `nuisance.tuning.tuned`).
        """
        if self.all_bases:
            raise UserError(
                "Expected learners whose settings can be tuned, found bases, among which the "
                "criterion chooses."
            )
        blocks = {b: tuple(_tuned(c, n_inner) for c in every) for b, every in self.blocks.items()}
        return dataclasses.replace(self, learners=blocks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["learners"] = {k: [label(c) for c in v] for k, v in self.blocks.items()}
        out["models"] = {k: list(v) for k, v in self.models.items()}
        out["clip"] = list(self.clip)
        return out


def is_basis(candidate: object) -> bool:
    """Whether a candidate is a basis or its name."""
    kinds = bases.Polynomial, bases.BSpline, bases.FourierFeatures
    return isinstance(candidate, kinds) or (isinstance(candidate, str) and candidate in bases.NAMED)


def learner_of(block: str, candidate: Candidate) -> Any:
    """The learner of a block that is no basis; names mean classifiers of pi and mu.

    Raises:
      UserError: it is no learner.
    """
    binary = block in ("pi", "mu")
    return candidates.resolved(candidate, block, binary=binary, bases=tuple(bases.NAMED))


def _check_candidate(block: str, candidate: Candidate) -> None:
    """Refuse what is no candidate for a block."""
    if isinstance(candidate, (VaryingCoefficient, PlugIn)):
        if block != "delta":
            raise UserError(f"Expected {label(candidate)} for delta only, found it for {block}.")
        if isinstance(candidate, PlugIn):
            _check_candidate(block, candidate.learner)
    elif not is_basis(candidate):
        learner_of(block, candidate)


def _takes_missing(candidate: Any) -> bool:
    inner = candidate.learner if isinstance(candidate, PlugIn) else candidate
    outside = not (is_basis(inner) or isinstance(inner, VaryingCoefficient))
    return outside and candidates.takes_missing(learner_of("a block", inner))


def _tuned(candidate: Candidate, n_inner: int) -> Candidate:
    if is_basis(candidate) or isinstance(candidate, VaryingCoefficient):
        return candidate
    if isinstance(candidate, PlugIn):
        inner: Any = _tuned(candidate.learner, n_inner)
        return PlugIn(learner=inner)
    return Tuned(learner=candidate, n_inner=n_inner)
