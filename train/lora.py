"""Low-rank adapters as a transform of parameters: small trees that are trained, a base that is not.

``merge(base, adapters, ...)`` gives the parameters that a network is applied with, inside a loss or
once for good. Adapters are named by the official modules of the network, whatever its own layout
joins (queries, keys and values in one matrix), so that files of PEFT go in and out as they are.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.bounds import Above, Count
from jaxcore.convert import Rule
from jaxcore.convert.rules import Link, Slot, slots
from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.typing import Key, Params, StateDict

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a decoder's layers."""
_PEFT = "base_model.model."
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(Serial):
    """Which matrices have adapters, and how large these are.

    A matrix W (out, in) becomes ``W + scale B A`` with A (rank, in) and B (out, rank).

    >>> LoRA(rank=4, alpha=8).scale, LoRA(rank=4, alpha=8, rank_stabilised=True).scale
    (2.0, 4.0)

    References:
      Hu et al. (2021), LoRA; rank-stabilised: Kalajdzievski (2023).
    """

    rank: Count = 16
    alpha: Annotated[float, Above(0)] = 32.0
    targets: tuple[str, ...] = PROJECTIONS  # ends of the official names of modules
    rank_stabilised: bool = False  # the scale is alpha / sqrt(rank) instead of alpha / rank

    @property
    def scale(self) -> float:
        """What ``B A`` is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def wants(self, module: str) -> bool:
        """Whether a module has an adapter.

        >>> LoRA(targets=("q_proj",)).wants("model.layers.0.self_attn.q_proj")
        True
        """
        return any(module == name or module.endswith(f".{name}") for name in self.targets)


class _Part(NamedTuple):
    """A stretch of one of our leaves, or of all layers of it: one official matrix each."""

    name: str  # of the module, without numbers of layers
    links: tuple[Link, ...]  # in the order of layers

    @property
    def module(self) -> str:
        """Official name of the first layer's module."""
        return self.links[0].key.removesuffix(".weight")

    @property
    def stacked(self) -> bool:
        return self.links[0].layer is not None


def _parts(slot: Slot) -> list[_Part]:
    """The stretches of a leaf, in their order."""
    found: dict[tuple[int, int], list[Link]] = {}
    for link in slot.links:
        found.setdefault(link.ours, []).append(link)
    out = []
    for _, links in sorted(found.items()):
        name = links[0].key.removesuffix(".weight")
        stacked = links[0].layer is not None
        out.append(_Part(_LAYER.sub("*", name) if stacked else name, tuple(links)))
    return out


def _targeted(params: Any, rules: Sequence[Rule], settings: LoRA) -> Iterator[_Part]:
    seen = set()
    for slot in slots(params, rules):
        for part in _parts(slot):
            matrix = part.links[0].key.endswith(".weight") and len(part.links[0].shape) == 2
            if matrix and settings.wants(part.module) and part.name not in seen:
                seen.add(part.name)
                yield part


def init(key: Key, params: Any, rules: Sequence[Rule], settings: LoRA) -> Params:
    """New adapters, which change nothing yet: A uniform as in PEFT, B zero.

    Args:
      key: of the draws.
      params: parameters of the network, or their shapes.
      rules: key table of the network.
      settings: which matrices.

    Returns:
      Module -> ``{"A": (layers, rank, in), "B": (layers, out, rank)}``, float32.

    Raises:
      UserError: no matrix has one of the names.

    >>> from jaxcore.models import llama
    >>> cfg = llama.LlamaConfig.tiny()
    >>> made = init(jax.random.key(0), llama.param_shapes(cfg), llama.rules(cfg), LoRA(rank=2))
    >>> made["model.layers.*.self_attn.q_proj"]["A"].shape[1:]
    (2, 8)
    """
    out: Params = {}
    for place, part in enumerate(_targeted(params, rules, settings)):
        wide, narrow = part.links[0].shape
        layers = (len(part.links),) if part.stacked else ()
        bound = 1 / math.sqrt(narrow)
        own, shape = jax.random.fold_in(key, place), (*layers, settings.rank, narrow)
        a = jax.random.uniform(own, shape, jnp.float32, -bound, bound)
        out[part.name] = {"A": a, "B": jnp.zeros((*layers, wide, settings.rank), jnp.float32)}
    if not out:
        raise UserError(
            f"Expected matrices named {', '.join(settings.targets)} in the network, found none."
        )
    return out


def merge(
    params: Params,
    adapters: Mapping[str, Mapping[str, Array]],
    rules: Sequence[Rule],
    settings: LoRA,
    *,
    sign: float = 1.0,
) -> Params:
    """Parameters with the adapters added; pure, to be differentiated by ``adapters``.

    Args:
      params: of the base.
      adapters: of `init`, `from_peft`, or trained ones; further leaves are not allowed.
      rules: key table of the network.
      settings: rank and scale.
      sign: -1 takes them out again.

    Raises:
      UserError: an adapter belongs to no matrix of the network.
    """
    left = dict(adapters)
    new: dict[str, Any] = {}
    for slot in slots(params, rules):
        parts = _parts(slot)
        if not any(part.name in adapters for part in parts):
            continue
        pieces = [_change(part, adapters.get(part.name), slot.leaf) for part in parts]
        for part in parts:
            left.pop(part.name, None)
        delta = (
            pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=parts[0].links[0].axis)
        )
        whole = slot.leaf.astype(jnp.float32) + sign * settings.scale * delta
        new[slot.path] = whole.astype(slot.leaf.dtype)
    if left:
        raise UserError(f"Expected adapters of this network, found one of {min(left)!r}.")

    def chosen(path: Any, leaf: Any) -> Any:
        return new.get(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(chosen, params)


def _change(part: _Part, adapter: Mapping[str, Array] | None, leaf: Any) -> Float[Array, "..."]:
    """``B A`` in our layout, zero without an adapter."""
    link = part.links[0]
    if adapter is None:
        shape = list(leaf.shape)
        shape[link.axis] = link.ours[1] - link.ours[0]
        return jnp.zeros(shape, jnp.float32)
    product = jnp.matmul(
        adapter["B"].astype(jnp.float32),
        adapter["A"].astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    ours: Any = link.transform.to_ours
    found = jax.vmap(ours)(product) if part.stacked else ours(product)
    return jax.lax.slice_in_dim(found, *link.theirs, axis=link.axis % found.ndim)


def count(adapters: Any) -> int:
    """Numbers that are trained.

    >>> count({"fc": {"A": np.zeros((2, 8)), "B": np.zeros((4, 2))}})
    24
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(adapters))


# --- PEFT ---------------------------------------------------------------------------------------


def to_peft(
    adapters: Mapping[str, Mapping[str, Any]], params: Any, rules: Sequence[Rule], settings: LoRA
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and ``adapter_config.json`` as PEFT writes them, one pair of matrices a layer.

    Args:
      adapters: to be written.
      params: of the base, or their shapes.
      rules: key table of the network.
      settings: rank, scale and names.
    """
    tensors: dict[str, np.ndarray] = {}
    for part in _targeted(params, rules, settings):
        for letter, values in adapters[part.name].items():
            each = np.asarray(values) if part.stacked else np.asarray(values)[None]
            for link, value in zip(part.links, each, strict=True):
                module = link.key.removesuffix(".weight")
                tensors[f"{_PEFT}{module}.lora_{letter}.weight"] = value
    return tensors, {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": list(settings.targets),
        "use_rslora": settings.rank_stabilised,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def from_peft(
    tensors: StateDict, config: Mapping[str, Any], params: Any, rules: Sequence[Rule]
) -> tuple[Params, LoRA]:
    """Adapters and settings from what PEFT has written.

    Args:
      tensors: of ``adapter_model.safetensors``.
      config: of ``adapter_config.json``.
      params: of the base, or their shapes.
      rules: key table of the network.

    Raises:
      UserError: another kind of adapter, or tensors that do not belong to the network.
    """
    settings = _settings(config)
    left = {key.replace(".default.weight", ".weight"): value for key, value in tensors.items()}
    out: Params = {}
    for part in _targeted(params, rules, settings):
        out[part.name] = {letter: _read(left, part, letter, settings.rank) for letter in ("A", "B")}
    if not out:
        raise UserError(
            f"Expected matrices named {', '.join(settings.targets)} in the network, found none."
        )
    if left:
        raise UserError(
            f"Expected adapters of the network's {', '.join(settings.targets)}, found "
            f"{min(left)!r} besides."
        )
    return out, settings


def _settings(config: Mapping[str, Any]) -> LoRA:
    targets: Any = config.get("target_modules")
    targets = (targets,) if isinstance(targets, str) else targets
    rank, alpha = config.get("r"), config.get("lora_alpha", config.get("r"))
    strange = [
        name
        for name in (
            "use_dora",
            "fan_in_fan_out",
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
        )
        if config.get(name)
    ]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or strange:
        found = strange[0] if strange else f"{config.get('peft_type')!r}"
        raise UserError(f"Expected plain LoRA adapters without biases of PEFT, found {found}.")
    good = isinstance(targets, list | tuple) and all(isinstance(name, str) for name in targets)
    if not good or not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise UserError(
            "Expected r, lora_alpha and target_modules in the configuration of the adapters, found "
            f"{rank!r}, {alpha!r} and {targets!r}."
        )
    stabilised = bool(config.get("use_rslora", False))
    return LoRA(rank=rank, alpha=alpha, targets=tuple(targets), rank_stabilised=stabilised)


def _read(left: dict[str, Any], part: _Part, letter: str, rank: int) -> Array:
    """The matrices of all layers, taken out of what is left."""
    wide, narrow = part.links[0].shape
    shape = (rank, narrow) if letter == "A" else (wide, rank)
    each = []
    for link in part.links:
        key = f"{_PEFT}{link.key.removesuffix('.weight')}.lora_{letter}.weight"
        if key not in left:
            raise UserError(f"Expected {key!r} among the adapters, found none.")
        value = np.asarray(left.pop(key), np.float32)
        if value.shape != shape:
            raise UserError(f"Expected {key!r} of shape {shape}, found {value.shape}.")
        each.append(value)
    return jnp.asarray(np.stack(each) if part.stacked else each[0])
