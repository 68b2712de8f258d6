"""Where the parameters of a decoder that sees lie on a mesh."""

from typing import Protocol

from jax.sharding import Mesh, PartitionSpec

from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig


class HasDecoder(Protocol):
    """The configuration of a network around a decoder."""

    @property
    def language(self) -> LlamaConfig:
        """Sizes of the decoder."""
        ...


def sharding_rules(cfg: HasDecoder, mesh: Mesh) -> tuple[tuple[str, PartitionSpec], ...]:
    """Rules for `jaxcore.parallel.state_shardings`: those of the decoder.

    The tower and what follows it, a twentieth of the numbers, are split by fsdp alone.

    Args:
      cfg: of LLaVA or Qwen2-VL.
      mesh: of `jaxcore.parallel.make_mesh`.

    >>> import jax
    >>> from jaxcore.models.llava import LlavaConfig
    >>> from jaxcore.parallel import make_mesh
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> dict(sharding_rules(LlavaConfig.tiny(), mesh))["(^|/)language/head$"]
    P('tensor', 'fsdp')
    """
    return llama.sharding_rules(cfg.language, mesh, below="language/")
