"""The network that writes all headlines, and those that go on from it, each trained once."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.english_headlines.headlines import PROMPTS, grammar, judged
from benchmarks.entangled_headlines.training import optimiser
from jaxcore.data.completions import Encoder
from jaxcore.data.images.pipeline import Stage
from jaxcore.generate import pad_left
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.tokenizers import Tokenizer
from jaxcore.train import EXIT_INTERRUPTED, OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Lines
from jaxcore.train.lora import LoRA
from jaxcore.train.losses.preference import Preference
from jaxcore.train.rollouts import Sampling, sample
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.fine_tuning import OfflineTask, token_log_probs
from jaxcore.train.tasks.lm import LanguageTask
from jaxcore.train.tasks.preference import PreferenceTask
from jaxcore.weights.decoders import load_decoder
from jaxcore.weights.export import export_run, save_language

OUTCOMES = {"naive": "outcome", "iv": "reward", "oracle": "worth"}
"""Policies, and the number in the lines of the logs that each one follows."""
GENTLY = "gently"
"""Behind the name of a policy: a third of the rate, so that it stays nearer to what it knows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is trained and measured: as little as one core can do while one waits."""

    rows: int = 4000  # of the logs
    learned: int = 80  # updates of the imitation of all headlines
    packed: int = 64  # tokens of a row of several headlines; a pair has shorter ones
    batch: int = 4  # such rows
    preferred: int = 40  # updates of each policy
    pairs: int = 8  # in a batch
    each: int = 24  # headlines on every topic that a policy is measured on
    rates: tuple[float, float] = (1e-3, 1.5e-4)  # of imitation and of preferences
    beta: float = 0.3  # pull to the network that writes all headlines
    gap: float = 1.5  # outcomes of a pair differ by more
    rank: int = 8
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    @classmethod
    def smoke(cls) -> "Sizes":
        """Everything once."""
        few: dict[str, Any] = {"learned": 2, "preferred": 2, "each": 2, "targets": ("q_proj",)}
        return cls(rows=60, batch=2, pairs=2, gap=0.5, rank=2, **few)

    @property
    def lora(self) -> LoRA:
        """Low-rank adapters of the attention: its gradients cost the least."""
        return LoRA(rank=self.rank, alpha=2.0 * self.rank, targets=self.targets)


@dataclasses.dataclass(frozen=True)
class Study:
    """One seed of the experiment."""

    base: str  # see `FineTuningTask`
    work: Path  # with logs.jsonl and adjusted.jsonl
    sizes: Sizes
    seed: int

    def learned(self) -> Path:
        """The run of the network that writes all headlines."""
        task = LanguageTask(
            base=self.base,
            adapters=True,
            lora=self.sizes.lora,
            data=self.work / "logs.jsonl",
            chat=False,
            eval_entries=self.sizes.batch,
            stages=(Stage(steps=None, patch=self.sizes.packed, batch_size=self.sizes.batch),),
        )
        steps, how = self.sizes.learned, optimiser(self.sizes.rates[0])
        shape = ScheduleConfig(name="warmup_cosine", warmup_steps=steps // 4)
        return self._run("learned", task, steps, dataclasses.replace(how, schedule=shape))

    def preferred(self, name: str) -> Path:
        """The run that goes on from there, and prefers what has the better outcome of one kind."""
        followed, *how = name.split()
        rate = self.sizes.rates[1] / (3 if GENTLY in how else 1)
        start = self.work / "learned_adapters"
        if not start.exists():
            export_run(self.learned(), start, adapters=True)
        task = PreferenceTask(
            base=self.base,
            adapters_from=start,
            data=self.work / "adjusted.jsonl",
            outcome=OUTCOMES[followed],
            least_gap=self.sizes.gap,
            preference=Preference(beta=self.sizes.beta),
            chat=False,
            eval_entries=self.sizes.pairs,
            stages=(Stage(steps=None, patch=self.sizes.packed, batch_size=self.sizes.pairs),),
        )
        place = name.replace(" ", "_")
        return self._run(place, task, self.sizes.preferred, optimiser(rate))

    def _run(self, name: str, task: OfflineTask, steps: int, optim: OptimConfig) -> Path:
        often: dict[str, Any] = {"log_every": 5, "save_every": 20, "tensorboard": False}
        cfg = TrainConfig(steps=steps, seed=self.seed, optim=optim, **often)
        place, reporter = self.work / name, Lines(items=task.items_name)
        if fit(task.settled(), cfg, place, reporter=reporter).interrupted:
            raise SystemExit(EXIT_INTERRUPTED)  # the same command goes on from here
        return place

    def measured(self, run: Path) -> dict[str, Any]:
        """Figures of headlines on every topic, sampled at temperature 1."""
        policy, base = load_decoder(run, which="last"), load_decoder(self.learned(), which="last")
        cfg, words = policy.cfg, policy.tokenizer
        assert words is not None
        encoder = Encoder(vocab_size=cfg.vocab_size, tokenizer=words, chat=False)
        prompts = [encoder.prompt(prompt, prompt) for prompt in PROMPTS]
        tokens, valid = map(jnp.asarray, pad_left(prompts, bucket=1))
        settings = Sampling(group=self.sizes.each, max_new_tokens=18)
        weights, key = llama.unstacked(policy.params), jax.random.key(self.seed)
        drawn = sample(weights, cfg, tokens, valid, key, settings, eos=words.eos, pad=words.pad)
        rows = zip(np.asarray(drawn.tokens), np.asarray(drawn.mask), strict=True)
        texts = [words.decode(row[there].tolist()).strip() for row, there in rows]
        both = zip(*(jnp.split(x, len(PROMPTS)) for x in (drawn.texts, drawn.valid)), strict=True)
        told = [token_log_probs(base.params, ids, there, cfg, 1024) for ids, there in both]
        own: Any = drawn.logps
        apart = own - jnp.concatenate(told)[:, tokens.shape[1] :]
        gone = jnp.sum(jnp.where(drawn.mask, apart, 0), axis=1)
        return judged(texts) | {"KL": float(gone.mean())}


def tiny(folder: Path) -> str:
    """A folder with a network of random weights that knows the words of the headlines."""
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if not folder.exists():
        engine: Any = Engine(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        options: Any = {"initial_alphabet": letters, "show_progress": False}
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<end>"], **options)
        engine.train_from_iterator(sorted(grammar())[::200], trainer)
        cfg = LlamaConfig.tiny(vocab_size=400, max_positions=64, tied=True, depth=1)
        params = llama.init(jax.random.key(0), cfg)
        save_language(folder, cfg, params, Tokenizer(engine=engine, eos=(0,)))
    return str(folder)
