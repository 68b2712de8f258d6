"""Prompts of several branches as one batch, and the loop that contrasts them.

Branch after branch lies on the batch axis, so that each step reads the weights of the network once.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.combine import combiner
from jaxcore.generate import Generated, Sampler, generate, stream
from jaxcore.nn import AttentionEdit
from jaxcore.typing import Key, Params


class Prompt(Protocol):
    """What a branch reads, as of `jaxcore.weights.sight`; b rows of t tokens."""

    @property
    def x(self) -> Any:
        """Tokens (b, t), or embeddings (b, t, d)."""
        ...

    @property
    def valid(self) -> Any:
        """(b, t), False for padding, which is on the left."""
        ...

    @property
    def positions(self) -> Any:
        """None, (b, t) or (3, b, t)."""
        ...


@struct.dataclass
class Text:
    """A `Prompt` of arrays."""

    x: Int[Array, "b t"] | Float[Array, "b t d"]
    valid: Bool[Array, "b t"]
    positions: Int[Array, "*k b t"] | None = None


@struct.dataclass
class Decoder:
    """A network with its parameters.

    Attributes:
      params: of the decoder, ``params["language"]`` of a network that sees.
      cfg: its configuration.
      network: module with ``apply``, ``embed`` and ``init_cache``: `jaxcore.models.llama`.
    """

    params: Params
    cfg: Any = struct.field(pytree_node=False)
    network: Any = struct.field(pytree_node=False)


@struct.dataclass
class Start:
    """Branches that have read their prompts; what the loop of `jaxcore.generate` needs.

    Attributes:
      step: reads one token of every row of every branch.
      cache: of all branches; can be used once.
      logits: of the first new token, (branches * b, v).
      combine: makes one row of scores of the branches' logits.
      branches: how many.
      room: tokens that can be generated at most.
    """

    step: Any
    cache: Any
    logits: Float[Array, "r v"]
    combine: Any
    branches: int = struct.field(pytree_node=False)
    room: int = struct.field(pytree_node=False)

    @property
    def rows(self) -> int:
        """Texts, b."""
        return self.logits.shape[0] // self.branches

    def generate(
        self,
        *,
        keys: Key,
        sampler: Sampler,
        max_new_tokens: int,
        eos: Sequence[int] = (),
        keep: Sequence[Any] = (),
    ) -> Generated:
        """All tokens at once; see `jaxcore.generate.generate`."""
        options: dict[str, Any] = {"keys": keys, "sampler": sampler, "eos": eos, "keep": keep}
        return generate(
            self.step,
            self.cache,
            self.logits,
            max_new_tokens=max_new_tokens,
            combine=self.combine,
            branches=self.branches,
            **options,
        )

    def stream(
        self,
        *,
        keys: Key,
        sampler: Sampler,
        max_new_tokens: int,
        eos: Sequence[int] = (),
        chunk: int = 8,
    ) -> Iterator[Int[np.ndarray, "b _"]]:
        """A few tokens at a time; see `jaxcore.generate.stream`."""
        return stream(
            self.step,
            self.cache,
            self.logits,
            keys=keys,
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            eos=eos,
            combine=self.combine,
            branches=self.branches,
            chunk=chunk,
        )


def start(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    *,
    room: int,
    gammas: Sequence[float] = (),
    epsilon: float = 0.0,
    edit: AttentionEdit | None = None,
    shared_cache: bool = False,
) -> Start:
    """Let all branches read their prompts.

    Args:
      decoder: the network.
      prompts: one per branch, the factual one first, each of the same b rows.
      room: tokens that will be generated at most.
      gammas: strength of the contrast with each branch but the first.
      epsilon: see `plausibility_mask`.
      edit: of the attention; its ``rows`` are those of all branches, one after the other.
      shared_cache: after the prompts all branches go on from what the factual one has read.

    Raises:
      UserError: as many strengths as further branches are needed; rows differ; a shared cache of
        prompts of different lengths; text longer than the network was made for.
    """
    if len(gammas) != len(prompts) - 1:
        raise UserError(
            f"Expected one gamma for each of {len(prompts) - 1} branches, found {len(gammas)}."
        )
    text = stack(decoder, prompts)
    limit, length = decoder.cfg.max_positions, text.x.shape[1]
    if length + room > limit:
        raise UserError(
            f"{decoder.cfg.title} expects at most {limit} tokens, found a prompt of {length}, "
            f"padding counted, and room for {room} more."
        )
    if shared_cache and len({prompt.x.shape[1] for prompt in prompts}) > 1:
        raise UserError("Expected prompts of one length for a shared cache, found several.")
    shared = len(prompts) if shared_cache else 1
    logits, cache = _read(decoder, text, edit, slots=length + room, shared=shared)
    combine = combiner(gammas, epsilon)
    step = Partial(_step(shared), decoder, edit)
    return Start(step, cache, logits, combine, len(prompts), room)


def stack(decoder: Decoder, prompts: Sequence[Prompt]) -> Text:
    """One batch of all branches: padded on the left, and embedded where one of them is.

    Raises:
      UserError: the branches differ in rows.

    >>> from jaxcore.models import llama
    >>> cfg = llama.LlamaConfig.tiny()
    >>> decoder = Decoder(llama.init(jax.random.key(0), cfg), cfg, llama)
    >>> long, short = (Text(jnp.ones((1, n), int), jnp.ones((1, n), bool)) for n in (4, 2))
    >>> stack(decoder, [long, short]).valid.tolist()
    [[True, True, True, True], [False, False, True, True]]
    """
    rows = {prompt.x.shape[0] for prompt in prompts}
    if len(rows) != 1:
        raise UserError(f"Expected the same rows in every branch, found {sorted(rows)}.")
    xs = [jnp.asarray(prompt.x) for prompt in prompts]
    if any(x.ndim == 3 for x in xs):
        embed, params, cfg = decoder.network.embed, decoder.params, decoder.cfg
        xs = [x if x.ndim == 3 else embed(params, x, cfg) for x in xs]
    length = max(x.shape[1] for x in xs)
    valid = [_padded(jnp.asarray(prompt.valid), length, axis=1) for prompt in prompts]
    places = [prompt.positions for prompt in prompts]
    positions = None
    if any(place is not None for place in places):
        kinds = next(np.shape(place)[:-2] for place in places if place is not None)
        found = []
        for place, prompt in zip(places, prompts, strict=True):
            if place is None:
                count = jnp.cumsum(jnp.asarray(prompt.valid), axis=1, dtype=jnp.int32) - 1
                place = jnp.broadcast_to(jnp.maximum(count, 0), (*kinds, *count.shape))
            place = jnp.asarray(place, jnp.int32)
            found.append(_padded(place, length, axis=place.ndim - 1))
        positions = jnp.concatenate(found, axis=len(kinds))
    xs = [_padded(x, length, axis=1) for x in xs]
    return Text(jnp.concatenate(xs), jnp.concatenate(valid), positions)


def _padded(x: Array, length: int, axis: int) -> Array:
    """Zeros in front along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (length - x.shape[axis], 0)
    return jnp.pad(x, widths)


@functools.partial(jax.jit, static_argnames=("slots", "shared"))
def _read(
    decoder: Decoder, text: Text, edit: AttentionEdit | None, *, slots: int, shared: int
) -> tuple[Array, Any]:
    cache = decoder.network.init_cache(decoder.cfg, text.x.shape[0], slots)
    if isinstance(decoder.params["layers"], list):
        cache = cache.unstacked()
    return _applied(decoder, edit, text.x, cache, shared, text)


def _applied(
    decoder: Decoder,
    edit: AttentionEdit | None,
    x: Array,
    cache: Any,
    shared: int,
    text: Text | None = None,
) -> tuple[Array, Any]:
    options: dict[str, Any] = {"cache": cache, "edit": edit, "logits": "last"}
    if text is not None:
        options |= {"valid": text.valid, "positions": text.positions}
    out = decoder.network.apply(decoder.params, x, decoder.cfg, **options)
    cache = out.cache
    if shared > 1:
        rows = cache.rows // shared

        def factual(layers: Any) -> Any:
            own = jax.tree.map(lambda x: x[..., :rows, :, :, :], layers)
            return jax.tree.map(lambda x: jnp.tile(x, (shared, 1, 1, 1)), own)

        cache = cache.replace(keys=factual(cache.keys), values=factual(cache.values))
    return out.logits[:, 0], cache


@functools.cache
def _step(shared: int) -> Callable[..., tuple[Array, Any]]:
    """One function for all that need the same program."""

    def one(
        decoder: Decoder, edit: AttentionEdit | None, tokens: Array, cache: Any
    ) -> tuple[Array, Any]:
        return _applied(decoder, edit, tokens, cache, shared)

    return one
