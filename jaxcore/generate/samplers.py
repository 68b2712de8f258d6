"""From logits to the next token."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxcore.bounds import Above, AtLeast, AtMost, Index
from jaxcore.serial import Serial
from jaxcore.typing import Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler(Serial):
    """Draws one token for each row, from that row's logits and key alone.

    Logits are divided by ``temperature``, then all but the ``top_k`` largest are left out, then
    all that are not needed for ``top_p`` of the probability. Logits of minus infinity are never
    drawn. Another temperature or ``top_p`` needs no other program, unless it becomes 0 or 1.

    Attributes:
      temperature: 0 takes the largest logit, the first one of equals.
      top_k: 0 for all.
      top_p: 1 for all.
      banned: tokens that are left out before all else, such as padding.

    >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> Sampler(temperature=0)(logits, keys).tolist()
    [1]
    """

    temperature: Annotated[float, AtLeast(0)] = 1.0
    top_k: Index = 0
    top_p: Annotated[float, Above(0), AtMost(1)] = 1.0
    banned: tuple[Index, ...] = ()

    def function(self) -> Partial:
        """The same as a pytree, whose leaves are the numbers."""
        return Partial(_largest if self.temperature == 0 else _drawn, self.shaping())

    def shaping(self) -> Partial:
        """Logits (b, v) to those that are drawn from, as a pytree; -inf where nothing is drawn."""
        rule = _shape(self.temperature == 0, self.top_k, self.top_p < 1)
        banned = jnp.asarray(np.asarray(self.banned, np.int32))
        return Partial(rule, jnp.float32(self.temperature), jnp.float32(self.top_p), banned)

    def __call__(self, logits: Float[Array, "b v"], keys: Key) -> Int[Array, " b"]:
        """Tokens of rows of logits, each by its own key."""
        return self.function()(logits, keys)


GREEDY = Sampler(temperature=0)


def shaped_logits(
    logits: Float[Array, "*b v"], temperature: Array, top_p: Array, *, top_k: int, nucleus: bool
) -> Float[Array, "*b v"]:
    """Logits of what a `Sampler` draws from; minus infinity where it never does.

    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    >>> one, p = jnp.float32(1.0), jnp.float32(0.6)
    >>> jnp.isfinite(shaped_logits(logits, one, p, top_k=0, nucleus=True)).tolist()
    [True, True, False]
    """
    logits = logits.astype(jnp.float32) / temperature
    count = logits.shape[-1]
    if 0 < top_k < count:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if nucleus:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        chances = jax.nn.softmax(ordered, axis=-1)
        # A token is needed where those before it do not reach top_p; the first one always is.
        needed = jnp.cumsum(chances, axis=-1) - chances < top_p
        least = jnp.min(jnp.where(needed, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


@functools.cache
def _shape(greedy: bool, top_k: int, nucleus: bool) -> Callable[..., Array]:
    """One function for all samplers that need the same program."""

    def shape(temperature: Array, top_p: Array, banned: Array, logits: Array) -> Array:
        if banned.size:
            logits = logits.at[:, banned].set(-jnp.inf, mode="drop")
        if greedy:
            best = jnp.argmax(logits, axis=-1, keepdims=True)
            places = jnp.arange(logits.shape[-1])[None]
            return jnp.where(places == best, 0.0, -jnp.inf)
        return shaped_logits(logits, temperature, top_p, top_k=top_k, nucleus=nucleus)

    return shape


def _drawn(shaping: Callable[[Array], Array], logits: Array, keys: Key) -> Array:
    return jax.vmap(jax.random.categorical)(keys, shaping(logits)).astype(jnp.int32)


def _largest(shaping: Callable[[Array], Array], logits: Array, keys: Key) -> Array:
    return jnp.argmax(shaping(logits), axis=-1).astype(jnp.int32)
