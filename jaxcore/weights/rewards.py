"""Reward models that a training has left: scores of texts in the units of the outcome."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.typing import Params
from jaxcore.weights.decoders import frozen_of, tuned_task
from jaxcore.weights.loading import Which

if TYPE_CHECKING:
    from jaxcore.tokenizers import Tokenizer
    from jaxcore.train.policy import Policy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RewardModel:
    """Scores of completions, a function of prompt and completion alone.

    Attributes:
      policy: which decoder, with or without adapters.
      params: of the training: decoder or adapters, head, mean and deviation of the outcome.
      frozen: the base under adapters.
      tokenizer: None where texts came as tokens.
      deconfounder: what is known of the deconfounding that its rewards came from; None: nothing.
    """

    policy: "Policy"
    params: Params
    frozen: Any
    tokenizer: "Tokenizer | None"
    deconfounder: Mapping[str, Any] | None

    def rewards(self, tokens: Int[Array, "b t"], valid: Bool[Array, "b t"]) -> Float[Array, " b"]:
        """Rewards of texts, compiled once for each shape.

        Args:
          tokens: of prompts and completions, padded on either side.
          valid: False for padding.
        """
        return _rewards()(self.params, self.frozen, tokens, valid, policy=self.policy)


@functools.cache
def _rewards() -> Any:
    from jaxcore.train.tasks.reward import rewards_of

    return jax.jit(rewards_of, static_argnames="policy")


def load_reward(run: str | Path, which: Which = "best") -> RewardModel:
    """A reward model from a run of ``jaxcore train lm-reward``.

    It warns where nothing is known of how its rewards were deconfounded.

    Args:
      run: the run directory.
      which: checkpoint.

    Raises:
      UserError: no such run, or its base is not where it was.
    """
    from jaxcore.train import load_params, read_config
    from jaxcore.train.tasks.reward import RewardTask

    task = tuned_task(run)
    if not isinstance(task, RewardTask):
        raise UserError(f"Expected the run of a reward model, found none in {run}.")
    known = read_config(run).get("extra", {}).get("deconfounder")
    if not isinstance(known, Mapping):
        known = None
        warnings.warn(
            f"Nothing is known of how the rewards of {run} were freed of confounders: "
            "--deconfounder of its training names the report.",
            stacklevel=2,
        )
    return RewardModel(
        policy=task.policy,
        params=load_params(run, which),
        frozen=jax.device_put(frozen_of(task, run)),
        tokenizer=task.words(),
        deconfounder=known,
    )
