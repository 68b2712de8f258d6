"""What a cross-fitted estimator is made of: nuisances, their targets, and a score of both."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.crossfit import crossfit_groups
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.influence import LinearScore
from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.nuisance.base import joint
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key

OUTCOME, TREATMENT, INSTRUMENT = "outcome", "treatment", "instrument"


@dataclasses.dataclass(frozen=True)
class Nuisance:
    """A regression on the covariates."""

    learner: str  # the setting that holds its learner, such as "ml_g"
    target: str  # role of what it predicts
    given: tuple[str, int] | None = None  # fitted among the units with this value of a role
    bounded: bool = False  # a probability that the score divides by: held within the bounds

    @property
    def symbol(self) -> str:
        """As in a paper: E[Y|D=1,X].

        >>> Nuisance("ml_g", OUTCOME, (TREATMENT, 1)).symbol, Nuisance("ml_m", TREATMENT).symbol
        ('E[Y|A=1,X]', 'E[A|X]')
        """
        letters = {OUTCOME: "Y", TREATMENT: "A", INSTRUMENT: "Z"}
        where = "" if self.given is None else f"{letters[self.given[0]]}={self.given[1]},"
        if self.bounded:
            return f"P({letters[self.target]}=1|{where}X)"
        return f"E[{letters[self.target]}|{where}X]"


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """An estimator as a table entry; `fit` below is all that it runs."""

    title: str
    effect: str  # name of the estimate
    roles: tuple[str, ...]  # columns before the covariates
    binary: tuple[str, ...]  # roles that must have two values
    nuisances: Mapping[str, Nuisance]  # by the names of their predictions; fitted in this order
    # From columns by role and predictions by name to the score.
    score: Callable[[Mapping[str, Array], Mapping[str, Array]], LinearScore]
    signal: bool = False  # the constant part of the score is an unbiased signal of the effect

    @property
    def learners(self) -> tuple[str, ...]:
        """Settings that hold learners."""
        return tuple(dict.fromkeys(n.learner for n in self.nuisances.values()))


def fit(
    model: Model,
    columns: Mapping[str, Float[Array, " n"]],
    X: Float[Array, "n p"],
    learners: Mapping[str, Learner | HostLearner],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    clip: tuple[float, float] = (0.0, 1.0),
    fixed: tuple[tuple[str, float], ...] = (),
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Cross-fit every nuisance and solve the score; pure, under ``jit`` and ``vmap`` too.

    Nothing is checked here.

    Args:
      model: the estimator.
      columns: outcome, treatment, instrument by role.
      X: covariates.
      learners: by setting, as "ml_g".
      fold_ids: fold of each unit.
      n_folds: number of folds; 1 switches cross-fitting off.
      clip: bounds of the probabilities that the score divides by.
      fixed: predictions known by design, which are not fitted.
      units: observation weights and clusters.
      key: PRNG key for learners that draw.

    Returns:
      The estimate; diagnostics hold the predictions by name (bounded), ``raw`` (not bounded), and
      ``findings`` of the learners by prediction, such as chosen penalties (first axis: folds).
    """
    found, about = predictions(
        model, columns, X, learners, fold_ids, n_folds, fixed=fixed, units=units, key=key
    )
    estimate = solve(model, columns, found, clip=clip, units=units)
    return dataclasses.replace(estimate, diagnostics={**estimate.diagnostics, "findings": about})


def predictions(
    model: Model,
    columns: Mapping[str, Float[Array, " n"]],
    X: Float[Array, "n p"],
    learners: Mapping[str, Learner | HostLearner],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    fixed: tuple[tuple[str, float], ...] = (),
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> tuple[dict[str, Float[Array, " n"]], dict[str, dict[str, Array]]]:
    """Out-of-fold predictions of every nuisance, not bounded, and findings; see `fit`."""
    key = jax.random.key(0) if key is None else key
    known, about = dict(fixed), {}
    y = columns[OUTCOME]
    out = {name: jnp.full_like(y, value) for name, value in known.items()}
    weights = jnp.ones_like(y) if units.weights is None else units.weights

    def group(one: Nuisance) -> Float[Array, " n"]:
        if one.given is None:
            return weights
        role, value = one.given
        return weights * (columns[role] if value else 1 - columns[role])

    for places in _at_once(model, learners, known):
        ones = [model.nuisances[name] for name in places]
        numbers = [list(model.nuisances).index(name) for name in places]
        values, found = crossfit_groups(
            [learners[one.learner] for one in ones],
            X,
            [columns[one.target] for one in ones],
            fold_ids,
            n_folds,
            weights=[group(one) for one in ones],
            keys=jnp.stack([jax.random.fold_in(key, i) for i in numbers]),
        )
        weights = after(weights, values)
        for j, name in enumerate(places):
            out[name], about[name] = values[j], {what: v[j] for what, v in found.items()}
    about = {name: about[name] for name in model.nuisances if name in about}
    return {name: out[name] for name in model.nuisances}, about


def _at_once(
    model: Model, learners: Mapping[str, Learner | HostLearner], known: Mapping[str, float]
) -> list[list[str]]:
    """Names of nuisances that one program fits."""
    together: list[list[str]] = []
    for name, one in model.nuisances.items():
        if name in known:
            continue
        for places in together:
            first = model.nuisances[places[0]].learner
            if first == one.learner or joint(learners[first], learners[one.learner]):
                places.append(name)
                break
        else:
            together.append([name])
    return together


def solve(
    model: Model,
    columns: Mapping[str, Float[Array, " n"]],
    raw: Mapping[str, Float[Array, " n"]],
    *,
    clip: tuple[float, float],
    units: Units = INDEPENDENT,
) -> Estimate:
    """Estimate from predictions, made here or elsewhere; see `fit`."""
    bounded = [name for name, one in model.nuisances.items() if one.bounded]
    held = {name: jnp.clip(v, *clip) if name in bounded else v for name, v in raw.items()}
    score = model.score(columns, held)
    more: dict[str, Any] = {"u": score.psi_b} if model.signal else {}
    if bounded:
        more["n_clipped"] = sum(jnp.sum(held[name] != raw[name]) for name in bounded)
        more["raw"] = {name: raw[name] for name in bounded}
    if INSTRUMENT in model.roles:
        first = influence.solve(LinearScore(jnp.full_like(score.psi_a, -1.0), -score.psi_a), units)
        more["first_stage"], more["first_stage_t"] = first.theta, first.theta / first.se
    return influence.solve(
        score,
        units,
        names=(model.effect,),
        estimator=model.title,
        diagnostics={**held, **more},
    )


def _plr(c: Mapping[str, Array], p: Mapping[str, Array]) -> LinearScore:
    return influence.partially_linear(c[OUTCOME], c[TREATMENT], p["ml_l"], p["ml_m"])


def _pliv(c: Mapping[str, Array], p: Mapping[str, Array]) -> LinearScore:
    y, d, z = c[OUTCOME], c[TREATMENT], c[INSTRUMENT]
    return influence.partially_linear_iv(y, d, z, p["ml_l"], p["ml_m"], p["ml_r"])


def _irm(c: Mapping[str, Array], p: Mapping[str, Array]) -> LinearScore:
    return influence.aipw(c[OUTCOME], c[TREATMENT], p["ml_m"], p["ml_g0"], p["ml_g1"])


def _irm_treated(c: Mapping[str, Array], p: Mapping[str, Array]) -> LinearScore:
    return influence.treated(c[OUTCOME], c[TREATMENT], p["ml_m"], p["ml_g0"])


def _iivm(c: Mapping[str, Array], p: Mapping[str, Array]) -> LinearScore:
    y, d, z = c[OUTCOME], c[TREATMENT], c[INSTRUMENT]
    arms = (p[name] for name in ("ml_g0", "ml_g1", "ml_r0", "ml_r1"))
    return influence.late(y, d, z, p["ml_m"], *arms)


PLR = Model(
    title="PLR",
    effect="theta",
    roles=(OUTCOME, TREATMENT),
    binary=(),
    nuisances={"ml_l": Nuisance("ml_l", OUTCOME), "ml_m": Nuisance("ml_m", TREATMENT)},
    score=_plr,
)
PLIV = Model(
    title="PLIV",
    effect="theta",
    roles=(OUTCOME, TREATMENT, INSTRUMENT),
    binary=(),
    nuisances={
        "ml_l": Nuisance("ml_l", OUTCOME),
        "ml_m": Nuisance("ml_m", INSTRUMENT),
        "ml_r": Nuisance("ml_r", TREATMENT),
    },
    score=_pliv,
)
IRM = Model(
    title="IRM (AIPW)",
    effect="ATE",
    roles=(OUTCOME, TREATMENT),
    binary=(TREATMENT,),
    nuisances={
        "ml_m": Nuisance("ml_m", TREATMENT, bounded=True),
        "ml_g0": Nuisance("ml_g", OUTCOME, (TREATMENT, 0)),
        "ml_g1": Nuisance("ml_g", OUTCOME, (TREATMENT, 1)),
    },
    score=_irm,
    signal=True,
)
IRM_TREATED = dataclasses.replace(
    IRM,
    title="IRM (AIPW, treated)",
    effect="ATT",
    score=_irm_treated,
    signal=False,
)
IIVM = Model(
    title="IIVM (LATE)",
    effect="LATE",
    roles=(OUTCOME, TREATMENT, INSTRUMENT),
    binary=(TREATMENT, INSTRUMENT),
    nuisances={
        "ml_m": Nuisance("ml_m", INSTRUMENT, bounded=True),
        "ml_g0": Nuisance("ml_g", OUTCOME, (INSTRUMENT, 0)),
        "ml_g1": Nuisance("ml_g", OUTCOME, (INSTRUMENT, 1)),
        "ml_r0": Nuisance("ml_r", TREATMENT, (INSTRUMENT, 0)),
        "ml_r1": Nuisance("ml_r", TREATMENT, (INSTRUMENT, 1)),
    },
    score=_iivm,
)


def irm_of(target: str) -> Model:
    """The model of the average effect ("ATE") or of that on the treated ("ATT").

    Raises:
      UserError: another target.
    """
    known = {"ATE": IRM, "ATT": IRM_TREATED}
    if target not in known:
        raise UserError(f"Expected target='ATE' or 'ATT', found {target!r}.")
    return known[target]
