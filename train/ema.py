"""Exponential moving average of the parameters as pure functions of the update number."""

import dataclasses
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcore.bounds import AtLeast, Below, Count, Index, Positive
from jaxcore.serial import Serial
from jaxcore.typing import Params

Warmup: TypeAlias = Literal["none", "debias", "ratio", "power"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMAConfig(Serial):
    """Decay of the average at call ``n = 0, 1, 2, ...`` (one call after every applied update).

    ``warmup`` gives the decay of early calls, never above ``decay``; with ``m = n - copy_until``
    (``m = n`` when nothing is copied):

    * ``"none"``: ``decay`` from the start; the average starts at the initial parameters.
    * ``"debias"``: the decay that makes the average equal to one started at zero and divided by
      ``1 - decay^(m+1)`` (Adam's bias correction); the initial parameters leave no trace.
    * ``"ratio"``: ``(1 + m) / (10 + m)``.
    * ``"power"``: ``1 - (1 + m / inv_gamma)^(-power)``.
    """

    decay: Annotated[float, AtLeast(0), Below(1)] = 0.999
    warmup: Warmup = "none"
    every: Count = 1  # average only at calls divisible by this
    copy_until: Index | None = None  # calls up to this one, and the next, copy the parameters
    inv_gamma: Positive = 1.0
    power: Positive = 2.0 / 3.0

    @classmethod
    def rddm(cls) -> "EMAConfig":
        """RDDM (Liu et al., CVPR 2024): every 10 calls, after 100, decay up to 0.995.

        >>> EMAConfig.rddm().copy_until
        100
        """
        return cls(decay=0.995, warmup="power", every=10, copy_until=100)


def ema_decay(cfg: EMAConfig, n: ArrayLike) -> jax.Array:
    """Decay that call ``n`` uses if it averages: 0 copies the parameters.

    >>> float(ema_decay(EMAConfig(decay=0.9), 0)), float(ema_decay(EMAConfig.rddm(), 100))
    (0.8999999761581421, 0.0)
    """
    n = jnp.asarray(n)
    m = (n - (cfg.copy_until or 0)).astype(float)
    m = jnp.maximum(m, 0.0)  # calls before are copies; keeps the powers finite there
    match cfg.warmup:
        case "none":
            early = jnp.full_like(m, cfg.decay)
        case "debias":
            power = cfg.decay ** (m + 1.0)
            early = (cfg.decay - power) / (1.0 - power)
        case "ratio":
            early = (1.0 + m) / (10.0 + m)
        case "power":
            early = 1.0 - (1.0 + m / cfg.inv_gamma) ** -cfg.power
    decay = jnp.minimum(early, cfg.decay)
    if cfg.copy_until is None:
        return decay
    return jnp.where(n <= cfg.copy_until + cfg.every, 0.0, decay)


def ema_update(cfg: EMAConfig, average: Params, params: Params, n: ArrayLike) -> Params:
    """The average after call ``n``.

    Args:
      cfg: how to average.
      average: the average before the call, whose types the new one has: at least float32 (see
        `jaxcore.train.state.start_average`), or small steps are lost.
      params: the parameters after the update, of any float types.
      n: number of the call, from 0; may be traced.

    >>> import jax.numpy as jnp
    >>> cfg = EMAConfig(decay=0.5)
    >>> ema_update(cfg, {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, 0)["w"].tolist()
    [0.5]
    """
    decay = ema_decay(cfg, n)

    def mix(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return new
        d = decay.astype(old.dtype)
        return old * d + new.astype(old.dtype) * (1 - d)

    def act(_: None) -> Params:
        return jax.tree.map(mix, average, params)

    if cfg.every == 1:
        return act(None)
    return jax.lax.cond(jnp.asarray(n) % cfg.every == 0, act, lambda _: average, None)
