"""A language model that sees learns to answer questions about coloured cells."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxcore.bounds import Count, Index
from jaxcore.data.images import colour_questions as drawn
from jaxcore.data.images.colour_questions import Asking, Questions
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.errors import UserError
from jaxcore.figures import grid
from jaxcore.models import llava
from jaxcore.models.clip import CLIPConfig
from jaxcore.models.llama import LlamaConfig
from jaxcore.models.llava import LlavaConfig
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.network import NetworkTask
from jaxcore.typing import Batch, Key, Params

_EPOCH = 12_800  # pictures are drawn anew for ever; the number only sets the length of an epoch
_SHOWN = 8  # pictures in a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionStage(Stage):
    """A part of the training with questions of one kind."""

    patch: int = drawn.SIDE
    noise: float = 0.3  # standard deviation of the pixels, whose colours are in [-1, 1]
    prior: float = 0.5  # share of answers that the colour alone tells; 0.5 ties them to no colour


class Told(NamedTuple):
    """What a network answers.

    Attributes:
      right: whether the likelier of yes and no is the answer.
      chance: probability of the answer among the two.
    """

    right: Float[np.ndarray, " n"]
    chance: Float[np.ndarray, " n"]


def small_network(**changes: Any) -> LlavaConfig:
    """LLaVA in the smallest form that learns the questions: 0.3 million parameters.

    >>> small_network().image_tokens
    4
    """
    shared: dict[str, Any] = {"width": 64, "num_heads": 4, "mlp_width": 128}
    vision = CLIPConfig(image_size=drawn.SIDE, patch_size=6, depth=3, projection=0, **shared)
    # Room for a question and the one token of its answer.
    language = LlamaConfig(
        vocab_size=24, depth=4, num_kv_heads=4, head_dim=16, max_positions=8, **shared
    )
    parts = {"vision": vision, "language": language, "image_token": drawn.IMAGE}
    return LlavaConfig(**{**parts, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourQuestionsTask(NetworkTask):
    """Train LLaVA on drawn pictures; the loss counts the one token of the answer.

    First it learns to see, then, on pictures that it can hardly make out, that some colours are
    likelier than others: a language prior that contradicts the picture now and then.

    >>> task = ColourQuestionsTask(network=small_network())
    >>> ColourQuestionsTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "colour_questions"
    changeable: ClassVar[tuple[str, ...]] = ("eval_questions", "eval_seed")
    model: str = dataclasses.field(default="llava", metadata={"option": False})
    network: LlavaConfig = dataclasses.field(default_factory=small_network)
    stages: tuple[QuestionStage, ...] = (QuestionStage(batch_size=128),)
    eval_questions: Count = 2000  # of each kind: answers that contradict the prior, and any
    eval_seed: Index = 0
    eval_noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        network = self.network
        if (
            network.vision.image_size != drawn.SIDE
            or network.image_token != drawn.IMAGE
            or network.vocab_size < len(drawn.WORDS)
        ):
            raise UserError(
                f"Expected a network for pictures of {drawn.SIDE} pixels, with {drawn.IMAGE} as "
                f"image token and at least {len(drawn.WORDS)} tokens, found "
                f"{network.vision.image_size}, {network.image_token} and {network.vocab_size}."
            )

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`."""
        return [("drawn", _EPOCH, 1, _EPOCH)]

    def init_params(self, key: Key) -> Params:
        """Matrices of variance 1 / inputs, embeddings of 1/4, biases 0.

        From the published first values, made for wide networks, this small one does not learn.
        """
        leaves, tree = jax.tree_util.tree_flatten_with_path(self.entry.param_shapes(self.network))
        drawn = [
            _first(jax.random.fold_in(key, i), jax.tree_util.keystr(path, simple=True), leaf)
            for i, (path, leaf) in enumerate(leaves)
        ]
        return jax.tree.unflatten(tree, drawn)

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Cross-entropy of the answer among all tokens."""
        logits = answer_logits(variables["params"], batch["images"], batch["tokens"], self.network)
        target = jnp.where(batch["answers"], drawn.YES, drawn.NO)
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, target)
        hits = jnp.argmax(logits, axis=-1) == target
        return Loss(*Mean.of(errors), metrics={"accuracy": Mean.of(hits.astype(jnp.float32))})

    def batches(self, seed: int, start_step: int) -> Stream:
        """Drawn pictures; row by row from the seed and the position in the stream."""

        def make(stage: QuestionStage, draws: Sequence[Draw]) -> dict[str, np.ndarray]:
            asking = Asking(noise=stage.noise, prior=stage.prior)
            return self.rows(drawn.rows(asking, draws))

        # Threads would only wait for each other: rows are short work in Python.
        options: dict[str, Any] = {"entries": {"drawn": _EPOCH}, "num_threads": 1}
        return stream(make, self.stages, seed=seed, start_step=start_step, **options)

    def rows(self, questions: Questions) -> dict[str, np.ndarray]:
        """A batch of questions."""
        tokens = drawn.prompts(questions.colours, self.network.image_tokens)
        return {"images": questions.images, "tokens": tokens, "answers": questions.answers}

    def metric_names(self) -> tuple[str, ...]:
        """Share of right answers, and mean probability of the right one among yes and no."""
        kinds = ("conflict", "balanced")
        return tuple(f"{kind}_{what}" for kind in kinds for what in ("accuracy", "chance"))

    def evaluation_size(self) -> int:
        """Two kinds of questions."""
        return 2 * self.eval_questions

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """On pictures that can hardly be made out; "conflict" contradicts the prior every time."""
        found = {}
        options: dict[str, Any] = {"seed": self.eval_seed, "noise": self.eval_noise}
        for kind in ("conflict", "balanced"):
            questions = drawn.questions(self.eval_questions, answers=kind, **options)
            told = answer(state.eval_params, questions, self.network)
            found[f"{kind}_accuracy"] = float(told.right.mean())
            found[f"{kind}_chance"] = float(told.chance.mean())
        return found

    def pictures(self, state: TrainState, frozen: Frozen) -> dict[str, np.ndarray]:
        """Some questions of the evaluation, with and without noise, and the network's answers."""
        lines = []
        for noise in (0.0, self.eval_noise):
            questions = drawn.questions(_SHOWN, seed=self.eval_seed, noise=noise)
            told = answer(state.eval_params, questions, self.network)
            cells = []
            for image, colour, chance in zip(
                questions.images, questions.colours, told.chance, strict=True
            ):
                shown = np.kron(
                    0.5 + image / (2 * drawn.SPREAD if noise else 2), np.ones((8, 8, 1))
                )
                cells.append((shown, f"{list(drawn.COLOURS)[colour]}: {chance:.2f}"))
            lines.append(cells)
        return {"questions": grid(lines)}


def answer_logits(
    params: Params, images: Float[Array, "n h w c"], tokens: Array, cfg: LlavaConfig
) -> Float[Array, "n v"]:
    """Logits of the token after each question."""
    out = llava.apply(params, tokens, cfg, images=images, logits="last")
    assert out.logits is not None
    return out.logits[:, 0]


@functools.partial(jax.jit, static_argnames="cfg")
def _odds(params: Params, images: Array, tokens: Array, *, cfg: LlavaConfig) -> Array:
    logits = answer_logits(params, images, tokens, cfg)
    return logits[:, drawn.YES] - logits[:, drawn.NO]


def answer(params: Params, questions: Questions, cfg: LlavaConfig) -> Told:
    """Ask a network.

    >>> cfg = small_network()
    >>> asked = drawn.questions(5, noise=0.3)
    >>> params = ColourQuestionsTask(network=cfg).init_params(jax.random.key(0))
    >>> answer(params, asked, cfg).chance.shape
    (5,)
    """
    tokens = drawn.prompts(questions.colours, cfg.image_tokens)
    odds = np.asarray(_odds(params, questions.images, tokens, cfg=cfg), np.float64)
    towards = np.where(questions.answers, odds, -odds)
    return Told((towards > 0).astype(np.float64), 1 / (1 + np.exp(-towards)))


def _first(key: Key, path: str, leaf: jax.ShapeDtypeStruct) -> Array:
    shape, dtype = leaf.shape, leaf.dtype
    if path.endswith("scale"):
        return jnp.ones(shape, dtype)
    if path.endswith("bias"):
        return jnp.zeros(shape, dtype)
    if path.endswith("kernel"):
        inputs = shape[1:] if "layers" in path else shape
        fan_in = int(np.prod(inputs[:3])) if "patch" in path else inputs[0]
        return jax.random.normal(key, shape, dtype) * fan_in**-0.5
    # The rows of the projection to logits are the columns of a matrix.
    return jax.random.normal(key, shape, dtype) * (shape[-1] ** -0.5 if "head" in path else 0.5)
