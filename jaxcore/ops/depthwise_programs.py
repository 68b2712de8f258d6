"""Programs for GPUs that filter maps channel by channel, in Pallas' Triton dialect.

A program takes a few columns and channels of one image and walks down its rows. It keeps the sums
of the rows that a filter reaches in registers, so that a row is loaded once per column of the
filter, which the first-level cache serves, and asks for the next row before it needs it. Sums are
formed in float32. JAX 0.10 to 0.12 carry this dialect; it is to leave JAX later.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Tile:
    """What one program computes.

    Attributes:
      rows: of the result.
      columns: of the result; a power of two.
      channels: at most; a power of two.
      warps: of 32 threads.
    """

    rows: int = 16
    columns: int = 8
    channels: int = 64
    warps: int = 4


@dataclasses.dataclass(frozen=True)
class Call:
    """One kernel's shapes.

    Attributes:
      shape: of the result (b, h, w, c), channels of joined maps together.
      height: of the images that are read.
      width: of them.
      sides: of the filters.
      pads: zeros around the images that are read.
      tile: what one program computes.
      parts: maps that the channels are made of.
    """

    shape: tuple[int, int, int, int]
    height: int
    width: int
    sides: tuple[int, int]
    pads: tuple[int, int]
    tile: Tile
    parts: int = 1

    @property
    def each(self) -> int:
        """Channels of each map."""
        return self.shape[3] // self.parts

    @property
    def channels(self) -> int:
        """Of a program: the largest power of two that divides a map's, if that is not tiny."""
        whole = math.gcd(self.each, self.tile.channels)
        return whole if whole >= _FEWEST or self.parts > 1 else self.tile.channels

    @property
    def across(self) -> tuple[int, int]:
        """Programs side by side: of columns, and of channels."""
        return -(-self.shape[2] // self.tile.columns), -(-self.shape[3] // self.channels)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns and channels, rows, images."""
        return math.prod(self.across), -(-self.shape[1] // self.tile.rows), self.shape[0]


_FEWEST = 8  # channels that are worth a load of their own
FEW_TAPS = 9  # that registers can hold


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a program stands.

    Attributes:
      image: number.
      row: first one.
      columns: all.
      channels: all, of the joined maps.
      first: the first channel.
      inside: which channels exist; None: all.
    """

    image: Any
    row: Any
    columns: Any
    channels: Any
    first: Any
    inside: Any

    @classmethod
    def of(cls, call: Call, image: Any) -> "Place":
        """Of the running program."""
        from jax.experimental import pallas as pl

        number, parts = pl.program_id(0), call.across[1]
        columns = (number // parts) * call.tile.columns + jnp.arange(call.tile.columns)
        first = (number % parts) * call.channels
        channels = first + jnp.arange(call.channels)
        inside = None if call.shape[3] % call.channels == 0 else channels < call.shape[3]
        return cls(image, pl.program_id(1) * call.tile.rows, columns, channels, first, inside)

    def there(self, depth: int) -> Array:
        """Channels, none beyond the last: numbers that follow each other are loaded together."""
        return self.channels if self.inside is None else jnp.minimum(self.channels, depth - 1)

    def mask(self, columns: Array) -> Array:
        """Of the numbers in those columns."""
        if self.inside is None:
            return jnp.broadcast_to(columns[:, None], columns.shape + self.channels.shape)
        return columns[:, None] & self.inside[None, :]


def _parts(refs: Sequence[Any], call: Call, place: Place) -> list[tuple[Any, Place, Any]]:
    """Each map with the program's place in it, and whether it stands there."""
    if len(refs) == 1:
        return [(refs[0], place, True)]
    here, found = place.first // call.each, []
    for number, ref in enumerate(refs):
        first = jnp.where(here == number, place.first - number * call.each, 0)
        channels = first + jnp.arange(call.channels)
        moved = dataclasses.replace(place, first=first, channels=channels)
        found.append((ref, moved, here == number))
    return found


def _read(
    ref: Any, place: Place, row: Any, shift: int, size: tuple[int, int], on: Any = True
) -> Array:
    """A row's columns in float32; zeros outside of the image. Indices stay inside it."""
    from jax.experimental.pallas import triton as plgpu

    columns = place.columns + shift
    there = (columns >= 0) & (columns < size[1]) & (row >= 0) & (row < size[0]) & on
    row = jnp.clip(row, 0, size[0] - 1)
    columns = jnp.clip(columns, 0, size[1] - 1)[:, None]
    channels = place.there(ref.shape[3])[None, :]
    where = ref.at[place.image, row, columns, channels]
    return plgpu.load(where, mask=place.mask(there), other=0.0).astype(jnp.float32)


def _write(ref: Any, place: Place, row: Any, value: Array, on: Any, call: Call) -> None:
    from jax.experimental.pallas import triton as plgpu

    _, height, width, _ = call.shape
    mask = place.mask((place.columns < width) & (row < height) & on)
    # Not clipped to the image: two would then write one number.
    where = ref.at[
        place.image, jnp.maximum(row, 0), place.columns[:, None], place.channels[None, :]
    ]
    plgpu.store(where, value.astype(ref.dtype), mask=mask)


def _taps(ref: Any, place: Place, sides: tuple[int, int]) -> list[list[Array]]:
    from jax.experimental.pallas import triton as plgpu

    channels = place.there(ref.shape[1])
    rows = [
        [plgpu.load(ref.at[i * sides[1] + j, channels]) for j in range(sides[1])]
        for i in range(sides[0])
    ]
    return [[tap.astype(jnp.float32)[None, :] for tap in row] for row in rows]


_Source = tuple[Any, Callable[[Any, int], Array], Place]  # its filters, a row's columns, where


def _walk(
    call: Call,
    place: Place,
    sources: Sequence[_Source],
    use: Callable[[Any, Any, list[Array]], None],
) -> None:
    """Filter each source, and give ``use`` the results row by row: row, whether it counts, all."""
    high, wide = call.sides
    few = high * wide * len(sources) <= 2 * FEW_TAPS
    held = [_taps(ref, where, call.sides) for ref, _, where in sources] if few else None

    def rows(t: Any) -> list[list[Array]]:
        row = place.row + t - call.pads[0]
        return [[read(row, j - call.pads[1]) for j in range(wide)] for _, read, _ in sources]

    def step(t: Any, carried: Any) -> Any:
        sums, seen = carried
        after = rows(t + 1)  # asked for now, needed in the next step
        taps = held or [_taps(ref, where, call.sides) for ref, _, where in sources]
        done, kept = [], []
        for views, tap, before in zip(seen, taps, sums, strict=True):
            parts = [sum(view * tap[i][j] for j, view in enumerate(views)) for i in range(high)]
            # before[m] belongs to the row m above the last one; m + 1 filter rows are in it.
            now = [parts[0], *(old + new for old, new in zip(before, parts[1:], strict=True))]
            done.append(now[-1])
            kept.append(tuple(now[:-1]))
        use(place.row + t - (high - 1), t >= high - 1, done)
        return tuple(kept), after

    zero = jnp.zeros((call.tile.columns, call.channels), jnp.float32)
    start = tuple((zero,) * (high - 1) for _ in sources), rows(0)
    jax.lax.fori_loop(0, call.tile.rows + high - 1, step, start)


def correlate_program(*refs: Any, call: Call, inputs: int) -> None:
    """``refs``: the maps that are read, the filters, the maps that are written."""
    from jax.experimental import pallas as pl

    place = Place.of(call, pl.program_id(2))
    reads = _parts(refs[:inputs], call, place)
    writes = _parts(refs[inputs + 1 :], call, place)
    size = call.height, call.width

    def read(row: Any, shift: int) -> Array:
        views = [_read(ref, where, row, shift, size, on) for ref, where, on in reads]
        return functools.reduce(jnp.add, views)

    def use(row: Any, shown: Any, values: list[Array]) -> None:
        for ref, where, on in writes:
            _write(ref, where, row, values[0], on & shown, call)

    _walk(call, place, [(refs[inputs], read, place)], use)


def gate_program(x: Any, kernel: Any, *refs: Any, call: Call) -> None:
    """``refs``: the result; or its gradient, those by both filtered maps, and the result."""
    from jax.experimental import pallas as pl

    place = Place.of(call, pl.program_id(2))
    depth, size = call.shape[3], (call.height, call.width)
    second = dataclasses.replace(place, channels=place.channels + depth)
    sources: list[_Source] = [
        (kernel, functools.partial(_read, x, where, size=size), where) for where in (place, second)
    ]

    def use(row: Any, shown: Any, values: list[Array]) -> None:
        a, b = values
        cdf, density = _normal(a)
        if len(refs) == 1:
            _write(refs[0], place, row, a * cdf * b, shown, call)
            return
        g, slopes, out = refs
        seen = _read(g, place, row, 0, call.shape[1:3])
        _write(slopes, place, row, seen * b * (cdf + a * density), shown, call)
        _write(slopes, second, row, seen * a * cdf, shown, call)
        _write(out, place, row, a * cdf * b, shown, call)

    _walk(call, place, sources, use)


def slopes_program(x: Any, *refs: Any, call: Call, group: int) -> None:
    """Sums over the pixels of a program of shifted ``x`` times ``g``, for ``group`` filter rows.

    ``refs``: the parts of ``g``, and the sums.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    wide, rows, groups = call.sides[1], call.tile.rows, call.sides[0] // group
    image, first = pl.program_id(2) // groups, (pl.program_id(2) % groups) * group
    place = Place.of(call, image)
    gradients, out = _parts(refs[:-1], call, place), refs[-1]
    size = call.height, call.width

    def lines_of(t: Any) -> tuple[Array, list[Array]]:
        on = t < rows
        new = functools.reduce(
            jnp.add,
            [
                _read(ref, where, place.row + t, 0, call.shape[1:3], here & on)
                for ref, where, here in gradients
            ],
        )
        row = place.row + t + first - call.pads[0]
        return new, [_read(x, place, row, j - call.pads[1], size) for j in range(wide)]

    def step(t: Any, carried: Any) -> Any:
        sums, before, (new, views) = carried
        after = lines_of(t + 1)  # asked for now, needed in the next step
        lines = (new, *before)
        pairs = [(i, j) for i in range(group) for j in range(wide)]
        sums = tuple(s + views[j] * lines[i] for s, (i, j) in zip(sums, pairs, strict=True))
        return sums, lines[: group - 1], after

    zero = jnp.zeros((call.tile.columns, call.channels), jnp.float32)
    start = ((zero,) * (group * wide), (zero,) * (group - 1), lines_of(0))
    sums, _, _ = jax.lax.fori_loop(0, rows + group - 1, step, start)
    columns, channels = call.across
    part = image * call.grid[1] + pl.program_id(1)
    part = part * columns + pl.program_id(0) // channels
    for n, value in enumerate(sums):
        where = out.at[part, first * wide + n, place.channels]
        plgpu.store(where, jnp.sum(value, axis=0), mask=place.inside)


def _normal(a: Array) -> tuple[Array, Array]:
    """Normal distribution function and density.

    By Abramowitz and Stegun 1964, 7.1.26, right to 1.5e-7: Triton's dialect has no erf.
    """
    bell = jnp.exp(-0.5 * a * a)
    t = 1.0 / (1.0 + 0.3275911 * 2**-0.5 * jnp.abs(a))
    series = 0.0
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + factor) * t
    half = 0.5 * series * bell
    return jnp.where(a < 0, half, 1.0 - half), bell * (2 * np.pi) ** -0.5
