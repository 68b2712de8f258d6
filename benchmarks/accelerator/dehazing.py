"""The parts a training step of DEA-Net is made of, by themselves."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.measure import Record
from benchmarks.accelerator.networks import Dtype
from benchmarks.accelerator.ours import Pieces, gradients
from jaxcore import ops
from jaxcore.ops.depthwise import Form

BATCH, SIDE, WIDTH = 16, 256, 32  # of the step that is timed


def dense(record: Record, dtype: Dtype, smoke: bool) -> None:
    """Dense convolutions of each level, and between levels."""
    small, (batch, side, width) = Pieces(record), _sizes(smoke)
    strided, transposed = partial(ops.conv2d, stride=2), ops.conv_transpose2d
    for level in range(3):
        here, pixels = width << level, side >> level
        _both(small, "same size", dtype, ops.conv2d, (batch, pixels), here, here)
        if level:
            half = here // 2
            _both(small, "stride 2", dtype, strided, (batch, 2 * pixels), half, here)
            _both(small, "transposed", dtype, transposed, (batch, pixels), here, half)
            _both(small, "transposed, derived", dtype, _derived, (batch, pixels), here, half)
    _both(small, "first", dtype, ops.conv2d, (batch, side), 3, width)
    _both(small, "last", dtype, ops.conv2d, (batch, side), width, 3)
    small.time()


def attention(record: Record, dtype: Dtype, smoke: bool) -> None:
    """7x7 filters of content-guided attention, on maps that are reflected already."""
    small, (batch, side, width) = Pieces(record), _sizes(smoke)
    plain = partial(ops.conv2d, padding=0)
    for level in (2, 1):
        here, pixels = width << level, (side >> level) + 6
        for form in get_args(Form):
            own: Callable[..., jax.Array] = partial(ops.depthwise_conv, padding=0, form=form)
            _both(small, f"depthwise, {form}", dtype, own, (batch, pixels), here, here, 7)
        for inputs, outputs in ((1, here), (2, 1)):
            _both(small, "dense", dtype, plain, (batch, pixels), inputs, outputs, 7)
            _both(small, "patches", dtype, _patched, (batch, pixels), inputs, outputs, 7)
    small.time()


def _sizes(smoke: bool) -> tuple[int, int, int]:
    return (2, 16, 2) if smoke else (BATCH, SIDE, WIDTH)


def _both(
    small: Pieces,
    name: str,
    dtype: Dtype,
    one: Callable[..., jax.Array],
    images: tuple[int, int],
    inputs: int,
    outputs: int,
    side: int = 3,
) -> None:
    """The value and the gradients of one convolution of images (batch, side)."""
    rng, (batch, pixels) = np.random.default_rng(0), images
    x = jnp.asarray(rng.normal(size=(batch, pixels, pixels, inputs)), dtype)
    wide = (outputs, inputs) if name.startswith("transposed") else (inputs, outputs)
    wide = (1, outputs) if name.startswith("depthwise") else wide
    kernel = jnp.asarray(rng.normal(size=(side, side, *wide)), jnp.float32)
    shape: Any = jax.eval_shape(one, x, kernel)
    g = jnp.ones(shape.shape, shape.dtype)
    row = f"{name}, {side}x{side}, {inputs} to {outputs}, {pixels} px, {dtype}"
    small.add(row, x.nbytes + g.nbytes, None, one, x, kernel)
    slopes = partial(gradients, one)
    small.add(f"{row}, gradients", 2 * x.nbytes + g.nbytes, None, slopes, x, kernel, g)


def _derived(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A transposed convolution that is left to be differentiated as it stands."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1].swapaxes(2, 3).astype(x.dtype),
        (1, 1),
        [(1, 2), (1, 2)],
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _patched(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution without padding, as a product over the patch of every pixel."""
    height, width = (x.shape[1 + i] - kernel.shape[i] + 1 for i in (0, 1))
    views = [
        x[:, i : i + height, j : j + width]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(x.dtype)
    return jnp.concatenate(views, axis=-1) @ flat
