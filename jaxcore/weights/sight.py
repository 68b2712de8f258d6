"""What lets a language model see: pictures prepared as it was trained, and put into its prompt."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8

from jaxcore.data.images.vision_inputs import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    Grid,
    PatchInputs,
    SquareInputs,
)
from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.typing import Params
from jaxcore.weights.encoders import constants_in

if TYPE_CHECKING:
    from jaxcore.tokenizers import Tokenizer

Fit: TypeAlias = Literal["pad", "crop"]
"""How a picture becomes a square: with bars, or without its ends."""

Look: TypeAlias = Callable[[Params, Any, Sequence[Grid]], Any]
"""``look(params, what the tower gets, grids of patches)``: embeddings of pictures."""

SETTINGS = "preprocessor_config.json"
_CELLS = 64  # vectors of Qwen2-VL's pictures are filled up to multiples of this

# The templates that the models were trained with, for folders that hold none.
_CONTENT = (
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content if c.type == 'image' %}IMAGE{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endif %}"
)
_VICUNA = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}A chat between a curious user and an "
    "artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
    "to the user's questions.{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %} USER: {% elif m.role == 'assistant' %} ASSISTANT: {% endif %}"
    + _CONTENT.replace("IMAGE", "<image>\n")
    + "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
_QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    + _CONTENT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"llava": _VICUNA, "qwen2_vl": _QWEN}
"""Templates of chats by network: Vicuna's of LLaVA-1.5, and Qwen2-VL's."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """What a decoder reads: the arguments of `jaxcore.models.llama.prefill`.

    Attributes:
      x: tokens (1, t), or embeddings (1, t, d) with pictures in their places.
      valid: False for padding, on the left.
      positions: of tokens; None counts them.
      tokens: as `x`, an image token once for each vector of a picture.
    """

    x: Any
    valid: np.ndarray
    positions: np.ndarray | None
    tokens: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
    """How a network reads pictures.

    Attributes:
      network: "llava" or "qwen2_vl".
      cfg: its configuration.
      inputs: from a picture to what the tower sees.
    """

    network: str
    cfg: Any
    inputs: SquareInputs | PatchInputs

    def prompt(
        self,
        params: Params,
        ids: Sequence[int],
        images: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
        *,
        bucket: int = 64,
        pad: int = 0,
        look: Look | None = None,
    ) -> Prompt:
        """Put pictures into a prompt.

        Args:
          params: of the whole network.
          ids: tokens of the prompt, with one image token for each picture.
          images: pictures of 8 bits, in the order of the prompt.
          bucket: the prompt is padded on the left to a multiple of this, so that few programs are
            compiled.
          pad: token of the padding.
          look: makes embeddings of what the tower gets, in the place of the network's own.

        Raises:
          UserError: as many image tokens as pictures are expected, or a picture cannot be read.
        """
        found = sum(i == self.cfg.image_token for i in ids)
        if found != len(images):
            raise UserError(
                f"Expected an image token in the prompt for each of {len(images)} image(s), found "
                f"{found}."
            )
        if self.network == "qwen2_vl":
            return self._patches(params, ids, images, bucket, pad, look)
        import jax.numpy as jnp

        from jaxcore.models import llava

        if len(images) > 1:
            raise UserError(f"Expected one image, all that LLaVA-1.5 knows, found {len(images)}.")
        ids = expand(ids, self.cfg.image_token, [self.cfg.image_tokens] * len(images))
        tokens, valid = _padded(ids, bucket, pad)
        features = None
        if images:
            assert isinstance(self.inputs, SquareInputs)
            seen = np.stack([self.inputs(image) for image in images])
            if look is None:
                features = _compiled("llava")(params, seen, cfg=self.cfg)
            else:
                features = look(params, seen, ())
        x = llava.embed(params, jnp.asarray(tokens), self.cfg, features)
        return Prompt(x=x, valid=valid, positions=None, tokens=tokens)

    def _patches(
        self,
        params: Params,
        ids: Sequence[int],
        images: Sequence[np.ndarray],
        bucket: int,
        pad: int,
    ) -> Prompt:
        import jax.numpy as jnp

        from jaxcore.models import qwen2_vl

        assert isinstance(self.inputs, PatchInputs)
        cfg, features = self.cfg, None
        rows: list[np.ndarray] = []
        grids: list[Grid] = []
        for image in images:
            values, grid = self.inputs(image)
            rows.append(values)
            grids.append(grid)
        counts = [qwen2_vl.image_tokens(grid, cfg.vision) for grid in grids]
        ids = expand(ids, cfg.image_token, counts)
        tokens, valid = _padded(ids, bucket, pad)
        if images:
            patches = qwen2_vl.join_patches(rows, grids, cfg.vision, bucket=_CELLS)
            if look is None:
                found = _compiled("qwen2_vl")(params, patches, cfg=cfg)
            else:
                found = look(params, patches, grids)
            features = found[: sum(counts)]
        x = qwen2_vl.embed(params, jnp.asarray(tokens), cfg, features)
        positions, _ = qwen2_vl.position_ids(tokens, grids, cfg, valid)
        return Prompt(x=x, valid=valid, positions=positions, tokens=tokens)


def expand(ids: Sequence[int], image_token: int, counts: Sequence[int]) -> list[int]:
    """Repeat each image token as often as its picture has vectors.

    >>> expand([1, 9, 2, 9], 9, [3, 1])
    [1, 9, 9, 9, 2, 9]
    """
    left = iter(counts)
    out: list[int] = []
    for i in ids:
        out += [i] * (next(left) if i == image_token else 1)
    return out


def chat(
    tokenizer: "Tokenizer", network: str, question: str, images: int, system: str | None = None
) -> list[int]:
    """Tokens of a question about pictures, by the folder's template or that of the training.

    Args:
      tokenizer: of the folder.
      network: "llava" or "qwen2_vl".
      question: special tokens in it are but characters.
      images: how many pictures stand before the question.
      system: what the model is told about its role.

    Raises:
      UserError: the template does not work.
    """
    if tokenizer.template is None:
        tokenizer = dataclasses.replace(tokenizer, template=TEMPLATES[network])
    content: list[dict[str, str]] = [{"type": "image"}] * images
    content.append({"type": "text", "text": question})
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tokenizer.chat(messages)


def read_inputs(
    folder: str | Path,
    network: str,
    cfg: Any,
    *,
    fit: Fit | None = None,
    max_pixels: int | None = None,
) -> SquareInputs | PatchInputs:
    """Settings of pictures from ``preprocessor_config.json``, if it is there.

    Sizes are those of the network: a file that contradicts them is refused.

    Args:
      folder: of the weights.
      network: "llava" or "qwen2_vl".
      cfg: configuration of the network.
      fit: how LLaVA's pictures become squares. None takes what the file says ("do_pad",
        "image_aspect_ratio"), and bars by default, with which LLaVA-1.5 was trained.
      max_pixels: to which Qwen2-VL's pictures are reduced; None takes what the file says.

    Raises:
      UserError: the file is damaged, or made for other sizes.
    """
    path = Path(folder) / SETTINGS
    settings = read_json(path, what="settings of pictures") if path.exists() else {}
    mean, deviation = constants_in(settings, (CLIP_MEAN, CLIP_DEVIATION), path)
    constants: dict[str, Any] = {"mean": mean, "deviation": deviation}
    if network == "llava":
        side = cfg.vision.image_size
        found = settings.get("crop_size", side)
        found = found.get("height") if isinstance(found, Mapping) else found
        if found != side:
            raise UserError(
                f"Expected pictures of {side} pixels for this tower, found {found!r} as crop_size "
                f"in {path}."
            )
        if fit is None:
            asked = settings.get("do_pad", settings.get("image_aspect_ratio", "pad"))
            fit = "pad" if asked in (True, "pad") else "crop"
        return SquareInputs(side=side, pad=fit == "pad", **constants)
    vision = cfg.vision
    ours = {"patch": vision.patch_size, "merge": vision.merge, "frames": vision.frames}
    names = {"patch": "patch_size", "merge": "merge_size", "frames": "temporal_patch_size"}
    for name, key in names.items():
        if settings.get(key, ours[name]) != ours[name]:
            raise UserError(
                f"Expected {ours[name]} as {key} in {path}, as the weights have it, found "
                f"{settings[key]!r}."
            )
    size = settings.get("size")
    size = size if isinstance(size, Mapping) else {}
    default = PatchInputs()
    low = _count(settings.get("min_pixels", size.get("shortest_edge")), default.min_pixels, path)
    high = _count(settings.get("max_pixels", size.get("longest_edge")), default.max_pixels, path)
    high = max_pixels or high
    return PatchInputs(min_pixels=min(low, high), max_pixels=high, **ours, **constants)


def _count(value: Any, default: int, path: Path) -> int:
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise UserError(f"Expected a number of pixels in {path}, found {value!r}.")
    return value


def _padded(ids: Sequence[int], bucket: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    from jaxcore.generate import pad_left

    return pad_left([ids], bucket=bucket, pad=pad)


def _compiled(network: str) -> Callable[..., Any]:
    """The tower and what follows it, as one program."""
    import jax

    from jaxcore import registry

    module = registry.network(network).module
    return jax.jit(module.image_features, static_argnames="cfg")
