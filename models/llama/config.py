"""Sizes and options of decoders of the LLaMA family."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np

from jaxcore import ops
from jaxcore.bounds import AtLeast, Count, Index, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig
from jaxcore.serial import Serial


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling(Serial):
    """How rotations are slowed down for contexts longer than those of the first training."""

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: Annotated[float, AtLeast(1)] = 1.0  # by which the context grows
    low: Positive = 1.0  # llama3: turns within `length` below which a wave is stretched ...
    high: Positive = 4.0  # ... and above which it stays
    length: Count = 8192  # llama3: of the contexts of the first training

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high <= self.low:
            raise UserError(f"high must be above low, {self.low}, found {self.high}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(NetworkConfig):
    """Everything that decides what the network computes; the defaults are Vicuna-1.5-7B's.

    >>> cfg = LlamaConfig.smollm2_135m()
    >>> cfg.groups, LlamaConfig.from_dict(cfg.to_dict()) == cfg
    (3, True)
    """

    title: ClassVar[str] = "Llama"

    vocab_size: Count = 32000
    width: Count = 4096
    depth: Count = 32
    num_heads: Count = 32
    num_kv_heads: Count = 32  # of keys and values; divides the number of heads
    head_dim: Count = 128
    mlp_width: Count = 11008
    epsilon: Positive = 1e-5  # of the norms
    theta: Positive = 10000.0  # longest wavelength of the rotations, over 2 pi
    rope: RopeScaling = dataclasses.field(default_factory=RopeScaling)
    # Pairs of each head that turn by time, height and width (Qwen2-VL); empty: all by place.
    mrope_sections: tuple[Index, ...] = ()
    qkv_bias: bool = False
    out_bias: bool = False  # of the projection behind attention
    tied: bool = False  # logits by the embeddings themselves
    max_positions: Count = 4096

    dtype: DType = "float32"  # of activations; norms, softmax and logits are not narrower
    param_dtype: DType = "float32"
    # One compiled body for all blocks; None: but for a few on a processor. Same parameters
    scan_blocks: bool | None = None
    remat: bool = False  # compute blocks again in the backward pass

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"num_heads must be a multiple of the {self.num_kv_heads} heads of keys and "
                f"values, found {self.num_heads}."
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim must be even, found {self.head_dim}.")
        if self.mrope_sections and sum(self.mrope_sections) != self.head_dim // 2:
            raise UserError(
                f"mrope_sections must sum to {self.head_dim // 2}, half of head_dim, found "
                f"{sum(self.mrope_sections)}."
            )

    @property
    def groups(self) -> int:
        """Heads that share keys and values."""
        return self.num_heads // self.num_kv_heads

    @property
    def rates(self) -> np.ndarray:
        """Angle per position of each pair of a head."""
        rates, rope = ops.rotary_rates(self.head_dim, self.theta), self.rope
        if rope.kind == "linear":
            return rates / rope.factor
        if rope.kind == "llama3":
            return ops.llama3_rates(
                rates, factor=rope.factor, low=rope.low, high=rope.high, length=rope.length
            )
        return rates

    @classmethod
    def vicuna_7b(cls, **changes: Any) -> Self:
        """Vicuna-1.5-7B, in the shape of Llama-2-7B: 6.74 billion parameters."""
        return cls(**changes)

    @classmethod
    def smollm2_135m(cls, **changes: Any) -> Self:
        """SmolLM2-135M: 134,515,008 parameters."""
        sizes: dict[str, Any] = {"vocab_size": 49152, "width": 576, "depth": 30, "num_heads": 9}
        sizes |= {"num_kv_heads": 3, "head_dim": 64, "mlp_width": 1536, "theta": 100000.0}
        return cls(**{**sizes, "tied": True, "max_positions": 8192, **changes})

    @classmethod
    def qwen2_7b(cls, **changes: Any) -> Self:
        """The decoder of Qwen2-VL-7B: 7.62 billion parameters."""
        sizes: dict[str, Any] = {"vocab_size": 152064, "width": 3584, "depth": 28, "num_heads": 28}
        sizes |= {"num_kv_heads": 4, "mlp_width": 18944, "max_positions": 32768, "qkv_bias": True}
        numbers: dict[str, Any] = {"epsilon": 1e-6, "theta": 1e6, "mrope_sections": (16, 24, 24)}
        return cls(**{**sizes, **numbers, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"vocab_size": 11, "width": 8, "depth": 2, "num_heads": 4}
        sizes |= {"num_kv_heads": 2, "head_dim": 4, "mlp_width": 6, "max_positions": 64}
        return cls(**{**sizes, **changes})
