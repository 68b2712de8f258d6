"""Pictures and figures of ``jaxcore deconvolve --report``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

_SIDE = 320  # pixels of a picture, about
_MOST = 12  # planes that get pictures
_SOFT = 3.0  # standard deviations of the noise where the asinh stretch turns
_LIMIT = 5.0  # of the residual's colours, in units of the noise


def write_report(
    folder: Path,
    field: Any,
    parts: Mapping[str, np.ndarray],
    header: Any,
    about: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write ``report.json`` and a picture for every plane.

    Args:
      folder: made if it is not there.
      field: the observations (`jaxcore.cli.deconvolving.Field`).
      parts: images of all steps.
      header: cards of the result, for its pixel scale.
      about: for ``report.json``.
      overwrite: replace files of an earlier report.

    Raises:
      UserError: a file exists.
    """
    from jaxcore.atomic import check_folder, whole_folder, write_json
    from jaxcore.data.astro import pixel_scale
    from jaxcore.data.images import write_image

    scale = pixel_scale(header)
    count = min(len(field.planes), _MOST)
    names = [f"plane{i}.png" if len(field.planes) > 1 else "steps.png" for i in range(count)]
    check_folder(folder, [*names, "report.json"], overwrite=overwrite)
    with whole_folder(folder, among=folder.exists()) as temporary:
        for i, name in enumerate(names):
            # What was compiled gives its results in the order of the alphabet.
            order = [*about["steps"], "image", "residual", "active", "uncertainty"]
            planes = {key: parts[key][i] for key in order if key in parts}
            observed = field.planes[i] * field.sigma[i]
            known = None if field.weights is None else field.weights[i] > 0
            sigma = float(field.sigma[i])
            write_image(temporary / name, picture(observed, sigma, planes, known, scale))
            if max(planes["image"].shape) > _SIDE:
                part = _brightest(observed, planes, known)
                write_image(temporary / f"detail_{name}", picture(part[0], sigma, *part[1:], scale))
        write_json(temporary / "report.json", {**about, "pixel_scale_arcsec": scale})


def picture(
    observed: Float[np.ndarray, "h w"],
    sigma: float,
    steps: Mapping[str, np.ndarray],
    known: np.ndarray | None = None,
    scale: float | None = None,
) -> Float[np.ndarray, "h2 w2 3"]:
    """Input, steps, residual and active coefficients side by side, the first row up.

    Args:
      observed: the image.
      sigma: its noise.
      steps: images of the steps on the finer grid, ``residual``, ``active`` and ``uncertainty``.
      known: pixels that were used.
      scale: side of a fine pixel in seconds of arc; None draws the bar in pixels.
    """
    from jaxcore.figures import grid

    factor = steps["residual"].shape[-1] // observed.shape[-1]
    fine = np.repeat(np.repeat(observed / factor**2, factor, 0), factor, 1)
    soft = _SOFT * sigma / factor**2
    others = ("image", "residual", "active", "uncertainty")
    named = [n for n in steps if n not in others] or ["image"]
    sky = float(np.median(fine))
    top = max(float(np.percentile(steps[named[-1]], 99.8)) - sky, 10 * soft)

    def bright(x: np.ndarray) -> np.ndarray:
        low = np.arcsinh(-1.0)
        values = (np.arcsinh((x - sky) / soft) - low) / (np.arcsinh(top / soft) - low)
        return np.repeat(_sized(np.clip(values, 0, 1))[..., None], 3, -1)

    shown = bright(fine)
    if known is not None:
        gone = _sized(np.repeat(np.repeat((~known).astype(float), factor, 0), factor, 1))
        shown = np.where(gone[..., None] > 0.5, np.array([0.55, 0.2, 0.2]), shown)
    first = [(_with_bar(shown, fine.shape[-1], scale), _bar_text("input", fine.shape[-1], scale))]
    first += [(bright(steps[n]), f"step {i}: {n}") for i, n in enumerate(named, 1)]
    residual = steps["residual"][::factor, ::factor]
    spread = float(np.std(residual if known is None else residual[known]))
    second = [(_signed(steps["residual"]), f"residual, +-{_LIMIT:g} sigma (rms {spread:.2f})")]
    if "active" in steps:
        most = max(int(steps["active"].max()), 1)
        levels = _sized(steps["active"] / most)
        second.append((np.repeat(levels[..., None], 3, -1), f"active coefficients, 0 to {most}"))
    if "uncertainty" in steps and np.ptp(steps["uncertainty"]) > 0:
        most = float(np.percentile(steps["uncertainty"], 99.8))
        levels = np.clip(_sized(steps["uncertainty"] / max(most, 1e-30)), 0, 1)
        second.append((np.repeat(levels[..., None], 3, -1), f"uncertainty, 0 to {most:.3g}"))
    return grid([first, second]).astype(np.float32) / 255


def _brightest(
    observed: np.ndarray, planes: Mapping[str, np.ndarray], known: np.ndarray | None
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None]:
    """A part of all images about the largest pixel of the result, too small to be shrunk."""
    factor = planes["residual"].shape[-1] // observed.shape[-1]
    side = max(_SIDE // 2 // factor, 1)
    row, col = np.unravel_index(int(planes["image"].argmax()), planes["image"].shape)
    places = (int(row) // factor, int(col) // factor)
    starts = [
        max(min(p - side // 2, n - side), 0) for p, n in zip(places, observed.shape, strict=True)
    ]
    coarse = tuple(slice(s, s + side) for s in starts)
    fine = tuple(slice(s * factor, (s + side) * factor) for s in starts)
    cut = {name: plane[fine] for name, plane in planes.items()}
    return observed[coarse], cut, None if known is None else known[coarse]


def _sized(x: np.ndarray) -> np.ndarray:
    """About `_SIDE` pixels wide, rows upwards as on the sky."""
    x, longest = x[::-1], max(x.shape)
    if longest > _SIDE:
        step = -(-longest // _SIDE)
        h, w = (n // step * step for n in x.shape)
        if h and w:
            return x[:h, :w].reshape(h // step, step, w // step, step).mean((1, 3))
        return x[::step, ::step]
    times = max(_SIDE // longest, 1)
    return np.repeat(np.repeat(x, times, 0), times, 1)


def _signed(x: np.ndarray) -> np.ndarray:
    """Blue below zero, white at it, red above."""
    v = np.clip(_sized(x) / _LIMIT, -1, 1)[..., None]
    white, red, blue = np.ones(3), np.array([0.75, 0.05, 0.1]), np.array([0.1, 0.2, 0.75])
    return np.where(v > 0, white + v * (red - white), white - v * (blue - white))


def _bar(width: int, scale: float | None) -> float:
    """Length of the scale bar, a round number of arcsec or pixels, about a quarter of the width."""
    quarter = width * (scale or 1) / 4
    power = 10.0 ** np.floor(np.log10(quarter))
    return float(max(n * power for n in (1, 2, 5) if n * power <= quarter))


def _bar_text(name: str, width: int, scale: float | None) -> str:
    return f"{name}; bar {_bar(width, scale):g} {'pixels' if scale is None else 'arcsec'}"


def _with_bar(shown: np.ndarray, width: int, scale: float | None) -> np.ndarray:
    shown = shown.copy()
    length = round(_bar(width, scale) / (scale or 1) * shown.shape[1] / width)
    h = shown.shape[0]
    shown[h - 12 : h - 8, 10 : 10 + max(length, 1)] = [1.0, 0.85, 0.2]
    return shown
