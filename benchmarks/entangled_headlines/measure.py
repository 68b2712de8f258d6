"""What a policy writes, and what a reward model found, against the known truth."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.entangled_headlines.network import completion, log_probabilities, write
from benchmarks.entangled_headlines.training import scored
from jaxcore.estimators.deconfound.simulate import (
    FEATURES,
    TOPICS,
    HeadlineDesign,
    counterfactuals,
    features_of,
    grammatical,
)
from jaxcore.models.llama import LlamaConfig
from jaxcore.typing import Key, Params

if TYPE_CHECKING:
    from benchmarks.entangled_headlines.study import Scorer

STRANGE = 0.02
"""Share of the base's own texts that count as strange: those with the least likely token."""


@functools.partial(jax.jit, static_argnames=("each", "cfg"))
def _sampled(params: Params, base: Params, key: Key, *, each: int, cfg: LlamaConfig) -> Any:
    topics = jnp.arange(len(TOPICS), dtype=jnp.int32)
    tokens = write(params, topics, each, key, cfg).texts
    mask, told = completion(tokens), log_probabilities(base, tokens, cfg)
    least = jnp.min(jnp.where(mask, told, 0), axis=1)
    apart = jnp.sum(jnp.where(mask, log_probabilities(params, tokens, cfg) - told, 0), axis=1)
    return tokens, apart, least


@functools.partial(jax.jit, static_argnames=("cfg",))
def _scores(params: Params, tokens: Any, *, cfg: LlamaConfig) -> Any:
    return scored(params, tokens, cfg)


def _in_units(scorer: "Scorer", tokens: Any, cfg: LlamaConfig) -> np.ndarray:
    scores = np.asarray(_scores(scorer.params, tokens, cfg=cfg), np.float64)
    return scorer.unit * scores + scorer.mean


def strangeness(base: Params, key: Key, each: int, cfg: LlamaConfig) -> float:
    """The base's log-probability of a token below which a text is strange."""
    *_, least = _sampled(base, base, key, each=each, cfg=cfg)
    return float(jnp.quantile(least, STRANGE))


def of_policy(
    params: Params,
    base: Params,
    key: Key,
    design: HeadlineDesign,
    *,
    floor: float,
    each: int,
    cfg: LlamaConfig,
    scorer: "Scorer | None" = None,
) -> dict[str, float]:
    """Figures of ``each`` texts on every topic, sampled at temperature 1."""
    tokens, apart, least = _sampled(params, base, key, each=each, cfg=cfg)
    has, valid = features_of(np.asarray(tokens)), grammatical(np.asarray(tokens))
    tau = has @ np.array(design.effects)
    found = {
        "J": float(tau.mean()),
        "J_valid": float(tau[valid].mean()) if valid.any() else float("nan"),
        "validity": float(valid.mean()),
        **{f"P({name})": float(has[:, i].mean()) for i, name in enumerate(FEATURES)},
        "KL": float(apart.mean()),
        "strange": float((np.asarray(least) < floor).mean()),
    }
    if scorer is not None:
        told = _in_units(scorer, tokens, cfg)
        found["scored"] = float(told.mean())
        over = told - tau
        for name, rows in (("valid", valid), ("invalid", ~valid)):
            found[f"overrated_{name}"] = float(over[rows].mean()) if rows.any() else float("nan")
    return found


def effects(scorer: "Scorer", frames: int, cfg: LlamaConfig) -> dict[str, float]:
    """What each feature does to a score, in units of the outcome, on a balanced factorial."""
    tokens, has = counterfactuals(frames, seed=1)
    told = _in_units(scorer, jnp.asarray(tokens), cfg)
    design = np.column_stack([np.ones(len(has)), has])
    slopes = np.linalg.lstsq(design, told, rcond=None)[0]
    left = float(np.std(told - design @ slopes))
    return {**dict(zip(FEATURES, map(float, slopes[1:]), strict=True)), "rest": left}
