"""A decoder learns to foresee the next token of texts."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.bounds import Count
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.data.texts import Rows, read_texts
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.tokenizers import read_tokenizer
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss
from jaxcore.train.tasks.network import NetworkTask
from jaxcore.typing import Batch, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageTask(NetworkTask):
    """Next-token cross-entropy of packed texts; ``patch`` of a stage is the length of its rows.

    >>> task = LanguageTask(network=LlamaConfig.tiny(), texts=Path("texts.jsonl"))
    >>> LanguageTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm"
    changeable: ClassVar[tuple[str, ...]] = ("held_out",)
    model: str = dataclasses.field(default="llama", metadata={"option": False})
    network: LlamaConfig = dataclasses.field(default_factory=LlamaConfig)
    texts: Path  # JSON lines, see `jaxcore.data.texts.read_texts`
    held_out: Path | None = None  # of the same kind, for the evaluation; None: that of the training
    tokenizer: Path | None = None  # folder with a tokenizer, for lines with "text"
    chunk: Count = 8192  # logits of a token that are held at a time
    stages: tuple[Stage, ...] = (Stage(steps=None, patch=512, batch_size=8),)

    def check(self) -> None:
        """Read the texts before anything is written.

        Raises:
          UserError: something is missing or damaged, or rows are longer than the network allows.
        """
        longest = max(stage.patch for stage in self.stages)
        if longest > self.network.max_positions:
            raise UserError(
                f"Expected rows (--stages.0.patch) of at most {self.network.max_positions} "
                f"tokens, found {longest}."
            )
        self.rows(self.stages[0].patch)

    def rows(self, length: int, path: Path | None = None) -> Rows:
        """Packed rows of the texts."""
        return _rows(path or self.texts, length, self.network.vocab_size, self.tokenizer)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are packed rows."""
        count = len(self.rows(self.stages[0].patch).tokens)
        return [("texts", count, 1, count)]

    def batches(self, seed: int, start_step: int) -> Stream:
        """Rows in random order."""
        if len({stage.patch for stage in self.stages}) > 1:
            raise UserError("Expected rows of one length in all stages, found several.")
        rows = self.rows(self.stages[0].patch)

        def make(stage: Stage, draws: Sequence[Draw]) -> dict[str, np.ndarray]:
            chosen = [draw.entry for draw in draws]
            return {name: value[chosen] for name, value in rows._asdict().items()}

        return stream(
            make,
            self.stages,
            entries={"texts": len(rows.tokens)},
            seed=seed,
            start_step=start_step,
            num_threads=0,
        )

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Sum of the cross-entropies of the tokens that count, and how many these are."""
        return Loss(*_loss(variables["params"], batch, self.network, self.chunk))

    def metric_names(self) -> tuple[str, ...]:
        """Mean cross-entropy of a token in nats, and its exponential."""
        return ("loss", "perplexity")

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Over all rows of the held-out texts."""
        stage = self.stages[0]
        rows, total, weight = self.rows(stage.patch, self.held_out)._asdict(), 0.0, 0.0
        for first in range(0, len(rows["tokens"]), stage.batch_size):
            batch = {name: value[first : first + stage.batch_size] for name, value in rows.items()}
            missing = stage.batch_size - len(batch["tokens"])
            # Rows of padding count nothing, and let one program serve all batches.
            batch = {name: np.pad(a, ((0, missing), (0, 0))) for name, a in batch.items()}
            part = _evaluated(state.eval_params, batch, cfg=self.network, chunk=self.chunk)
            total, weight = total + float(part[0]), weight + float(part[1])
        if not weight:
            raise UserError("Expected a token to foresee in the held-out texts, found none.")
        return {"loss": total / weight, "perplexity": math.exp(min(total / weight, 700))}


def _loss(
    params: Params, batch: Batch, cfg: LlamaConfig, chunk: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    tokens, segments = jnp.asarray(batch["tokens"]), jnp.asarray(batch["segments"])
    options: dict[str, Any] = {"segments": segments, "valid": segments > 0}
    hidden = llama.apply(params, tokens, cfg, **options, logits="none").hidden
    targets, there = llama.next_tokens(tokens, segments)
    counted = jnp.asarray(batch["counted"])
    following = jnp.concatenate([counted[:, 1:], jnp.zeros_like(counted[:, :1])], axis=1)
    return llama.next_token_loss(params, hidden, targets, there & following, cfg, chunk)


_evaluated = functools.partial(jax.jit, static_argnames=("cfg", "chunk"))(_loss)


@functools.lru_cache(maxsize=4)
def _rows(path: Path, length: int, vocab_size: int, tokenizer: Path | None) -> Rows:
    encode = None if tokenizer is None else read_tokenizer(tokenizer).encode
    return read_texts(path, length, vocab_size=vocab_size, encode=encode)
