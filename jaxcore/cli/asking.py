"""``jaxcore evaluate`` with questions: POPE, MME, VLind-Bench."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxcore.cli.contrast import Contrast
from jaxcore.cli.output import show
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.estimators.causalmm.benchmarks import Question


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking(Contrast):
    """Questions for a language model, as benchmarks publish them.

    Attributes:
      benchmark: whose questions.
      file: of POPE one of its .json files, of MME a folder of .txt, of VLind-Bench data.json.
      images: folder of the pictures; by default that of the file.
      seeds: how often answers are drawn at temperature 1, beside the greedy ones.
      limit: at most so many questions, the first ones.
      max_new_tokens: of each answer.
      suffix: behind each question, such as "Please answer this question with one word.".
    """

    benchmark: Literal["pope", "mme", "vlind"] = "pope"
    file: Path | None = None
    images: Path | None = None
    seeds: int = 0
    limit: int | None = None
    max_new_tokens: int = 16
    suffix: str = ""


def evaluate_answers(model: Path, asking: Asking, out: Path | None, seed: int) -> None:
    """Ask all questions, without and with the contrast, and print scores side by side.

    Args:
      model: folder or file of a language model, see `jaxcore.weights.load_language`.
      asking: what is asked.
      out: folder for ``answers.json``.
      seed: of the first of the draws.
    """
    from jaxcore.atomic import check_writable, write_json
    from jaxcore.cli.progress import track
    from jaxcore.estimators.causalmm.benchmarks import BENCHMARKS, report
    from jaxcore.estimators.causalmm.benchmarks.running import table
    from jaxcore.weights import load_language

    if asking.file is None:
        raise UserError("Expected a file of questions (--asking.file), found none.")
    if asking.seeds < 0 or (asking.limit is not None and asking.limit < 1):
        raise UserError("Expected --asking.seeds from 0 and --asking.limit from 1.")
    if out is not None:
        check_writable(out)
    benchmark = BENCHMARKS[asking.benchmark]
    questions = benchmark.load(asking.file, asking.images)[: asking.limit]
    _check_images(questions)
    way = asking.way()
    loaded = load_language(model)
    if loaded.sight is None and any(question.image is not None for question in questions):
        raise UserError(f"Expected a model that sees, for questions about pictures, found {model}.")
    ways: dict[str, Any] = {"regular": None, **({} if way is None else {"contrast": way})}
    reports = {}
    for name, one in ways.items():
        answer = _Answer(loaded, one, asking)

        def shown(asked: Any, name: str = name) -> Any:
            return track(asked, len(questions), name)

        seeds = range(seed, seed + asking.seeds)
        reports[name] = report(benchmark, questions, answer, seeds=seeds, track=shown)
    show(table(reports))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        content = {
            name: {"settings": None if one is None else one.to_dict(), **reports[name]._asdict()}
            for name, one in ways.items()
        }
        write_json(out / "answers.json", content)
        show(f"written: {out / 'answers.json'}")


def _check_images(questions: "list[Question]") -> None:
    """Before hours of work, not in the middle of it."""
    missing = [q.image for q in questions if q.image is not None and not q.image.is_file()]
    if missing:
        raise UserError(
            f"Expected a picture for every question, found none for {len(missing)} of "
            f"{len(questions)}, such as {missing[0]} (--asking.images)."
        )


class _Answer:
    """A model with a way to decode."""

    def __init__(self, model: Any, way: Any, asking: Asking) -> None:
        self._model, self._way, self._asking = model, way, asking

    def __call__(self, question: "Question", number: int, seed: int | None) -> str:
        import jax

        from jaxcore.data.images import read_image
        from jaxcore.data.images.vision_inputs import as_bytes
        from jaxcore.estimators.causalmm.asking import answer
        from jaxcore.generate import GREEDY, Sampler

        model, asking = self._model, self._asking
        images = [] if question.image is None else [as_bytes(read_image(question.image))]
        ids = model.prompt(f"{question.text} {asking.suffix}".strip(), images=len(images))
        key = jax.random.fold_in(jax.random.key(seed or 0), number)
        sampler = GREEDY if seed is None else Sampler()
        options: dict[str, Any] = {"sampler": sampler, "key": key}
        # All at once: a question has a short answer, and nobody reads it as it comes.
        options |= {"max_new_tokens": asking.max_new_tokens, "chunk": asking.max_new_tokens}
        parts = answer(model, ids, images, self._way, **options)
        return model.tokenizer.decode([i for part in parts for i in part]).strip()
