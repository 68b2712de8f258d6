"""Degradations made on the fly from clean 8-bit images, in NumPy, with explicit randomness.

Every entry of `DEGRADATIONS` is a function of a clean uint8 image and a random generator alone.
The protocol's noise truncates to uint8; all others round. Restoration papers take rain, motion
blur and low light from files: the models here are for training where no such files are at hand,
and networks trained on them are not comparable with published figures.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from jaxcore.data.images.crops import eight_bits
from jaxcore.data.images.looks import any_look, colour_or_grey_look, is_grey
from jaxcore.errors import UserError

LEGACY_SIGMAS = (15, 25, 50)  # order of the official evaluation, grey levels
GAMMA = 2.2  # of the display: linear light = (pixel / 255) ** GAMMA
BLUR_RADIUS = 13  # of the motion blur kernel, pixels
NOISE_ANY = 55  # largest sigma of noise of any strength, grey levels
_STREAK = 45  # longest rain streak, pixels


def gaussian_noise(
    clean: UInt8[np.ndarray, "h w c"], sigma: float, noise: Float[np.ndarray, "h w c"]
) -> UInt8[np.ndarray, "h w c"]:
    """Noise of the restoration protocol: clipped and truncated (not rounded) to uint8.

    Args:
      clean: image.
      sigma: standard deviation in grey levels.
      noise: standard normal draws.

    >>> gaussian_noise(np.full((1, 1, 1), 10, np.uint8), 1.0, np.full((1, 1, 1), 0.9)).item()
    10
    """
    return np.clip(clean + sigma * noise, 0, 255).astype(np.uint8)


def legacy_noise(
    shapes: Sequence[tuple[int, ...]], sigma: int
) -> Iterator[Float[np.ndarray, "h w c"]]:
    """Normal draws of the official tester for each image, in order.

    One legacy stream, seeded 0, runs through all images at sigma 15, then 25, then 50. The
    official image order is that of the directory and so differs between machines; here it is
    the order of ``shapes``.

    Args:
      shapes: of all images of the set, after the crop to multiples of 16.
      sigma: one of ``LEGACY_SIGMAS``.

    >>> first, second = legacy_noise([(2, 2, 3), (1, 1, 3)], 25)
    >>> second.shape
    (1, 1, 3)
    """
    stream = np.random.RandomState(0)
    for _ in LEGACY_SIGMAS[: LEGACY_SIGMAS.index(sigma)]:
        for shape in shapes:
            stream.randn(*shape)
    for shape in shapes:
        yield stream.randn(*shape)


def haze(
    clean: Float[np.ndarray, "h w c"],
    depth: Float[np.ndarray, "h w"],
    beta: float,
    airlight: float | Float[np.ndarray, "*c"],
) -> Float[np.ndarray, "h w c"]:
    """Haze model ``I = J t + A (1 - t)`` with ``t = exp(-beta depth)``.

    Args:
      clean: image in [0, 1].
      depth: distance in units of ``1 / beta``, at least 0.
      beta: scattering coefficient.
      airlight: A, in [0, 1], for all channels or each.

    >>> haze(np.zeros((1, 1, 1)), np.zeros((1, 1)), 1.0, 0.9).item()
    0.0
    """
    t = np.exp(-beta * depth)[..., None]
    return clean * t + airlight * (1 - t)


def smooth_depth(height: int, width: int, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """A random smooth depth in [0.2, 1.2]: a coarse 3x3 field enlarged bilinearly.

    >>> smooth_depth(8, 6, np.random.default_rng(0)).shape
    (8, 6)
    """
    rows, columns = (
        np.maximum(1 - np.abs(np.linspace(0, 2, side)[:, None] - np.arange(3)), 0)
        for side in (height, width)
    )
    return 0.2 + rows @ rng.random((3, 3)) @ columns.T


def random_haze(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """`haze` with a `smooth_depth`, beta in [0.6, 1.8] and grey airlight in [0.7, 1.0].

    The ranges are those of the indoor part of RESIDE (Li et al., IEEE TIP 2019).

    >>> black = np.zeros((4, 4, 3), np.uint8)
    >>> bool((random_haze(black, np.random.default_rng(0)) > 0).all())
    True
    """
    depth = smooth_depth(clean.shape[0], clean.shape[1], rng)
    hazy = haze(clean / 255, depth, rng.uniform(0.6, 1.8), rng.uniform(0.7, 1.0))
    return _to_uint8(hazy)


def noise_any(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """Noise of the protocol with sigma drawn from [0, 55].

    >>> grey = np.full((8, 8, 3), 90, np.uint8)
    >>> bool((noise_any(grey, np.random.default_rng(0)) != grey).any())
    True
    """
    sigma = rng.uniform(0, NOISE_ANY)
    return gaussian_noise(clean, sigma, rng.standard_normal(clean.shape, np.float32))


def haze_any(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """`haze` with a `smooth_depth`, beta in [0.4, 2.2] and an airlight in [0.65, 1.0].

    Half of the airlights have a tint of up to 0.12. Grey pictures stay as they are: nothing in
    them tells fog from low contrast.

    >>> grey = np.full((8, 8, 3), 90, np.uint8)
    >>> bool((haze_any(grey, np.random.default_rng(0)) == grey).all())
    True
    """
    depth = smooth_depth(clean.shape[0], clean.shape[1], rng).astype(np.float32)
    beta, airlight = rng.uniform(0.4, 2.2), rng.uniform(0.65, 1.0)
    tint = rng.uniform(0, 0.12, 3) * (rng.random() < 0.5)
    if is_grey(clean):
        return clean
    colour = (airlight * (1 - tint)).astype(np.float32)
    return _to_uint8(haze(clean / np.float32(255), depth, beta, colour))


def rain(clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w c"]:
    """Bright streaks added to the image: ``I = min(J + S, 1)``.

    A falling drop is a streak during the exposure and brighter than what is behind it, since it
    collects the light of a wide field of view (Garg and Nayar, IJCV 2007). The direction (within
    30 degrees of the vertical, 2 degrees of scatter), the mean length (10 to 30 pixels) and the
    density (1 to 4 per 1,000 pixels) belong to the image; length (0.5 to 1.5 times) and
    brightness (0.1 to 0.5 of white) to the streak.

    >>> grey = np.full((32, 32, 3), 90, np.uint8)
    >>> rainy = rain(grey, np.random.default_rng(0))
    >>> bool((rainy >= grey).all() and (rainy > grey).any())
    True
    """
    height, width = clean.shape[:2]
    tilt, length = np.radians(rng.uniform(-30, 30)), rng.uniform(10, 30)
    edge = _STREAK // 2 + 1  # streaks whose centres lie outside reach in
    area = (height + 2 * edge) * (width + 2 * edge)
    count = rng.poisson(rng.uniform(1e-3, 4e-3) * area)
    centre_rows = rng.uniform(-edge, height + edge, (count, 1))
    centre_columns = rng.uniform(-edge, width + edge, (count, 1))
    halves = length * rng.uniform(0.5, 1.5, (count, 1)) / 2
    tilts = tilt + rng.normal(0, np.radians(2), (count, 1))
    brightness = rng.uniform(0.1, 0.5, (count, 1))
    along = np.arange(-_STREAK / 2, _STREAK / 2, 0.5)
    weights = 0.5 * brightness * (np.abs(along) <= halves)
    rows = centre_rows + along * np.cos(tilts)
    columns = centre_columns + along * np.sin(tilts)
    streaks = _splat(rows.ravel(), columns.ravel(), weights.ravel(), height, width)
    return _to_uint8(np.minimum(clean / 255 + streaks[..., None], 1))


def motion_blur(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """Mean of the scene in linear light along a path of the camera during the exposure.

    The path is a circular arc, 5 to 24 pixels long, that turns by up to 90 degrees in all; its
    mean is the origin, so the blurred image does not shift. The scene is averaged in linear light
    with display gamma 2.2, as for the GoPro set (Nah et al., CVPR 2017), and mirrored at the
    border.

    >>> grey = np.full((8, 8, 3), 90, np.uint8)
    >>> bool((motion_blur(grey, np.random.default_rng(0)) == 90).all())
    True
    """
    kernel = _motion_kernel(rng)
    radius, (height, width) = BLUR_RADIUS, clean.shape[:2]
    linear = _LINEAR[np.pad(clean, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")]
    total = np.zeros(clean.shape, np.float32)
    for i, j in np.argwhere(kernel):  # few of the cells lie on the path
        total += kernel[i, j] * linear[i : i + height, j : j + width]
    return _to_uint8(np.clip(total, 0, 1) ** (1 / GAMMA))


def low_light(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """A short exposure: less light, with the noise of a sensor.

    In linear light (gamma 2.2) the exposure is 0.01 to 0.25 of the right one; the sensor counts
    photo-electrons (Poisson; 5,000 to 50,000 for white at the right exposure) and adds Gaussian
    read noise of 1 to 5 electrons: the linear model of camera characterisation (EMVA 1288).
    Exposure and full well are drawn uniformly in their logarithm.

    >>> grey = np.full((8, 8, 3), 200, np.uint8)
    >>> bool(low_light(grey, np.random.default_rng(0)).mean() < 120)
    True
    """
    exposure = np.exp(rng.uniform(np.log(0.01), np.log(0.25)))
    full_well = np.exp(rng.uniform(np.log(5e3), np.log(5e4)))
    read_noise = rng.uniform(1, 5)
    electrons = rng.poisson(exposure * full_well * _LINEAR[clean].astype(np.float64))
    signal = (electrons + read_noise * rng.standard_normal(clean.shape)) / full_well
    return _to_uint8(np.clip(signal, 0, 1) ** (1 / GAMMA))


def centre_box(
    clean: UInt8[np.ndarray, "h w c"], rng: np.random.Generator
) -> UInt16[np.ndarray, "h w c"]:
    """Grey instead of the central box of half the height and width, for inpainting.

    With 16 bits, in which one half is nearly exact.

    >>> boxed = centre_box(np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0))
    >>> boxed[..., 0].tolist()[1]
    [0, 32768, 32768, 0]
    """
    del rng
    image = clean.astype(np.uint16) * np.uint16(257)
    height, width = image.shape[:2]
    image[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1 << 15
    return image


@dataclasses.dataclass(frozen=True)
class Degradation:
    """A function of a clean uint8 image and a generator, and what it needs around a patch."""

    function: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    margin: int = 0  # clean pixels it reads beyond the border of what it yields
    # in training, what becomes of the clean image first; nothing where there is none
    look: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    def __call__(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degraded image, uint8 or (`centre_box`) uint16."""
        return self.function(clean, rng)


def _noise(sigma: int) -> Degradation:
    return Degradation(
        lambda clean, rng: gaussian_noise(clean, sigma, rng.standard_normal(clean.shape))
    )


CLEAN, CLEAN_ANY = "clean", "clean_any"
"""Those that change nothing: a network trained with them too leaves clean pictures alone."""

DEGRADATIONS: dict[str, Degradation] = {
    "noise15": _noise(15),
    "noise25": _noise(25),
    "noise50": _noise(50),
    "haze": Degradation(random_haze),
    "rain": Degradation(rain),
    "blur": Degradation(motion_blur, margin=BLUR_RADIUS),
    "lowlight": Degradation(low_light),
    "centre_box": Degradation(centre_box),
    CLEAN: Degradation(lambda clean, rng: clean),
    # Of any strength, on pictures of any look: for one network that is shown anything.
    "noise_any": Degradation(noise_any, look=any_look),
    "haze_any": Degradation(haze_any, look=colour_or_grey_look),
    CLEAN_ANY: Degradation(lambda clean, rng: clean, look=any_look),
}


def compose(*names: str) -> Degradation:
    """Degradations one after the other, first name first; each sees the 8-bit result before it.

    The order matters: ``compose("rain", "noise50")`` is a noisy photograph of rain, and the rain
    is quantised before the noise is added.

    Raises:
      UserError: no name, or an unknown one.

    >>> grey = np.full((8, 8, 3), 90, np.uint8)
    >>> compose("rain", "noise50")(grey, np.random.default_rng(0)).shape
    (8, 8, 3)
    """
    unknown = [name for name in names if name not in DEGRADATIONS]
    if unknown or not names:
        raise UserError(
            f"Expected degradations among {', '.join(DEGRADATIONS)} (joined by + for several), "
            f"found {', '.join(map(repr, unknown)) or 'none'}."
        )
    steps = [DEGRADATIONS[name] for name in names]
    if len(steps) == 1:
        return steps[0]

    def run(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in steps:
            clean = step(eight_bits(clean), rng)
        return clean

    return Degradation(run, margin=sum(step.margin for step in steps), look=steps[0].look)


def degradation(name: str) -> Degradation:
    """Entry of `DEGRADATIONS`, or several joined by ``+``, applied from left to right.

    >>> degradation("rain+noise50") is not degradation("noise50")
    True
    """
    return compose(*name.split("+"))


_LINEAR = ((np.arange(256) / 255) ** GAMMA).astype(np.float32)  # pixel -> linear light


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.round(255 * image).astype(np.uint8)


def _splat(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Weights at fractional positions, shared between the four pixels around each."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    image = np.zeros(height * width)
    for i, share_i in ((top, 1 - down), (top + 1, down)):
        for j, share_j in ((left, 1 - right), (left + 1, right)):
            seen = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            index = (i * width + j)[seen]
            share = (weights * share_i * share_j)[seen]
            image += np.bincount(index, share, minlength=height * width)
    return image.reshape(height, width)


def _motion_kernel(rng: np.random.Generator) -> np.ndarray:
    """Square kernel of side ``2 * BLUR_RADIUS + 1`` with sum 1."""
    length, heading, turn = rng.uniform(5, 24), rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1)
    headings = heading + turn * np.pi / 2 * np.linspace(-0.5, 0.5, 64)
    rows = np.cumsum(np.sin(headings)) * length / 64
    columns = np.cumsum(np.cos(headings)) * length / 64
    side = 2 * BLUR_RADIUS + 1
    ones = np.ones(64)
    kernel = _splat(
        rows - rows.mean() + BLUR_RADIUS, columns - columns.mean() + BLUR_RADIUS, ones, side, side
    )
    return (kernel / kernel.sum()).astype(np.float32)
