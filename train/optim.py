"""Optimisers built from one frozen config; all but RAdam are those of optax.

Weight decay is decoupled for adamw, nadamw, lion, lamb and muon, and an L2 term added to the
gradient for adam, nadam, radam, adabelief and sgd, as in PyTorch.

Moments are kept and updates computed in at least float32. Parameters of a lower type round every
update to it, which loses small ones: keep ``param_dtype`` float32 and compute in bfloat16
(``dtype``) instead, where memory allows.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import optax

from jaxcore.bounds import Positive
from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.train.groups import (
    FROZEN,
    REST,
    GroupConfig,
    NonNegative,
    OptimName,
    Share,
    assigned,
    decayed,
    labels,
    parameter_path,
    trainable_leaves,
)
from jaxcore.train.radam import radam
from jaxcore.train.schedules import Schedule, ScheduleConfig, make_schedule
from jaxcore.train.state import wide
from jaxcore.typing import Params

__all__ = ["GroupConfig", "OptimConfig", "OptimName", "make_optimiser", "parameter_path"]

_OF_GROUPS = ("pattern", "freeze")  # fields that say which parameters and whether
_RADAM_B2 = 0.6  # below, no average is long enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Serial):
    """One optimiser, or several on disjoint parts of the parameters (``groups``).

    >>> OptimConfig.from_dict(OptimConfig(name="radam").to_dict()).name
    'radam'
    """

    name: OptimName = "adamw"
    learning_rate: Positive = 2e-4  # peak rate
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    betas: tuple[Share, Share] = (0.9, 0.999)  # sgd ignores them
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    decay_all: bool = False  # biases, norms and all else of fewer than two axes decay too
    momentum: Share = 0.9  # sgd, and the matrices of muon
    clip_norm: Positive | None = None  # joint L2 norm over all trained parameters
    # Largest norm of the gradient of a unit over that of its weights (at least 1e-3), Brock et al.
    # 2021. Units are those of optax: outputs of kernels; in stacked layers, a place in all layers.
    clip_adaptive: Positive | None = None
    # own settings by path: 'encoder:lr=1e-5' 'norm|bias:decay=0' 'patch_embed:freeze'
    groups: tuple[GroupConfig, ...] = ()

    def problems(self) -> list[str]:
        """Settings that do not fit each other, of all and of every group."""
        found, schedule = [], self.schedule
        parts: list[tuple[str, OptimConfig | GroupConfig]] = [("", self)]
        parts += [(f"groups.{i}.", g) for i, g in enumerate(self.groups) if not g.freeze]
        for path, part in parts:
            low, high = part.betas or self.betas
            if (part.name or self.name) == "radam" and not (low > 0 and high > _RADAM_B2):
                found.append(
                    f"{path}betas of radam must be above 0 and above {_RADAM_B2}, "
                    f"found {(low, high)}"
                )
            rate = part.learning_rate or self.learning_rate
            if schedule.has_floor and schedule.floor > rate:
                found.append(
                    f"{path}learning_rate must be at least schedule.floor ({schedule.floor}), "
                    f"found {rate}"
                )
        return found

    def of(self, group: GroupConfig) -> "OptimConfig":
        """The settings of a group, with those it inherits.

        >>> OptimConfig(weight_decay=0.1).of(GroupConfig(pattern="a", eps=1e-6)).weight_decay
        0.1
        """
        fields = {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
        own = {name: v for name, v in fields.items() if name not in _OF_GROUPS and v is not None}
        return dataclasses.replace(self, groups=(), **own)

    @classmethod
    def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Older files decay everything that has a decay."""
        groups = data.get("groups")
        parts = [data, *(groups if isinstance(groups, list) else ())]
        decays = any(isinstance(part, dict) and part.get("weight_decay") for part in parts)
        return {"decay_all": True, **data} if decays else data


def _single(cfg: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    b1, b2 = cfg.betas
    decay, mask = cfg.weight_decay, None if cfg.decay_all or not cfg.weight_decay else decayed
    match cfg.name:
        case "adamw":
            return optax.adamw(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay, mask=mask)
        case "nadamw":
            return optax.nadamw(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay, mask=mask)
        case "lion":
            return optax.lion(rate, b1=b1, b2=b2, weight_decay=decay, mask=mask)
        case "lamb":
            return optax.lamb(rate, b1=b1, b2=b2, eps=cfg.eps, weight_decay=decay, mask=mask)
        case "muon" if mask is None:  # matrices by muon, everything else by adamw
            return optax.contrib.muon(
                rate,
                beta=cfg.momentum,
                weight_decay=decay,
                adam_b1=b1,
                adam_b2=b2,
                adam_weight_decay=decay,
            )
        case "muon":  # optax has no mask for the part of adamw
            parts = {True: dataclasses.replace(cfg, decay_all=True)}
            parts[False] = dataclasses.replace(cfg, weight_decay=0.0)
            return optax.partition({key: _single(c, rate) for key, c in parts.items()}, decayed)
        case "adam":
            inner = optax.adam(rate, b1=b1, b2=b2, eps=cfg.eps)
        case "nadam":
            inner = optax.nadam(rate, b1=b1, b2=b2, eps=cfg.eps)
        case "adabelief":  # eps stands inside and outside of the root
            inner = optax.adabelief(rate, b1=b1, b2=b2, eps=cfg.eps, eps_root=cfg.eps)
        case "radam":
            inner = radam(rate, b1=b1, b2=b2, eps=cfg.eps)
        case "sgd":
            inner = optax.sgd(rate, momentum=cfg.momentum or None)
    return optax.chain(optax.add_decayed_weights(decay, mask), inner) if decay else inner


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """``inner``, whose state and updates are at least float32 whatever the parameters are."""

    def init(params: Any) -> Any:
        return inner.init(jax.tree.map(wide, params))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return inner.update(jax.tree.map(wide, updates), state, jax.tree.map(wide, params))

    return optax.GradientTransformation(init, update)


def make_optimiser(
    cfg: OptimConfig, total_steps: int, trainable: Any = None
) -> optax.GradientTransformation:
    """Build the gradient transformation: joint clipping, then one optimiser per group.

    Args:
      cfg: the optimiser.
      total_steps: updates of the whole run (length of the schedule).
      trainable: tree of bools shaped like the parameters. A False leaf, and one that a group
        freezes, gets neither update nor weight decay nor optimiser state, and does not count in
        the clipping norm.

    Returns:
      An optax transformation; its ``update`` needs the parameters. State and updates are at least
      float32.

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
    if trainable is not None or any(group.freeze for group in cfg.groups):

        def frozen(params: Params) -> Any:
            mask = trainable_leaves(cfg.groups, trainable, params)
            return jax.tree.map(lambda keep: not keep, mask)

        steps.append(optax.masked(optax.set_to_zero(), frozen))
    if cfg.clip_norm is not None:
        steps.append(optax.clip_by_global_norm(cfg.clip_norm))
    if cfg.clip_adaptive is not None:
        steps.append(optax.adaptive_grad_clip(cfg.clip_adaptive))
    if trainable is None and not cfg.groups:
        return _in_float32(optax.chain(*steps, _single(cfg, rate)))
    transforms: dict[Hashable, optax.GradientTransformation] = {
        FROZEN: optax.set_to_zero(),
        REST: _single(cfg, rate),
    }
    for i, group in enumerate(cfg.groups):
        if not group.freeze:
            merged = cfg.of(group)
            own_rate = make_schedule(cfg.schedule, merged.learning_rate, total_steps)
            transforms[f"group{i}"] = _single(merged, own_rate)

    def label(params: Params) -> Any:
        found = labels(cfg.groups, trainable, params)
        _refuse_lost_decay(cfg, params)
        return found

    steps.append(optax.partition(transforms, label))
    return _in_float32(optax.chain(*steps))


def _refuse_lost_decay(cfg: OptimConfig, params: Params) -> None:
    """A decay that a group asks for, of leaves alone that have none."""
    if cfg.decay_all:
        return
    names, decays = map(jax.tree.leaves, (assigned(cfg.groups, params), decayed(params)))
    having = {name for name, decay in zip(names, decays, strict=True) if decay}
    for i, group in enumerate(cfg.groups):
        if group.weight_decay and f"group{i}" not in having:
            raise UserError(
                f"Optimiser group pattern {group.pattern!r} asks for a weight decay of "
                f"{group.weight_decay:g}, found only biases, norms and others of fewer than two "
                "axes, which decay with decay_all alone."
            )


def rates(cfg: OptimConfig, total_steps: int) -> dict[str, Callable[[Any], Any]]:
    """Name in the records -> learning rate of an update: of all, and of groups with their own.

    >>> cfg = OptimConfig(groups=(GroupConfig.parse("a:lr=0.5"), GroupConfig.parse("b:freeze")))
    >>> {name: float(rate(0)) for name, rate in rates(cfg, 10).items()}["learning_rate/a"]
    0.5
    """
    own = {f"learning_rate/{g.pattern}": g.learning_rate for g in cfg.groups if g.learning_rate}
    peaks = {"learning_rate": cfg.learning_rate, **own}
    return {name: make_schedule(cfg.schedule, peak, total_steps) for name, peak in peaks.items()}
