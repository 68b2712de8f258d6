"""A decoder learns texts: to foresee the next token, of all of a text or of completions alone."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.bounds import Above, AtMost
from jaxcore.data.scored import read_scored
from jaxcore.data.texts import Rows, pack_completions, read_texts
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.places import read_once
from jaxcore.train.policy import Policy
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss
from jaxcore.train.tasks.fine_tuning import OfflineTask
from jaxcore.typing import Batch, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageTask(OfflineTask):
    """Next-token cross-entropy of packed texts (SFT): a mean over all tokens that count.

    Lines of the data: see `jaxcore.data.texts.read_texts`. With ``best`` they hold outcomes, see
    `jaxcore.data.scored`, and the completions with the highest ones are learned.

    >>> task = LanguageTask(network=LlamaConfig.tiny(), data=Path("texts.jsonl"))
    >>> LanguageTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm"
    best: Annotated[float, Above(0), AtMost(1)] | None = None  # share of each prompt's completions
    outcome: str = "reward"  # name of the outcome in the lines, which says what is best

    def check(self) -> None:
        """Read the texts before anything is written.

        Raises:
          UserError: see `OfflineTask.check`.
        """
        super().check()
        if len({stage.patch for stage in self.stages}) > 1:
            raise UserError("Expected rows of one length in all stages, found several.")
        self.rows()
        if self.held_out is not None:
            self.rows(self.held_out)

    def rows(self, path: Path | None = None) -> Rows:
        """Packed rows of the texts."""
        return _rows(self, path or self.data)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are packed rows."""
        count = len(self.rows().tokens)
        return [("texts", count, 1, count)]

    def batch(
        self, which: Sequence[int] | np.ndarray, length: int, path: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Packed rows of the texts; see `OfflineTask`."""
        return {name: value[np.asarray(which)] for name, value in self.rows(path)._asdict().items()}

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Sum of the cross-entropies of the tokens that count, and how many these are."""
        return Loss(*_loss(self.weights(variables, frozen), batch, self.network, self.chunk))

    def metric_names(self) -> tuple[str, ...]:
        """Mean cross-entropy of a token in nats, and its exponential."""
        return ("loss", "perplexity")

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Over rows of the held-out texts."""
        stage, total, weight = self.stages[0], 0.0, 0.0
        rows = self.rows(self.held_out)
        judged = self.judged(len(rows.tokens))
        rows = {name: value[judged] for name, value in rows._asdict().items()}
        for first in range(0, len(rows["tokens"]), stage.batch_size):
            batch = {name: value[first : first + stage.batch_size] for name, value in rows.items()}
            missing = stage.batch_size - len(batch["tokens"])
            # Rows of padding count nothing, and let one program serve all batches.
            batch = {name: np.pad(a, ((0, missing), (0, 0))) for name, a in batch.items()}
            part = _evaluated(
                state.eval_params, frozen, batch, policy=self.policy, chunk=self.chunk
            )
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


@functools.partial(jax.jit, static_argnames=("policy", "chunk"))
def _evaluated(
    params: Params, frozen: Frozen, batch: Batch, *, policy: Policy, chunk: int
) -> tuple[Array, Array]:
    return _loss(policy.weights(params, frozen), batch, policy.cfg, chunk)


@read_once(4)
def _rows(task: LanguageTask, path: Path) -> Rows:
    length, encoder = task.stages[0].patch, task.encoder()
    if task.best is None:
        return read_texts(path, length, encoder)
    scored = read_scored(path, encoder, outcome=task.outcome)
    return pack_completions([scored.completions[i] for i in scored.highest(task.best)], length)
