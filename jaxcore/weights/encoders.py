"""Pretrained encoders of images from a folder on this machine; nothing is fetched."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from jaxcore.data.images.vision_inputs import CLIP_DEVIATION, CLIP_MEAN
from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.typing import Params

if TYPE_CHECKING:
    from jaxcore.models.clip import CLIPConfig

Compat: TypeAlias = Literal["causalimages"]

_BANDS = 3  # that every encoder sees
_CONSTANTS = {
    "clip": (CLIP_MEAN, CLIP_DEVIATION),
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation of each band by family, where a folder does not tell its own."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageEncoder:
    """A network with its weights and with the constants of its images.

    Attributes:
      cfg: sizes and options.
      params: the weights.
      mean: of each band, of values in [0, 1].
      deviation: of each band.
    """

    cfg: "CLIPConfig"
    params: Params
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(
        self,
        images: Float[np.ndarray, "b h w c"],
        *,
        span: tuple[float, float] = (0.0, 1.0),
        compat: Compat | None = None,
        rows: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[np.ndarray, "b e"]:
        """Features of images of any size.

        One band is taken three times; of more than three the first three are taken. Images are
        resized bilinearly (half-pixel centres, antialiased).

        Args:
          images: any numbers.
          span: the two values that stand for 0 and 1.
          compat: "causalimages" normalises what is already in standard deviations from the data's
            own mean once more, as the published package does; a "vit" there is multiplied by its
            deviation and raised by its mean. ``span`` does not count.
          rows: images at once.
          progress: called with (images done, images in all).

        Returns:
          float32 on the host.

        Raises:
          UserError: the images do not fit.
        """
        import jax

        images, total = np.asarray(images), len(images)
        if images.ndim != 4 or images.shape[-1] not in (1, *range(_BANDS, images.shape[-1] + 1)):
            raise UserError(
                "Expected images of shape (batch, height, width, bands) with one band, or three "
                f"and more, found {images.shape}."
            )
        if not span[0] < span[1] or rows < 1:
            raise UserError(f"Expected a rising span and rows of at least 1, found {span}, {rows}.")
        low, high = span if compat is None else (0.0, 1.0)
        mean, deviation = self.mean, self.deviation
        if compat is not None and self.cfg.family == "vit":
            mean, deviation = _inverted(mean, deviation)
        encode = jax.jit(_encode, static_argnames=("cfg",))
        out = np.empty((total, self.cfg.features), np.float32)
        for start in range(0, total, rows):
            part = images[start : start + rows]
            used = (part[..., :_BANDS].astype(np.float32) - low) / (high - low)
            if not np.isfinite(used).all():
                raise UserError("Expected images without missing values, found some.")
            short = min(rows, total) - len(part)  # one program for all parts
            used = np.pad(used, ((0, short), (0, 0), (0, 0), (0, 0)))
            constants = np.asarray([mean, deviation], np.float32)
            found = encode(self.params, used, constants, cfg=self.cfg)
            out[start : start + rows] = np.asarray(found)[: len(part)]
            if progress is not None:
                progress(min(start + rows, total), total)
        return out


def _inverted(
    mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Constants with which ``(x - mean) / deviation`` is ``x * deviation + mean``."""
    pairs = [(-m / d, 1 / d) for m, d in zip(mean, deviation, strict=True)]
    return tuple(m for m, _ in pairs), tuple(d for _, d in pairs)


def _encode(params: Params, images: Any, constants: Any, *, cfg: "CLIPConfig") -> Any:
    import jax
    import jax.numpy as jnp

    from jaxcore.models import clip

    if images.shape[-1] == 1:
        images = jnp.repeat(images, _BANDS, axis=-1)
    shape = (images.shape[0], cfg.image_size, cfg.image_size, _BANDS)
    resized = jax.image.resize(images, shape, "bilinear")
    mean, deviation = (row.reshape(1, 1, 1, -1) for row in constants)
    return clip.apply(params, (resized - mean) / deviation, cfg)


def load_encoder(folder: str | Path) -> ImageEncoder:
    """An encoder from a folder as Hugging Face's libraries write it.

    Read are ``config.json`` (of a CLIP, its image part, or a vision transformer), the weights
    (``model.safetensors``, shards, or ``pytorch_model.bin``, of which nothing is run) and, if it is
    there, ``preprocessor_config.json``.

    Args:
      folder: on this machine.

    Raises:
      UserError: no such folder, another kind of network, or weights that do not fit.
    """
    from jaxcore.convert import read_state_dict
    from jaxcore.models import clip

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"Expected a folder with an encoder, found none at {folder}.")
    fields = _fields(folder)
    file = read_state_dict(folder)
    try:
        cfg = clip.config_from_state_dict(file.tensors, **fields)
        params = clip.from_torch(file.tensors, cfg)
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{folder} does not hold the weights of an encoder: {error}") from None
    if cfg.in_channels != _BANDS:
        raise UserError(f"Expected an encoder of three bands, found {cfg.in_channels}.")
    return ImageEncoder(cfg, params, *_constants(folder, cfg.family))


_ACTIVATIONS = ("quick_gelu", "gelu")


def _fields(folder: Path) -> dict[str, Any]:
    """What weights do not tell."""
    config = read_json(folder / "config.json", what="the configuration of an encoder")
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model", "vit"):
        raise UserError(
            f"Expected an encoder of the kind clip, clip_vision_model or vit in {folder}, found "
            f"{kind!r}."
        )
    inner = config.get("vision_config") if kind == "clip" else config
    if not isinstance(inner, dict):
        raise UserError(f"Expected the settings of the image part in {folder}, found none.")
    names = {
        "num_heads": ("num_attention_heads", int),
        "epsilon": ("layer_norm_eps", float),
        "activation": ("hidden_act", str),
    }
    found = {}
    for ours, (theirs, of_type) in names.items():
        if theirs not in inner:
            continue
        value = inner[theirs]
        if type(value) is not of_type or (of_type is str and value not in _ACTIVATIONS):
            raise UserError(f"Expected in {folder} another {theirs} than {value!r}.")
        found[ours] = value
    return found


def _constants(folder: Path, family: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    path, known = folder / "preprocessor_config.json", _CONSTANTS[family]
    if not path.exists():
        return known
    return constants_in(read_json(path, what="the constants of an encoder's images"), known, path)


def constants_in(
    settings: Mapping[str, Any],
    known: tuple[tuple[float, ...], tuple[float, ...]],
    path: Path,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each band, of values in [0, 1].

    Args:
      settings: content of a ``preprocessor_config.json``.
      known: where it does not tell them.
      path: the file, for messages.

    Raises:
      UserError: they cannot be such.
    """
    found = []
    for name, default in zip(("image_mean", "image_std"), known, strict=True):
        value = settings.get(name, default)
        numbers = isinstance(value, list | tuple) and len(value) == _BANDS
        if not numbers or not all(type(v) in (int, float) for v in value):
            raise UserError(f"Expected three numbers as {name} in {path}, found {value!r}.")
        found.append(tuple(float(v) for v in value))
    if not all(d > 0 for d in found[1]):
        raise UserError(f"Expected an image_std above 0 in {path}, found {found[1]}.")
    return found[0], found[1]
