"""What trainings of language models have in common: where they start, what learns, their tokens."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxcore.bounds import Count
from jaxcore.data.completions import Completions, Encoder
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.errors import UserError
from jaxcore.memory import on_host
from jaxcore.models import llama
from jaxcore.models.config import computed_like
from jaxcore.models.llama import LlamaConfig
from jaxcore.places import read_once
from jaxcore.tokenizers import read_tokenizer
from jaxcore.train.lora import LoRA
from jaxcore.train.policy import ADAPTERS, Policy
from jaxcore.train.task import Frozen
from jaxcore.train.tasks.network import NetworkTask
from jaxcore.typing import Key, Params
from jaxcore.weights.adapters import load_adapters
from jaxcore.weights.decoders import Decoder, load_decoder

if TYPE_CHECKING:
    from jaxcore.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningTask(NetworkTask):
    """A decoder goes on from weights: all of it learns, or adapters on it do.

    ``patch`` of a stage is the length of its rows. With a ``base`` the network must be that of the
    weights: `settled` takes it from there.
    """

    reads_start: ClassVar[bool] = True
    referred: ClassVar[bool] = False  # whether the loss compares with the network as it was
    items_name: ClassVar[str] = "rows"
    start_option: ClassVar[str] = "--model"
    changeable: ClassVar[tuple[str, ...]] = ("held_out",)
    model: str = dataclasses.field(default="llama", metadata={"option": False})
    network: LlamaConfig = dataclasses.field(default_factory=LlamaConfig)
    # smollm2, a .gguf file, a folder of Hugging Face's, or a run of this command; None: random
    base: str | None = dataclasses.field(default=None, metadata={"option": "model"})
    adapters: bool = False  # train low-rank adapters, and not the whole network
    lora: LoRA = dataclasses.field(default_factory=LoRA)
    adapters_from: Path | None = None  # folder of adapters (PEFT) that go on being trained
    data: Path = Path("data.jsonl")  # JSON lines
    held_out: Path | None = None  # of the same kind, for the evaluation; None: the training's
    tokenizer: Path | None = None  # folder with a tokenizer; None: that of the base
    chat: bool = True  # prompts take the template of chats, where the tokenizer has one
    chunk: Count = 8192  # logits of a token that are held at a time
    stages: tuple[Stage, ...] = (Stage(steps=None, patch=512, batch_size=8),)

    def problems(self) -> list[str]:
        """Adapters on nothing, and a reference to nothing."""
        found = super().problems()
        if self.base is None and self.policy.lora is not None:
            found.append("base must be the model that adapters are for, found None")
        if self.base is None and self.referred:
            found.append("base must be the model that is the reference, found None")
        return found

    @property
    def policy(self) -> Policy:
        """What learns, and what stays."""
        learns = self.adapters or self.adapters_from is not None
        return Policy(cfg=self.network, lora=self.lora if learns else None)

    def settled(self) -> Self:
        """The same task with what its files say: sizes of the network, form of the adapters.

        Raises:
          UserError: no model or adapters there.
        """
        if self.base is None:
            return self
        decoder = _loaded(self.base, self.network.param_dtype)
        changes: dict[str, Any] = {"network": computed_like(decoder.cfg, self.network)}
        if self.network not in (changes["network"], computed_like(LlamaConfig(), self.network)):
            self.start()
        if self.adapters_from is not None:
            changes["lora"] = _adapters(self.adapters_from, changes["network"])[1]
        return dataclasses.replace(self, **changes)

    def check(self) -> None:
        """Look at model and rows before anything is written.

        Raises:
          UserError: something is missing or damaged, or rows are longer than the network allows.
        """
        longest = max(stage.patch for stage in self.stages)
        if longest > self.network.max_positions:
            raise UserError(
                f"Expected rows (--stages.0.patch) of at most {self.network.max_positions} "
                f"tokens, found {longest}."
            )
        self.start()

    def start(self) -> Decoder | None:
        """The base with its tokenizer; None for a network that begins with random weights.

        Raises:
          UserError: there is none, or the network of the task is another.
        """
        if self.base is None:
            return None
        decoder = _loaded(self.base, self.network.param_dtype)
        if computed_like(decoder.cfg, self.network) != self.network:
            raise UserError(
                f"Expected the network of {self.base}, found another: settled() of the task "
                "takes it from there, and options of --network other than dtype, param-dtype, "
                "scan-blocks and remat are to be left out."
            )
        return decoder

    def encoder(self) -> Encoder:
        """From what files hold to tokens."""
        return Encoder(vocab_size=self.network.vocab_size, tokenizer=self.words(), chat=self.chat)

    def words(self) -> "Tokenizer | None":
        """The tokenizer, if there is one."""
        if self.tokenizer is not None:
            return _tokenizer(self.tokenizer)
        decoder = self.start()
        return None if decoder is None else decoder.tokenizer

    def notes(self) -> tuple[str, ...]:
        """A tokenizer that is not the base's."""
        words, decoder = self.words(), self.start()
        own = None if decoder is None else decoder.tokenizer
        if words is None or own is None or words.fingerprint == own.fingerprint:
            return ()
        return (
            f"the tokenizer of {self.tokenizer} is not that of {self.base}: its tokens, or its "
            "template of chats, mean something else to the weights",
        )

    def init_params(self, key: Key) -> Params:
        """A copy of the base, or adapters; see `jaxcore.train.policy`."""
        decoder = self.start()
        if decoder is None:
            return self.policy.params(key, self.entry.init(key, self.network))
        return self.policy.params(key, decoder.params, self._trained_adapters())

    def frozen(self) -> Frozen:
        """The base, where it stays or is the reference."""
        decoder = self.start()
        if decoder is None:
            return None
        adapters = self._trained_adapters()
        return self.policy.frozen(decoder.params, adapters, reference=self.referred)

    def _trained_adapters(self) -> Params | None:
        if self.adapters_from is None:
            return None
        return _adapters(self.adapters_from, self.network)[0]

    def trainable(self, params: Params) -> Any:
        """Everything."""
        return None

    def mesh_rules(self, mesh: Mesh) -> tuple[tuple[str, PartitionSpec], ...]:
        """Decoders as `llama.sharding_rules` has them; adapters whole on every device."""
        whole = (f"(^|/){ADAPTERS}/", PartitionSpec())
        return (*self.sharding_rules, whole, *llama.sharding_rules(self.network, mesh))

    def cut_note(self, completions: Completions) -> tuple[str, ...]:
        """A sentence on texts that do not fit into rows, if there are any."""
        longest = max(stage.patch for stage in self.stages)
        count = completions.longer(longest)
        if not count:
            return ()
        return (
            f"{count} of {len(completions)} texts have more than {longest} tokens "
            "(--stages.0.patch): the start of their prompt is left out, then the end of the "
            "completion",
        )

    def weights(self, variables: Mapping[str, Any], frozen: Frozen) -> Params:
        """Weights of the decoder inside a loss."""
        return self.policy.weights(variables["params"], frozen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineTask(FineTuningTask):
    """A fine-tuning on data that are there, judged by some of the held-out ones."""

    changeable: ClassVar[tuple[str, ...]] = ("held_out", "eval_entries")
    eval_entries: Count = 1000  # at most so many of the held-out rows, texts or pairs are judged by

    @abc.abstractmethod
    def batch(
        self, which: Sequence[int] | np.ndarray, length: int, path: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Arrays of some entries.

        Args:
          which: numbers of the entries that `counts` counts.
          length: of a row, at most.
          path: of the data; by default those of the training.
        """

    def batches(self, seed: int, start_step: int) -> Stream:
        """Entries in random order."""

        def make(stage: Stage, draws: Sequence[Draw]) -> dict[str, np.ndarray]:
            return self.batch([draw.entry for draw in draws], stage.patch)

        entries = {name: count for name, count, *_ in self.counts()}
        options: dict[str, Any] = {"start_step": start_step, "num_threads": 0}
        return stream(make, self.stages, entries=entries, seed=seed, **options)

    def brief(self) -> Self:
        """Judged by one entry."""
        return dataclasses.replace(self, eval_entries=1)

    def evaluation_size(self) -> int:
        """At most."""
        return self.eval_entries

    def judged(self, count: int) -> np.ndarray:
        """Numbers of the entries that an evaluation looks at, evenly over all of them.

        Args:
          count: of entries.
        """
        return np.unique(np.linspace(0, count - 1, min(count, self.eval_entries)).astype(int))


@read_once(2)
def _loaded(base: str, dtype: str) -> Decoder:
    # In the host's memory: from there each device gets its part.
    with on_host():
        found = load_decoder(base, dtype=dtype)
    return found._replace(params=jax.device_get(found.params))


@read_once(2)
def _tokenizer(folder: Path) -> "Tokenizer":
    return read_tokenizer(folder)


@read_once(2)
def _adapters(folder: Path, cfg: LlamaConfig) -> tuple[Params, LoRA]:
    return load_adapters(folder, llama.param_shapes(cfg), llama.rules(cfg))


def token_log_probs(
    weights: Params, tokens: jax.Array, valid: jax.Array, cfg: LlamaConfig, chunk: int
) -> jax.Array:
    """Log-probability of every token of rows padded on either side; see `llama.token_log_probs`."""
    hidden = llama.apply(weights, tokens, cfg, valid=valid, logits="none").hidden
    return llama.token_log_probs(weights, hidden, tokens, cfg, valid=valid, chunk=chunk)
