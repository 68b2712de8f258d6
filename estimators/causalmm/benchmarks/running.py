"""One benchmark, several ways to decode, greedy and sampled side by side."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.benchmarks.questions import Benchmark, Question


class Answer(Protocol):
    """A model with a way to decode."""

    def __call__(self, question: Question, number: int, seed: int | None) -> str:
        """Answer one question.

        Args:
          question: what is asked.
          number: of the question, to draw by: a question's answer does not depend on the others.
          seed: of sampling; None is greedy.
        """
        ...


class Report(NamedTuple):
    """Scores of one way to decode.

    Attributes:
      greedy: score by name.
      sampled: score by name of each seed.
      seconds: per answer, without the first one, which compiles.
      answers: greedy ones.
    """

    greedy: dict[str, float]
    sampled: list[dict[str, float]]
    seconds: float
    answers: list[str]

    def mean(self, name: str) -> float:
        """Mean over seeds of a score."""
        return float(np.mean([scores[name] for scores in self.sampled]))

    def deviation(self, name: str) -> float:
        """Standard deviation over seeds of a score, NaN of a single one."""
        if len(self.sampled) < 2:
            return float("nan")
        return float(np.std([scores[name] for scores in self.sampled], ddof=1))


def report(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answer: Answer,
    *,
    seeds: Sequence[int] = (),
    track: Callable[[Sequence[Question]], Iterator[Question]] = iter,
) -> Report:
    """Ask all questions, greedily and once per seed.

    Args:
      benchmark: how answers are scored.
      questions: of it.
      answer: the model.
      seeds: of sampling.
      track: shows progress.

    Raises:
      UserError: no questions.

    >>> from jaxcore.estimators.causalmm.benchmarks import BENCHMARKS
    >>> asked = [Question(text="Is there a dog?", truth="yes")]
    >>> found = report(BENCHMARKS["pope"], asked, lambda question, number, seed: "Yes", seeds=[0])
    >>> found.greedy["accuracy"], found.mean("yes_ratio")
    (1.0, 1.0)
    """
    if not questions:
        raise UserError("Expected questions to ask, found none.")
    seconds: list[float] = []

    def ask(seed: int | None) -> list[str]:
        found = []
        for number, question in enumerate(track(questions)):
            begun = time.perf_counter()
            found.append(answer(question, number, seed))
            seconds.append(time.perf_counter() - begun)
        return found

    answers = ask(None)
    sampled = [benchmark.score(questions, ask(seed)) for seed in seeds]
    scores = benchmark.score(questions, answers)
    return Report(scores, sampled, float(np.mean(seconds[1:] or seconds)), answers)


def table(reports: Mapping[str, Report]) -> str:
    """Scores of several ways to decode: greedy, and mean and deviation over seeds.

    >>> one = {"accuracy": 0.5}
    >>> print(table({"plain": Report(one, [], 0.1, [])}))
    plain: 0.100 s per answer
      accuracy                greedy   0.5000
    """
    lines = []
    for way, found in reports.items():
        lines.append(f"{way}: {found.seconds:.3f} s per answer")
        for name, value in found.greedy.items():
            line = f"  {name:<22}  greedy {value:8.4f}"
            if found.sampled:
                line += f"  sampled {found.mean(name):8.4f} +- {found.deviation(name):.4f}"
            lines.append(line)
    return "\n".join(lines)
