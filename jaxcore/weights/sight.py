"""What lets a language model see: pictures prepared as it was trained, and put into its prompt."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
from jaxtyping import Bool, Int, UInt8

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
_BUCKET = 64  # prompts are padded to multiples of this, so that few programs are compiled
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
_TEMPLATES = {"llava": _VICUNA, "qwen2_vl": _QWEN}
_MARKS = {"llava": "<image>", "qwen2_vl": "<|image_pad|>"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """What a decoder reads: the arguments of `jaxcore.models.llama.prefill`.

    Attributes:
      tokens: of the prompt (1, t), an image token once for each vector of a picture.
      valid: False for padding, on the left.
      room: tokens of an answer that fit behind it.
      x: ``tokens``, or embeddings (1, t, d) with pictures in their places.
      positions: of tokens; None counts them.
    """

    tokens: Int[np.ndarray, "1 t"]
    valid: Bool[np.ndarray, "1 t"]
    room: int
    x: Any = None
    positions: np.ndarray | None = None

    @classmethod
    def of(cls, ids: Sequence[int], *, limit: int, room: int, pad: int = 0) -> Self:
        """A prompt of text, padded to a multiple of 64 tokens where that fits: few programs.

        Args:
          ids: tokens.
          limit: of prompt and answer together.
          room: wanted for the answer; it gets less where the limit is near.
          pad: token of the padding.

        Raises:
          UserError: the prompt is empty, or leaves no room.

        >>> prompt = Prompt.of([5, 6], limit=100, room=90)
        >>> prompt.tokens.shape, prompt.room
        ((1, 2), 90)
        """
        from jaxcore.generate import pad_left

        left = limit - len(ids)
        if left < 1 or not ids:
            raise UserError(
                f"Expected a prompt of 1 to {limit - 1:,} tokens, for which this model was made, "
                f"found {len(ids):,}."
            )
        room = min(room, left)
        rounded = -(-len(ids) // _BUCKET) * _BUCKET
        tokens, valid = pad_left([ids], bucket=_BUCKET if rounded + room <= limit else 1, pad=pad)
        return cls(tokens=tokens, valid=valid, room=room, x=tokens)


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

    def chat(
        self, tokenizer: "Tokenizer", question: str, images: int, system: str | None = None
    ) -> list[int]:
        """Tokens of a question about pictures, one image token for each.

        They follow the tokenizer's template of chats, or that of the training where it has none.

        Args:
          tokenizer: of the model.
          question: special tokens in it are but characters.
          images: how many pictures stand before the question.
          system: what the model is told about its role.

        Raises:
          UserError: the template cannot be used.
        """
        mark = _MARKS[self.network]
        if tokenizer.id_of(mark) is None:  # the authors of LLaVA split the text there instead
            tokenizer.engine.add_special_tokens([mark])
        template = tokenizer.template or _TEMPLATES[self.network]
        tokenizer = dataclasses.replace(tokenizer, template=template)
        content: list[dict[str, str]] = [{"type": "image"}] * images
        content.append({"type": "text", "text": question})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system is not None:
            told = [{"type": "text", "text": system}]  # some templates know lists only
            messages.insert(0, {"role": "system", "content": told})
        known, ids = tokenizer.id_of(mark), tokenizer.chat(messages)
        if self.network == "llava" and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
            ids.insert(0, tokenizer.bos)  # LLaVA was trained with it, its template leaves it out
        return [self.cfg.image_token if i == known else i for i in ids]

    def prompt(
        self,
        params: Params,
        ids: Sequence[int],
        images: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
        *,
        room: int = 1,
        pad: int = 0,
        look: Look | None = None,
    ) -> Prompt:
        """Put pictures into a prompt.

        Args:
          params: of the whole network.
          ids: tokens of the prompt, with one image token for each picture.
          images: pictures of 8 bits, in the order of the prompt.
          room: see `Prompt.of`.
          pad: token of the padding.
          look: makes embeddings of what the tower gets, in the place of the network's own.

        Raises:
          UserError: as many image tokens as pictures are expected, a picture cannot be read, or
            the prompt with its pictures leaves no room in the context.
        """
        found = sum(i == self.cfg.image_token for i in ids)
        if found != len(images):
            raise UserError(
                f"Expected an image token in the prompt for each of {len(images)} image(s), found "
                f"{found}."
            )
        if self.network == "qwen2_vl":
            return self._patches(params, ids, images, room, pad, look)
        import jax.numpy as jnp

        from jaxcore.models import llava

        if len(images) > 1:
            raise UserError(f"Expected one image, all that LLaVA-1.5 knows, found {len(images)}.")
        assert isinstance(self.inputs, SquareInputs)
        seen = [self.inputs(image) for image in images]
        ids = expand(ids, self.cfg.image_token, [self.cfg.image_tokens] * len(images))
        prompt = self._of(ids, room, pad)
        features = None
        if images:
            if look is None:
                features = _compiled("llava")(params, np.stack(seen), cfg=self.cfg)
            else:
                features = look(params, np.stack(seen), ())
        x = llava.embed(params, jnp.asarray(prompt.tokens), self.cfg, features)
        return dataclasses.replace(prompt, x=x)

    def _patches(
        self,
        params: Params,
        ids: Sequence[int],
        images: Sequence[np.ndarray],
        room: int,
        pad: int,
        look: Look | None,
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
        prompt = self._of(expand(ids, cfg.image_token, counts), room, pad)
        if images:
            patches = qwen2_vl.join_patches(rows, grids, cfg.vision, bucket=_CELLS)
            if look is None:
                found = _compiled("qwen2_vl")(params, patches, cfg=cfg)
            else:
                found = look(params, patches, grids)
            features = found[: sum(counts)]
        x = qwen2_vl.embed(params, jnp.asarray(prompt.tokens), cfg, features)
        positions, _ = qwen2_vl.position_ids(prompt.tokens, grids, cfg, prompt.valid)
        return dataclasses.replace(prompt, x=x, positions=positions)

    def _of(self, ids: Sequence[int], room: int, pad: int) -> Prompt:
        return Prompt.of(ids, limit=self.cfg.language.max_positions, room=room, pad=pad)


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


def _compiled(network: str) -> Callable[..., Any]:
    """The tower and what follows it, as one program."""
    import jax

    from jaxcore import registry

    module = registry.network(network).module
    return jax.jit(module.image_features, static_argnames="cfg")
