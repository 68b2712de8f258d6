"""Optimisers built from one frozen config; all but RAdam are those of optax.

Weight decay is decoupled for adamw, nadamw, lion, lamb and muon, and an L2 term added to the
gradient for adam, radam and sgd, as in PyTorch.
"""

import dataclasses
import re
from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

import jax
import optax

from jaxcore.errors import UserError
from jaxcore.serial import Positive, Serial
from jaxcore.train.radam import radam
from jaxcore.train.schedules import Schedule, ScheduleConfig, make_schedule
from jaxcore.typing import Params

OptimName: TypeAlias = Literal["adamw", "adam", "nadamw", "radam", "sgd", "lion", "lamb", "muon"]
_FROZEN, _REST = "frozen", "rest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig(Serial):
    """An optimiser of its own for the parameters whose path matches; None inherits.

    The first group whose ``pattern`` is found (``re.search``) in the path ``"a/b/kernel"`` wins.
    """

    pattern: str  # regular expression on the parameter path
    name: OptimName | None = None
    learning_rate: Positive | None = None  # peak; the shape of the schedule is shared
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(
                f"Optimiser group pattern {self.pattern!r} is not a regular expression: {error}."
            ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Serial):
    """One optimiser, or several on disjoint parts of the parameters (``groups``).

    >>> OptimConfig.from_dict(OptimConfig(name="radam").to_dict()).name
    'radam'
    """

    name: OptimName = "adamw"
    learning_rate: Positive = 2e-4  # peak rate
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    betas: tuple[float, float] = (0.9, 0.999)  # sgd ignores them
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.9  # sgd, and the matrices of muon
    clip_norm: Positive | None = None  # joint L2 norm over all trained parameters
    groups: tuple[GroupConfig, ...] = ()


def _single(cfg: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    b1, b2 = cfg.betas
    decay = cfg.weight_decay
    match cfg.name:
        case "adamw":
            return optax.adamw(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay)
        case "nadamw":
            return optax.nadamw(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay)
        case "lion":
            return optax.lion(rate, b1=b1, b2=b2, weight_decay=decay)
        case "lamb":
            return optax.lamb(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay)
        case "muon":  # matrices by muon, everything else by adamw
            return optax.contrib.muon(
                rate,
                beta=cfg.momentum,
                weight_decay=decay,
                adam_b1=b1,
                adam_b2=b2,
                adam_weight_decay=decay,
            )
        case "adam":
            inner = optax.adam(rate, b1=b1, b2=b2, eps=cfg.eps)
        case "radam":
            inner = radam(rate, b1=b1, b2=b2, eps=cfg.eps)
        case "sgd":
            inner = optax.sgd(rate, momentum=cfg.momentum or None)
    return optax.chain(optax.add_decayed_weights(decay), inner) if decay else inner


def parameter_path(path: tuple[Any, ...]) -> str:
    """``"encoder/0/kernel"`` for a key path of `jax.tree_util`.

    >>> import jax
    >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"a": [1]})
    >>> parameter_path(path)
    'a/0'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _labels(cfg: OptimConfig, trainable: Any, params: Params) -> Any:
    """Name of the optimiser of every leaf."""
    used: set[int] = set()

    def label(path: tuple[Any, ...], _: Any) -> str:
        name = parameter_path(path)
        for i, group in enumerate(cfg.groups):
            if re.search(group.pattern, name):
                used.add(i)
                return f"group{i}"
        return _REST

    labels = jax.tree_util.tree_map_with_path(label, params)
    for i, group in enumerate(cfg.groups):
        if i not in used:
            raise UserError(f"Optimiser group pattern {group.pattern!r} matches no parameter.")
    if trainable is None:
        return labels
    return jax.tree.map(lambda keep, name: name if keep else _FROZEN, trainable, labels)


def make_optimiser(
    cfg: OptimConfig, total_steps: int, trainable: Any = None
) -> optax.GradientTransformation:
    """Build the gradient transformation: joint clipping, then one optimiser per group.

    Args:
      cfg: the optimiser.
      total_steps: updates of the whole run (length of the schedule).
      trainable: tree of bools shaped like the parameters. A False leaf gets neither update nor
        weight decay nor optimiser state, and does not count in the clipping norm.

    Returns:
      An optax transformation; its ``update`` needs the parameters.

    Raises:
      UserError: a group pattern matches no parameter (when the state is initialised).

    >>> import jax, jax.numpy as jnp
    >>> params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    >>> tx = make_optimiser(OptimConfig(weight_decay=0.1), 10, {"a": True, "b": False})
    >>> with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
    ...     updates, _ = tx.update(params, tx.init(params), params)
    >>> bool(updates["b"].any())
    False
    """
    rate = make_schedule(cfg.schedule, cfg.learning_rate, total_steps)
    steps: list[optax.GradientTransformation] = []
    if trainable is not None:
        frozen = jax.tree.map(lambda keep: not keep, trainable)
        steps.append(optax.masked(optax.set_to_zero(), frozen))
    if cfg.clip_norm is not None:
        steps.append(optax.clip_by_global_norm(cfg.clip_norm))
    if trainable is None and not cfg.groups:
        return optax.chain(*steps, _single(cfg, rate))
    transforms: dict[Hashable, optax.GradientTransformation] = {
        _FROZEN: optax.set_to_zero(),
        _REST: _single(cfg, rate),
    }
    for i, group in enumerate(cfg.groups):
        own = {
            key: value
            for key, value in dataclasses.asdict(group).items()
            if key != "pattern" and value is not None
        }
        merged = dataclasses.replace(cfg, groups=(), **own)
        own_rate = make_schedule(cfg.schedule, merged.learning_rate, total_steps)
        transforms[f"group{i}"] = _single(merged, own_rate)
    steps.append(optax.partition(transforms, lambda params: _labels(cfg, trainable, params)))
    return optax.chain(*steps)
