"""TRL as a rival: its trainers, one step at a time, on the weights and data that ours have."""

import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.language import Rival
from jaxcore.models.llama import LlamaConfig

END = 2
"""Token that ends a completion."""


def word(token: int) -> str:
    """A token as a text, which TRL reads; special ones are no part of others."""
    return f"<{token}>"


def text(tokens: Sequence[int]) -> str:
    """Tokens as a text."""
    return " ".join(map(word, tokens))


def engine(vocab_size: int) -> Any:
    """One word for each token, of the library ``tokenizers``."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word(token): token for token in range(vocab_size)}
    made = Tokenizer(models.WordLevel(words, unk_token=word(0)))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]  # as documented
    return made


def _tokenizer(vocab_size: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": word(0), "eos_token": word(END), "unk_token": word(0)}
    return PreTrainedTokenizerFast(tokenizer_object=engine(vocab_size), **names)


class Steps:
    """A trainer of TRL in a thread of its own, which goes on for one step whenever it is called.

    Args:
      make: the trainer, from its callbacks; called in the thread.

    Attributes:
      losses: of every step.
    """

    def __init__(self, make: Callable[[list[Any]], Any]) -> None:
        from transformers import TrainerCallback

        self.losses: list[float] = []
        self._go: queue.Queue[bool] = queue.Queue()
        self._done: queue.Queue[BaseException | None] = queue.Queue()
        own = self

        class Gate(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                own._go.get()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                own._done.put(None)

        def run() -> None:
            import torch

            torch.set_num_threads(harness.cores())
            torch.manual_seed(0)
            try:
                trainer = make([Gate()])
                step = trainer.training_step

                def recorded(*args: Any, **kwargs: Any) -> Any:
                    loss = step(*args, **kwargs)
                    self.losses.append(float(loss))
                    return loss

                trainer.training_step = recorded
                trainer.train()
            except BaseException as error:
                self._done.put(error)

        threading.Thread(target=run, daemon=True).start()

    def __call__(self) -> None:
        """One step of training."""
        self._go.put(True)
        if (error := self._done.get()) is not None:
            raise error


def _arguments(batch: int, rate: float) -> dict[str, Any]:
    """What both trainers are told: plain float32 on the processor, no further work."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch,
        "max_steps": 1_000_000,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1_000_000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "beta": 0.1,
    }


def dpo(
    cfg: LlamaConfig, weights: dict[str, np.ndarray], pairs: Sequence[dict[str, Any]], rate: float
) -> Steps:
    """A trainer of DPO whose batch is all pairs."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt": text(row["prompt"]), **{n: f" {text(row[n])}" for n in ("chosen", "rejected")}}
        for row in pairs
    ]
    model, words = Rival(cfg, weights).model.train(), _tokenizer(cfg.vocab_size)

    def make(callbacks: list[Any]) -> Any:
        return DPOTrainer(
            model=model,
            ref_model=Rival(cfg, weights).model,
            args=DPOConfig(**_arguments(len(rows), rate)),
            train_dataset=Dataset.from_list(rows),
            processing_class=words,
            callbacks=callbacks,
        )

    return Steps(make)


def grpo(
    cfg: LlamaConfig,
    weights: dict[str, np.ndarray],
    prompts: Sequence[Sequence[int]],
    *,
    group: int,
    new: int,
    reward: Callable[[Sequence[int]], float],
    rate: float,
) -> Steps:
    """A trainer of GRPO whose batch is all prompts; all completions have ``new`` tokens."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, words = Rival(cfg, weights).model.train(), _tokenizer(cfg.vocab_size)
    folder = tempfile.mkdtemp()  # from which the trainer loads the reference
    model.save_pretrained(folder)
    model = type(model).from_pretrained(folder).train()

    def rewarded(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [reward(tokens) for tokens in completion_ids]

    def make(callbacks: list[Any]) -> Any:
        arguments = _arguments(len(prompts) * group, rate)
        return GRPOTrainer(
            model=model,
            reward_funcs=rewarded,
            args=GRPOConfig(
                **arguments,
                num_generations=group,
                max_completion_length=new,
                generation_kwargs={"min_new_tokens": new},
                loss_type="grpo",
                temperature=1.0,
                top_k=0,
            ),
            train_dataset=Dataset.from_list([{"prompt": text(prompt)} for prompt in prompts]),
            processing_class=words,
            callbacks=callbacks,
        )

    return Steps(make)


def rollout(
    cfg: LlamaConfig, weights: dict[str, np.ndarray], prompts: np.ndarray, group: int, new: int
) -> Callable[[], Any]:
    """`transformers` draws ``group`` completions of each prompt."""
    rival = Rival(cfg, weights)
    torch = rival.torch
    ids = torch.from_numpy(np.repeat(prompts, group, axis=0).astype(np.int64))

    def call() -> Any:
        with torch.inference_mode():
            return rival.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
                eos_token_id=END,
            ).numpy()

    return call
