"""Token after token in one compiled loop, for a batch, and for several branches of it."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.generate.cache import Cache
from jaxcore.generate.samplers import Sampler
from jaxcore.typing import Key

Step: TypeAlias = Callable[[Array, Any], tuple[Array, Any]]
"""``step(tokens (r, 1), cache) -> (logits (r, v), cache)``; see :func:`generate`."""

Kept: TypeAlias = Literal["logits", "scores", "logps", "drawn_logps"]
"""What can be kept of every step: logits of all branches, what the sampler got, and of the token
its log-probability by the latter, and by what a `Sampler` left of them (0 behind a row's end)."""


@flax.struct.dataclass
class Generated:
    """What has been generated.

    Attributes:
      tokens: of each row; behind its end, the first end token (0 if there is none).
      lengths: tokens of each row that count, its end token included.
      kept: of every step, what was asked for: "logits" (n, branches, b, v), "scores" (n, b, v),
        "logps" and "drawn_logps" (n, b), float32.
    """

    tokens: Int[Array, "b n"]
    lengths: Int[Array, " b"]
    kept: dict[str, Array]


@flax.struct.dataclass
class _State:
    """Where a generation stands: token ``count - 1`` is drawn, and not yet read by the network."""

    tokens: Int[Array, "b n"]
    lengths: Int[Array, " b"]
    ended: Bool[Array, " b"]
    count: Int[Array, ""]
    kept: dict[str, Array]


@flax.struct.dataclass
class _Rules:
    """What does not change from step to step."""

    step: Step
    keys: Key
    sampler: Callable[[Array, Key], Array]
    combine: Callable[[Array], Array] | None
    eos: Int[Array, " e"]
    shaping: Callable[[Array], Array] | None = None  # of a `Sampler`, where it is asked for


def generate(
    step: Step,
    cache: Any,
    logits: Float[Array, "r v"],
    *,
    keys: Key,
    sampler: Sampler | Callable[[Array, Key], Array],
    max_new_tokens: int,
    eos: Sequence[int] = (),
    combine: Callable[[Float[Array, "branches b v"]], Float[Array, "b v"]] | None = None,
    branches: int = 1,
    keep: Sequence[Kept] = (),
) -> Generated:
    """Generate until every row has ended, or has ``max_new_tokens``.

    A row's tokens depend on its key and its prompt, not on the size of the batch, its neighbours or
    its padding (but for the last bits of logits, that the size of a product can change).

    Functions that hold arrays should be ``jax.tree_util.Partial(function, arrays)``, as
    ``llama.step(params, cfg)`` is: then arrays are arguments of the compiled program, which is
    compiled once for each function and shape.

    Args:
      step: reads the last token of ``r = branches * b`` rows.
      cache: of the prompts; given away, as the loop changes it in place.
      logits: of the token after each prompt.
      keys: one typed key for each of the b rows.
      sampler: draws tokens from (b, v) and b keys.
      max_new_tokens: of each row, at least 1.
      eos: tokens that end a row.
      combine: scores for the sampler from the logits of several branches of each row, which get
        the same tokens.
      branches: they lie one after the other on the batch axis.
      keep: see `Generated`.

    Raises:
      UserError: shapes or numbers do not fit; the cache has no room.

    >>> def count_up(tokens, cache):
    ...     return jax.nn.one_hot(tokens[:, 0] + 1, 6), cache
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> first = jax.nn.one_hot(jnp.array([1, 3]), 6)
    >>> options = {"keys": keys, "sampler": Sampler(temperature=0), "eos": [4]}
    >>> found = generate(count_up, None, first, max_new_tokens=3, **options)
    >>> found.tokens.tolist(), found.lengths.tolist()
    ([[1, 2, 3], [3, 4, 4]], [3, 2])
    """
    _check(cache, logits, keys, max_new_tokens, combine, branches, keep)
    shaping = _shaping(sampler) if "drawn_logps" in keep else None
    rules = _Rules(*_trees(step, keys, sampler, combine), _ends(eos), shaping)
    sizes = {"new": max_new_tokens, "branches": branches, "keep": tuple(keep)}
    state = _begin(rules, logits, **sizes)
    state, _ = _advance(rules, state, cache, max_new_tokens, branches=branches)
    return Generated(state.tokens, state.lengths, state.kept)


def stream(
    step: Step,
    cache: Any,
    logits: Float[Array, "r v"],
    *,
    keys: Key,
    sampler: Sampler | Callable[[Array, Key], Array],
    max_new_tokens: int,
    eos: Sequence[int] = (),
    combine: Callable[[Float[Array, "branches b v"]], Float[Array, "b v"]] | None = None,
    branches: int = 1,
    chunk: int = 8,
) -> Iterator[Int[np.ndarray, "b _"]]:
    """The same tokens as :func:`generate`, by the same program, a few at a time on the host.

    The first token comes alone, then ``chunk`` after ``chunk``. What follows a row's end is to be
    left out by the reader.

    Args:
      step: see :func:`generate`, like all that follow.
      cache: likewise.
      logits: likewise.
      keys: likewise.
      sampler: likewise.
      max_new_tokens: likewise.
      eos: likewise.
      combine: likewise.
      branches: likewise.
      chunk: tokens at a time.

    >>> def count_up(tokens, cache):
    ...     return jax.nn.one_hot(tokens[:, 0] + 1, 9), cache
    >>> options = {"keys": jax.random.split(jax.random.key(0), 1), "sampler": Sampler()}
    >>> options |= {"max_new_tokens": 5, "chunk": 3, "sampler": Sampler(temperature=0)}
    >>> [part.tolist() for part in stream(count_up, None, jnp.eye(9)[:1], **options)]
    [[[0]], [[1, 2, 3]], [[4]]]
    """
    _check(cache, logits, keys, max_new_tokens, combine, branches, ())
    rules = _Rules(*_trees(step, keys, sampler, combine), _ends(eos))
    state = _begin(rules, logits, new=max_new_tokens, branches=branches, keep=())
    done = 0
    while True:
        there = int(state.count)
        yield np.asarray(state.tokens)[:, done:there]
        done = there
        if done >= max_new_tokens or bool(jnp.all(state.ended)):
            return
        until = min(done + chunk, max_new_tokens)
        state, cache = _advance(rules, state, cache, until, branches=branches)


@functools.partial(jax.jit, static_argnames=("new", "branches", "keep"))
def _begin(
    rules: _Rules, logits: Array, *, new: int, branches: int, keep: tuple[Kept, ...]
) -> _State:
    """The first token, from the logits of the prompts."""
    rows, size = logits.shape[0] // branches, logits.shape[1]
    shapes = {"logits": (new, branches, rows, size), "scores": (new, rows, size)}
    types = {name: logits.dtype for name in shapes}
    shapes |= {"logps": (new, rows), "drawn_logps": (new, rows)}
    fill = rules.eos[0] if rules.eos.size else jnp.int32(0)
    state = _State(
        tokens=jnp.full((rows, new), fill, jnp.int32),
        lengths=jnp.zeros((rows,), jnp.int32),
        ended=jnp.zeros((rows,), bool),
        count=jnp.int32(0),
        kept={name: jnp.zeros(shapes[name], types.get(name, jnp.float32)) for name in keep},
    )
    return _drawn(rules, state, logits, branches)


@functools.partial(jax.jit, static_argnames=("branches",), donate_argnames=("state", "cache"))
def _advance(
    rules: _Rules, state: _State, cache: Any, until: Int[Array, ""] | int, *, branches: int
) -> tuple[_State, Any]:
    """Tokens up to number ``until``, or the end of all rows."""

    def going(carried: tuple[_State, Any]) -> Array:
        state, _ = carried
        return (state.count < until) & ~jnp.all(state.ended)

    def body(carried: tuple[_State, Any]) -> tuple[_State, Any]:
        state, cache = carried
        last = jax.lax.dynamic_index_in_dim(state.tokens, state.count - 1, 1)
        logits, cache = rules.step(jnp.tile(last, (branches, 1)), cache)
        return _drawn(rules, state, logits, branches), cache

    return jax.lax.while_loop(going, body, (state, cache))


def _drawn(rules: _Rules, state: _State, logits: Array, branches: int) -> _State:
    """One more token of every row that has not ended."""
    parts = logits.reshape(branches, -1, logits.shape[-1])
    scores = parts[0] if rules.combine is None else rules.combine(parts)
    keys = jax.vmap(jax.random.fold_in, (0, None))(rules.keys, state.count)
    token = rules.sampler(scores, keys)
    old = jax.lax.dynamic_index_in_dim(state.tokens, state.count, 1, False)
    token = jnp.where(state.ended, old, token.astype(jnp.int32))
    found = {"logits": parts, "scores": scores}
    if "logps" in state.kept:
        found["logps"] = jnp.where(state.ended, 0, _logps(scores, token))
    if rules.shaping is not None:
        found["drawn_logps"] = jnp.where(state.ended, 0, _logps(rules.shaping(scores), token))
    put = jax.lax.dynamic_update_index_in_dim
    return _State(
        tokens=put(state.tokens, token, state.count, 1),
        lengths=jnp.where(state.ended, state.lengths, state.count + 1),
        ended=state.ended | jnp.any(token[:, None] == rules.eos[None], axis=1),
        count=state.count + 1,
        kept={name: put(old, found[name], state.count, 0) for name, old in state.kept.items()},
    )


def _logps(scores: Float[Array, "b v"], token: Int[Array, " b"]) -> Float[Array, " b"]:
    """Log-probability of one token of each row."""
    scores = scores.astype(jnp.float32)
    chosen = jnp.take_along_axis(scores, token[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(scores, axis=1)


def _shaping(sampler: Any) -> Callable[[Array], Array]:
    if not isinstance(sampler, Sampler):
        raise UserError(
            "Expected a Sampler to keep the log-probabilities that it draws by, found another "
            "function."
        )
    return sampler.shaping()


def _trees(
    step: Step, keys: Key, sampler: Any, combine: Any
) -> tuple[Callable[..., Any], Key, Callable[..., Any], Callable[..., Any] | None]:
    """Functions as pytrees, so that compiled functions take them as arguments."""
    drawn = sampler.function() if isinstance(sampler, Sampler) else _tree(sampler)
    return _tree(step), keys, drawn, None if combine is None else _tree(combine)


def _tree(function: Any) -> Any:
    return Partial(function) if jax.tree_util.all_leaves([function]) else function


def _ends(eos: Sequence[int]) -> Int[Array, " e"]:
    return jnp.asarray(np.asarray(list(eos), np.int32).reshape(-1))


def _check(
    cache: Any,
    logits: Array,
    keys: Key,
    max_new_tokens: int,
    combine: Any,
    branches: int,
    keep: Sequence[str],
) -> None:
    if max_new_tokens < 1:
        raise UserError(f"Expected at least 1 new token, found max_new_tokens={max_new_tokens}.")
    if branches < 1 or (branches > 1 and combine is None):
        raise UserError(
            f"Expected a function to combine {branches} branches, or a single one, found none."
        )
    if logits.ndim != 2 or logits.shape[0] % branches:
        raise UserError(
            f"Expected logits (branches * rows, vocabulary) of {branches} branch(es), found shape "
            f"{tuple(logits.shape)}."
        )
    rows = logits.shape[0] // branches
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (rows,):
        raise UserError(
            f"Expected one typed random key for each of {rows} row(s), as of jax.random.split, "
            f"found shape {tuple(keys.shape)} of {keys.dtype}."
        )
    if unknown := set(keep) - set(get_args(Kept)):
        raise UserError(
            f"Expected {', '.join(get_args(Kept))} to keep, found {', '.join(sorted(unknown))}."
        )
    if isinstance(cache, Cache) and not isinstance(cache.length, Tracer):
        used = int(cache.length)
        if used + max_new_tokens - 1 > cache.slots:
            raise UserError(
                f"Expected room for {used} tokens and {max_new_tokens} new ones, found a cache of "
                f"{cache.slots} slots."
            )
