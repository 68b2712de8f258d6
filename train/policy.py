"""The network that is fine-tuned: all of its weights, or adapters on a base that stays.

What is trained lies in ``params``, what stays in ``frozen``, as tasks of `jaxcore.train` have them:

* everything: ``params = {"model": weights}``;
* adapters: ``params = {"adapters": ...}`` and ``frozen = {"base": weights}``.

A task may have further parameters beside, such as the head of a reward model. The reference, from
which a policy is not to go far, is the base itself, that is the policy with its adapters switched
off. Adapters that were trained before and go on being trained are part of the reference, too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import lora
from jaxcore.train.lora import LoRA
from jaxcore.train.step import Frozen
from jaxcore.typing import Key, Params

MODEL, ADAPTERS, BASE = "model", "adapters", "base"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A decoder of which everything, or adapters, are trained.

    >>> policy = Policy(cfg=LlamaConfig.tiny(), lora=LoRA(rank=2))
    >>> base = llama.init(jax.random.key(0), policy.cfg)
    >>> params, frozen = policy.params(jax.random.key(1), base), policy.frozen(base)
    >>> bool(jnp.all(policy.weights(params, frozen)["embed"] == base["embed"]))
    True
    """

    cfg: LlamaConfig
    lora: LoRA | None = None  # None trains everything

    def params(self, key: Key, base: Params, adapters: Params | None = None) -> Params:
        """What is trained, before the first step: a copy of the base, or adapters.

        Args:
          key: of the draws of fresh adapters, which change nothing yet.
          base: weights of the decoder; of adapters their shapes are enough.
          adapters: of an earlier training, to go on with.

        Raises:
          UserError: the network has no matrix with one of the names of the adapters.
        """
        if self.lora is None:  # a copy: steps overwrite what they are given
            copied: Any = jax.tree.map(
                lambda leaf: jnp.array(leaf, self.cfg.param_dtype, copy=True), base
            )
            return {MODEL: copied}
        if adapters is not None:
            return {ADAPTERS: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), adapters)}
        return {ADAPTERS: lora.init(key, base, llama.rules(self.cfg), self.lora)}

    def frozen(
        self, base: Params, adapters: Params | None = None, *, reference: bool = False
    ) -> Frozen:
        """What stays: the base under adapters, and all that the reference needs.

        Args:
          base: weights of the decoder.
          adapters: those that the training goes on with.
          reference: whether there will be a reference.
        """
        if self.lora is None:
            return {BASE: base} if reference else None
        return {BASE: base, **({ADAPTERS: adapters} if reference and adapters else {})}

    def weights(self, params: Mapping[str, Any], frozen: Frozen) -> Params:
        """Weights of the decoder as it now is, differentiable by ``params``."""
        if self.lora is None:
            return params[MODEL]
        return self._merged(frozen[BASE], params[ADAPTERS])

    def merged(self, params: Mapping[str, Any], frozen: Frozen) -> Params:
        """`weights` once for good, outside of a compiled program."""
        if self.lora is None:
            return params[MODEL]
        return jax.jit(self.weights)(params, frozen)

    def reference(self, frozen: Frozen) -> Params:
        """Weights of the decoder as it was; ``frozen`` must have been made with ``reference``."""
        if ADAPTERS not in frozen:
            return frozen[BASE]
        return self._merged(frozen[BASE], frozen[ADAPTERS])

    def _merged(self, base: Params, adapters: Params) -> Params:
        assert self.lora is not None
        return lora.merge(base, adapters, llama.rules(self.cfg), self.lora)
