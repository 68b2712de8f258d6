"""Recipes of language models: texts, rewards, preferences; this library's own, no published ones.

Adapters on SmolLM2 by default; another model, or all of its weights, by options.
"""

from collections.abc import Callable
from typing import Any

from jaxcore.data.images.pipeline import Stage
from jaxcore.train.config import TrainConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.fine_tuning import FineTuningTask
from jaxcore.train.tasks.lm import LanguageTask
from jaxcore.train.tasks.off_policy import OffPolicyTask
from jaxcore.train.tasks.policy_gradient import PolicyGradientTask
from jaxcore.train.tasks.preference import PreferenceTask
from jaxcore.train.tasks.reward import RewardTask
from jaxcore.weights.language import SMOLLM2


def _recipe(make: Callable[..., FineTuningTask], rate: float, epochs: int, batch: int) -> Recipe:
    options: dict[str, Any] = {"base": SMOLLM2, "adapters": True}
    task = make(**options, stages=(Stage(steps=None, patch=512, batch_size=batch),))
    schedule = ScheduleConfig(name="warmup_cosine", warmup_share=0.03)
    optim = OptimConfig(
        learning_rate=rate, betas=(0.9, 0.95), weight_decay=0.0, clip_norm=1.0, schedule=schedule
    )
    train = TrainConfig(steps=1, optim=optim, log_every=10, save_every=200, keep_last=2)
    return Recipe(task=task, train=train, epochs=epochs)


def _sft() -> Recipe:
    """Language model on texts or on completions of prompts (SFT).

    The loss of a token counts the same wherever it stands: a mean over all tokens of a batch.
    """
    return _recipe(LanguageTask, 1e-4, 2, 16)


def _reward() -> Recipe:
    """Reward model of a language model, on outcomes or on preferences.

    Regression on the "reward" that `jaxcore estimate deconfound` writes, unless --objective says
    otherwise.
    """
    return _recipe(RewardTask, 5e-5, 1, 16)


def _dpo() -> Recipe:
    """Language model on preferences (DPO and its relatives).

    The reference is the model that the training starts from.
    """
    return _recipe(PreferenceTask, 5e-6, 1, 8)


def _grpo(steps: int = 200) -> Recipe:
    """Language model on what its own completions earn (GRPO, RLOO, PPO).

    Rewards are those of a model (--reward-models) or of functions (--rewards). Other algorithms:
    --method.algorithm.
    """
    task = PolicyGradientTask(base=SMOLLM2, adapters=True)
    optim = OptimConfig(learning_rate=1e-5, betas=(0.9, 0.99), weight_decay=0.0, clip_norm=1.0)
    train = TrainConfig(steps=steps, optim=optim, log_every=1, save_every=20, keep_last=2)
    return Recipe(task=task, train=train)


def _ipw() -> Recipe:
    """Language model on outcomes of texts that others wrote, weighted by importance.

    Start from a model that was trained on these texts (lm-sft): it stands for their writer.
    """
    return _recipe(OffPolicyTask, 5e-6, 1, 16)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "lm_sft": _sft,
    "lm_reward": _reward,
    "lm_dpo": _dpo,
    "lm_grpo": _grpo,
    "lm_ipw": _ipw,
}
