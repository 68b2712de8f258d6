"""MME: 14 tasks, two questions about every picture, whose answers are yes and no.

Fu et al. 2023, "MME: a comprehensive evaluation benchmark for multimodal large language models".
"""

from collections.abc import Sequence
from pathlib import Path

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.benchmarks.questions import (
    Question,
    check_pairs,
    inside,
    lines_of,
)

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)


def load(path: Path, images: Path | None) -> list[Question]:
    """Questions of all ``<task>.txt`` in a folder, or of one: picture, question, answer, by tabs.

    Args:
      path: folder or file.
      images: folder of the pictures, in it one per task or none; default: that of the file.

    Raises:
      UserError: no tasks; a line that has not three columns, or another answer than yes and no.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    files = [file for file in files if file.stem in (*PERCEPTION, *COGNITION)]
    if not files:
        raise UserError(f"Expected files of tasks such as existence.txt in {path}, found none.")
    questions = []
    for file in files:
        task, folder = file.stem, images or file.parent
        folder = folder / task if (folder / task).is_dir() else folder
        for number, line in enumerate(lines_of(file, "a task of MME"), 1):
            if not line.strip():
                continue
            parts = line.rstrip("\n").split("\t")
            if len(parts) not in (3, 4) or parts[2].strip().lower() not in ("yes", "no"):
                raise UserError(
                    f"Expected picture, question and Yes or No, with tabs between them, in line "
                    f"{number} of {file}, found {line.strip()!r}."
                )
            image = inside(folder, parts[0].strip(), str(file))
            truth = parts[2].strip().lower()
            questions.append(
                Question(text=parts[1], truth=truth, image=image, group=task, part=parts[0])
            )
    return questions


def score(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Points per task: percent of questions answered right, plus percent of pictures with both.

    An answer is yes or no, or begins with it within four characters; others are wrong. "perception"
    sums ten tasks (2000 at most), "cognition" four (800).

    Args:
      questions: of one task or several.
      answers: of the model.

    Raises:
      UserError: not as many answers as questions.

    >>> asked = [Question(text="?", truth=t, group="count", part="a.jpg") for t in ("yes", "no")]
    >>> score(asked, ["Yes", "yes it is"])["count"]
    50.0
    """
    check_pairs(questions, answers)
    right: dict[str, dict[str, list[bool]]] = {}
    said_yes = 0
    for question, answer in zip(questions, answers, strict=True):
        said = parsed(answer)
        said_yes += said == "yes"
        pictures = right.setdefault(question.group, {})
        pictures.setdefault(question.part, []).append(said == question.truth)
    points = {}
    for task, pictures in right.items():
        single = [hit for hits in pictures.values() for hit in hits]
        both = [all(hits) for hits in pictures.values()]
        points[task] = 100 * (sum(single) / len(single) + sum(both) / len(both))
    sums = {
        name: sum(points.get(task, 0.0) for task in tasks)
        for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION))
        if any(task in points for task in tasks)
    }
    return {**points, **sums, "yes_ratio": said_yes / len(answers)}


def parsed(answer: str) -> str:
    """What the official script takes for the answer: "yes", "no" or "other".

    >>> parsed("No, there is not"), parsed("It is"), parsed("YES")
    ('no', 'other', 'yes')
    """
    answer = answer.strip().lower()
    if answer in ("yes", "no"):
        return answer
    first = answer[:4]
    return "yes" if "yes" in first else "no" if "no" in first else "other"
