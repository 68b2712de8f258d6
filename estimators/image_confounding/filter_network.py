"""The network of the paper's simulation: one filter, its largest response in the scene, log-odds.

Trained on all replications of a study at once where memory allows; everything is one program.

Jerzak, Johansson and Daoud (2023), arXiv 2301.12985; sizes are those of the authors' script.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.estimators.image_confounding.simulate import cropped, standardised
from jaxcore.train.recipes.propensity_schedule import simulation
from jaxcore.typing import Key

_EPS, _MOMENTUM = 1e-3, 0.9  # of the batch norms, as in Keras


class Norm(NamedTuple):
    """A batch norm of one channel: learned, and carried."""

    scale: Array
    shift: Array
    mean: Array
    variance: Array


class Weights(NamedTuple):
    """All that the network has."""

    kernel: Float[Array, " q"]
    bias: Float[Array, ""]
    response: Norm  # of the responses
    largest: Norm  # of their largest in each scene


class Fitted(NamedTuple):
    """What a training leaves."""

    weights: Weights
    propensity: Float[Array, " n"]  # in sample
    loss: Float[Array, ""]  # mean over the last tenth of the steps


@functools.partial(jax.jit, static_argnames=("width", "widest"))
def windows(
    images: Float[Array, "n h w"], width: int, widest: int | None = None
) -> Float[Array, "n p q"]:
    """The pixels below a filter at every place: what a convolution multiplies by its weights.

    Args:
      images: one band; they are standardised together.
      width: of the filter.
      widest: widest filter of the study, whose borders are cut off; None takes ``width``.

    >>> windows(jnp.arange(32.0).reshape(2, 4, 4), 2).shape
    (2, 9, 4)
    """
    patches = lax.conv_general_dilated_patches(
        standardised(images)[..., None],
        (width, width),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    every = jax.vmap(functools.partial(cropped, widest=widest or width), in_axes=3, out_axes=3)
    inner = every(patches)
    return inner.reshape(inner.shape[0], -1, width * width)


def log_odds(
    weights: Weights, windows: Float[Array, "b p q"], *, train: bool
) -> tuple[Float[Array, " b"], Weights]:
    """Log-odds of scenes, and the weights with new running statistics."""
    maps = windows @ weights.kernel + weights.bias
    maps, response = _normalised(weights.response, maps, train)
    peaks = ops.global_max(maps[:, None, :, None])[:, 0]
    peaks, largest = _normalised(weights.largest, peaks, train)
    return peaks, weights._replace(response=response, largest=largest)


def _normalised(norm: Norm, x: Array, train: bool) -> tuple[Array, Norm]:
    if train:
        mean, variance = jnp.mean(x), jnp.var(x)
        kept = lax.stop_gradient(
            [
                _MOMENTUM * old + (1 - _MOMENTUM) * new
                for old, new in ((norm.mean, mean), (norm.variance, variance))
            ]
        )
        carried = norm._replace(mean=kept[0], variance=kept[1])
    else:
        mean, variance, carried = norm.mean, norm.variance, norm
    return (x - mean) * lax.rsqrt(variance + _EPS) * norm.scale + norm.shift, carried


def start(key: Key, q: int, dtype: Any = jnp.float32) -> Weights:
    """Fresh weights: Glorot's uniform filter, norms that change nothing."""
    bound = math.sqrt(3 / q)  # q pixels in, q out
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    norm = Norm(one, zero, zero, one)
    return Weights(jax.random.uniform(key, (q,), dtype, -bound, bound), zero, norm, norm)


def fit_filter(
    key: Key,
    windows: Float[Array, "n p q"],
    a: Float[Array, " n"],
    *,
    steps: int = 300,
    batch: int = 30,
    learning_rate: float = 0.01,
) -> Fitted:
    """Train the network on scenes and their treatment; pure, under ``vmap`` over treatments too.

    Nadam, gradients of norm 10 at most, the schedule of the paper's script; batches are drawn
    without replacement.

    Args:
      key: of the start and of the batches.
      windows: of `windows`.
      a: treatment, 0 or 1.
      steps: updates.
      batch: scenes of an update.
      learning_rate: highest rate.

    >>> images = jax.random.uniform(jax.random.key(0), (8, 6, 6))
    >>> seen, a = windows(images, 2), jnp.arange(8.0) % 2
    >>> fit_filter(jax.random.key(1), seen, a, steps=2, batch=4).propensity.shape
    (8,)
    """
    n, _, q = windows.shape
    rate = simulation(learning_rate, steps)
    tx = optax.chain(optax.clip_by_global_norm(10.0), optax.nadam(rate))
    first, order = jax.random.split(key)
    weights = start(first, q, windows.dtype)

    def loss(weights: Weights, seen: Array, a: Array) -> tuple[Array, Weights]:
        logits, carried = log_odds(weights, seen, train=True)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, a)), carried

    def step(held: tuple[Weights, optax.OptState], i: Array) -> tuple[tuple, Array]:
        weights, state = held
        drawn = jax.random.uniform(jax.random.fold_in(order, i), (n,))
        rows = lax.top_k(drawn, min(batch, n))[1]
        (value, carried), slope = jax.value_and_grad(loss, has_aux=True)(
            weights, windows[rows], a[rows]
        )
        updates, state = tx.update(slope, state, weights)
        new: Any = optax.apply_updates(weights, updates)
        running = {
            name: getattr(new, name)._replace(
                mean=getattr(carried, name).mean, variance=getattr(carried, name).variance
            )
            for name in ("response", "largest")
        }
        return (new._replace(**running), state), value

    with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
        (weights, _), losses = lax.scan(step, (weights, tx.init(weights)), jnp.arange(steps))
    logits, _ = log_odds(weights, windows, train=False)
    last = max(1, steps // 10)
    return Fitted(weights, jax.nn.sigmoid(logits), jnp.mean(losses[-last:]))
