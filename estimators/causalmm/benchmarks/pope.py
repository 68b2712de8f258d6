"""POPE: is there a certain thing in the picture?

Li et al. 2023, "Evaluating object hallucination in large vision-language models".
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.benchmarks.questions import (
    Question,
    check_pairs,
    inside,
    ratio,
    text_of,
)
from jaxcore.json_files import read_json_lines

Parse: TypeAlias = Literal["official", "strict"]


def load(path: Path, images: Path | None) -> list[Question]:
    """Questions of ``<set>_pope_<split>.json``: a line for each, ``image``, ``text``, ``label``.

    Args:
      path: the file.
      images: folder of the pictures; default: that of the file.

    Raises:
      UserError: no such file, or a line that is none of its kind.
    """
    questions = []
    where = str(path)
    for record in read_json_lines(path, what="questions of POPE"):
        questions.append(
            Question(
                text=text_of(record, "text", where),
                truth=text_of(record, "label", where).lower(),
                image=inside(images or path.parent, text_of(record, "image", where), where),
            )
        )
    if not questions:
        raise UserError(f"Expected questions of POPE in {path}, found none.")
    return questions


def score(
    questions: Sequence[Question], answers: Sequence[str], parse: Parse = "official"
) -> dict[str, float]:
    """Precision, recall, F1, accuracy, and the share of answers "yes".

    Args:
      questions: with the truths "yes" and "no".
      answers: of the model.
      parse: "official" looks for the letters of the truth anywhere in the answer, so that "I do not
        know" is a "no", and "There is no dog, yes" right either way; "strict" takes the first word
        that is one of the two, and what has none is wrong.

    Returns:
      ``unknown`` is the share of questions whose truth is neither.

    Raises:
      UserError: not as many answers as questions.

    >>> questions = [Question(text="Is there a dog?", truth=truth) for truth in ("yes", "no")]
    >>> score(questions, ["Yes.", "Yes."])["accuracy"]
    0.5
    """
    check_pairs(questions, answers)
    counts = dict.fromkeys(("tp", "fn", "tn", "fp"), 0)
    for question, answer in zip(questions, answers, strict=True):
        if question.truth not in ("yes", "no"):
            continue
        right = _right(answer.lower(), question.truth, parse)
        if question.truth == "yes":
            counts["tp" if right else "fn"] += 1
        else:
            counts["tn" if right else "fp"] += 1
    tp, fn, tn, fp = (counts[name] for name in ("tp", "fn", "tn", "fp"))
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
    return {
        "accuracy": (tp + tn) / len(questions),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "yes_ratio": (tp + fp) / len(questions),
        "unknown": (len(questions) - tp - fn - tn - fp) / len(questions),
    }


def _right(answer: str, truth: str, parse: Parse) -> bool:
    if parse == "official":
        return truth in answer
    if parse != "strict":
        raise UserError(f"Expected parse to be 'official' or 'strict', found {parse!r}.")
    found = re.search(r"\b(yes|no)\b", answer)
    return found is not None and found[0] == truth
