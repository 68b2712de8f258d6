"""Depthwise filters by kernels for GPUs: each map is read and written once.

The programs are in `jaxcore.ops.depthwise_programs`. `jaxcore.ops.depthwise` holds the same
computations in plain JAX: they are the reference, and what other devices run. Several maps can lie
side by side in one ("joined"): to split or join them costs no pass over memory here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.ops.depthwise_programs import (
    FEW_TAPS,
    Call,
    Tile,
    correlate_program,
    gate_program,
    slopes_program,
)

# Measured on an H200, in both types.
FILTERS, SLOPES = Tile(), Tile(rows=32, columns=16, channels=32)
GATES = Tile(channels=32)


def _run(
    kernel: Callable[..., None],
    shapes: Sequence[tuple[tuple[int, ...], Any]],
    grid: tuple[int, ...],
    tile: Tile,
    *arrays: Array,
) -> tuple[Array, ...]:
    """Start the programs of a grid; on other devices than GPUs Pallas plays them in plain JAX."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    if 0 in grid:
        return tuple(jnp.zeros(shape, dtype) for shape, dtype in shapes)

    def started(*arrays: Array, played: bool) -> tuple[Array, ...]:
        found: Any = pl.pallas_call(
            kernel,
            out_shape=tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes),
            grid=grid,
            compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=2),
            interpret=played,
        )(*arrays)
        return found

    ways = {played: functools.partial(started, played=played) for played in (True, False)}
    gpu = {"cuda": ways[False], "rocm": ways[False]}
    return jax.lax.platform_dependent(*arrays, **gpu, default=ways[True])


def _flat(kernel: Array, dtype: Any) -> Array:
    return kernel.astype(dtype).reshape(-1, kernel.shape[-1])


def _filtered_shape(x: Array, kernel: Array, pads: tuple[int, int]) -> tuple[int, int, int, int]:
    (b, h, w, _), (high, wide) = x.shape, kernel.shape[:2]
    return b, h + 2 * pads[0] - high + 1, w + 2 * pads[1] - wide + 1, kernel.shape[-1]


_once = functools.partial(jax.jit, static_argnames=("tile",))  # traced, for all calls


@functools.partial(jax.jit, static_argnames=("pads", "parts", "tile"))
def correlate(
    maps: Sequence[Float[Array, "b h w _"]],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    pads: tuple[int, int],
    parts: int = 1,
    tile: Tile = FILTERS,
) -> tuple[Float[Array, "b h2 w2 _"], ...]:
    """Depthwise cross-correlation with zero padding.

    Args:
      maps: equally wide, whose channels follow each other.
      kernel: filters of all of their channels.
      pads: zeros above and below, left and right.
      parts: equally wide results, whose channels follow each other.
      tile: what one program computes.
    """
    x, shape = maps[0], _filtered_shape(maps[0], kernel, pads)
    most = max(parts, len(maps))
    call = Call(shape, x.shape[1], x.shape[2], _sides(kernel), pads, tile, most)
    run = functools.partial(correlate_program, call=call, inputs=len(maps))
    shapes = [((*shape[:3], shape[3] // parts), x.dtype)] * parts
    return _run(run, shapes, call.grid, tile, *maps, _flat(kernel, x.dtype))


@functools.partial(jax.jit, static_argnames=("pads", "tile"))
def kernel_gradient(
    x: Float[Array, "b h w c"],
    gradients: Sequence[Float[Array, "b h2 w2 _"]],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    pads: tuple[int, int],
    tile: Tile = SLOPES,
) -> Float[Array, "kh kw 1 c"]:
    """The gradient of `correlate`, of one joined map, by its kernel.

    Args:
      x: the map.
      gradients: by the results.
      kernel: the filters; only their shape and type count.
      pads: as there.
      tile: what one program computes.
    """
    (high, wide), parts = kernel.shape[:2], len(gradients)
    group = high if high * wide <= FEW_TAPS else 1
    b, h, w, _ = gradients[0].shape
    shape = (b, h, w, x.shape[3])
    call = Call(shape, x.shape[1], x.shape[2], (high, wide), pads, tile, parts)
    across, down, images = call.grid
    run = functools.partial(slopes_program, call=call, group=group)
    count = images * down * call.across[0]
    grid = (across, down, images * (high // group))
    shapes = [((count, high * wide, shape[3]), jnp.float32)]
    sums = _run(run, shapes, grid, tile, x, *gradients)[0]
    return jnp.sum(sums, axis=0).reshape(kernel.shape).astype(kernel.dtype)


def gradients(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    by_results: Sequence[Float[Array, "b h2 w2 _"]],
    *,
    pads: tuple[int, int],
) -> tuple[Float[Array, "b h w c"], Float[Array, "kh kw 1 c"]]:
    """Both gradients of `correlate`, of one joined map, given those by its results."""
    around = (kernel.shape[0] - 1 - pads[0], kernel.shape[1] - 1 - pads[1])
    back = correlate(by_results, kernel[::-1, ::-1], pads=around)[0]
    return back, kernel_gradient(x, by_results, kernel, pads=pads)


@_once
def gated(
    x: Float[Array, "b h w 2c"],
    kernel: Float[Array, "kh kw 1 2c"],
    *,
    tile: Tile = GATES,
) -> Float[Array, "b h w c"]:
    """``gelu(a) * b`` of the two halves of the filtered ``x``, which are not written."""
    call = _gate_call(x, kernel, tile)
    run = functools.partial(gate_program, call=call)
    flat = _flat(kernel, x.dtype)
    return _run(run, [(call.shape, x.dtype)], call.grid, tile, x, flat)[0]


@_once
def gate_gradients(
    x: Float[Array, "b h w 2c"],
    kernel: Float[Array, "kh kw 1 2c"],
    g: Float[Array, "b h w c"],
    *,
    tile: Tile = GATES,
) -> tuple[Float[Array, "b h w 2c"], Float[Array, "b h w c"]]:
    """The gradient of `gated` by the filtered map, which is computed once more, and its value."""
    call = _gate_call(x, kernel, tile)
    run = functools.partial(gate_program, call=call)
    shapes = [(x.shape, x.dtype), (call.shape, x.dtype)]
    slopes, out = _run(run, shapes, call.grid, tile, x, _flat(kernel, x.dtype), g)
    return slopes, out


def _gate_call(x: Array, kernel: Array, tile: Tile) -> Call:
    pads = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2)
    return Call(shape, x.shape[1], x.shape[2], _sides(kernel), pads, tile)


def _sides(kernel: Array) -> tuple[int, int]:
    return kernel.shape[0], kernel.shape[1]
