"""VLind-Bench: does a model see what is unusual, or say what is usual?

Lee et al. 2024, "VLind-Bench: measuring language priors in large vision-language models". Each
instance is asked about common knowledge (CK), what is seen (VP), text against common knowledge (CB)
and pictures against it (LP); later questions count where earlier ones were answered right.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.benchmarks.questions import (
    Question,
    check_pairs,
    inside,
    ratio,
    text_of,
)
from jaxcore.json_files import read_json

VOTES = 2  # people who approved of a picture, at least
_ASKED = (
    "Only respond in True or False.\n{before}Statement: {statement}\n"
    "Based on {basis}, is the given statement true or false?"
)
_MAX_BYTES = 2**26


def load(path: Path, images: Path | None) -> list[Question]:
    """Questions of ``data.json``, with pictures below ``images/factual`` and ``counterfactual``.

    The questions about text (CB) have no picture.

    Args:
      path: the file, or the folder that holds it.
      images: folder with ``factual`` and ``counterfactual``; default: ``images`` beside the file.

    Raises:
      UserError: no such file, or an instance that lacks a field.
    """
    path = path / "data.json" if path.is_dir() else path
    what = "instances of VLind-Bench"
    records = read_json(path, what=what, expect=list, max_bytes=_MAX_BYTES)
    if not records:
        raise UserError(f"Expected {what} in {path}, found none.")
    questions: list[Question] = []
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise UserError(f"Expected {what} in {path}, found {record!r}.")
        where = f"instance {number} of {path}"
        questions += _instance(record, str(number), images or path.parent / "images", where)
    return questions


def _instance(record: Mapping[str, Any], group: str, images: Path, where: str) -> list[Question]:
    concept, context, factual = (
        text_of(record, name, where) for name in ("concept", "context", "factual_context")
    )
    true, false = (text_of(record, f"{name}_statement", where) for name in ("true", "false"))
    there = text_of(record, "existent_noun", where)
    absent = record.get("non-existent_noun", record.get("non_existent_noun"))
    votes = record.get("aggregated_human_label_good_images")
    best = record.get("best_img_id")
    number = record.get("context_id")
    if not isinstance(absent, str) or not isinstance(votes, Mapping) or best is None:
        raise UserError(
            "Expected the fields non-existent_noun, aggregated_human_label_good_images and "
            f"best_img_id in {where}."
        )
    usual = inside(images, f"factual/{concept}/{number}_{factual}/0.jpg", where)

    def unusual(image: Any) -> Path:
        name = f"counterfactual/{concept}/{number}_{context}/{image}.jpg"
        return inside(images, name, where)

    def asked(part: str, statement: str, truth: str, image: Path | None, basis: str) -> Question:
        before = f"Context: {context}\n" if part == "CB" else ""
        text = _ASKED.format(before=before, statement=statement, basis=basis)
        return Question(text=text, truth=truth, image=image, group=group, part=part)

    sense, seen = "common sense", "the image"
    out = [
        asked("CK", false, "true", usual, sense),
        asked("CK", true, "false", usual, sense),
        asked("VP", f"There is {there} in the given image.", "true", unusual(best), seen),
        asked("VP", f"There is {absent} in the given image.", "false", unusual(best), seen),
        asked("CB", true, "true", None, "the context"),
        asked("CB", false, "false", None, "the context"),
    ]
    for image, count in votes.items():
        if isinstance(count, int | float) and count >= VOTES:
            for statement, truth in ((true, "true"), (false, "false")):
                out.append(asked(f"LP {image}", statement, truth, unusual(image), seen))
    return out


def score(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """The pipeline of the benchmark, each as a share.

    An instance passes a stage where both of its questions are answered right. S_CK and S_VP are
    means over all instances, S_CB over those that pass CK, S_LP over those that pass VP and CB (and
    with it CK), of the share of their pictures that pass; CB and LP are over all.

    Args:
      questions: of :func:`load`.
      answers: of the model; the first word "true" or "false" in each counts.

    Raises:
      UserError: not as many answers as questions.

    >>> asked = [Question(text="", truth=t, group="0", part="CK") for t in ("true", "false")]
    >>> score(asked, ["True.", "It is false"])["S_CK"]
    1.0
    """
    check_pairs(questions, answers)
    passed: dict[str, dict[str, bool]] = {}
    said_true = 0
    for question, answer in zip(questions, answers, strict=True):
        found = re.search(r"\b(true|false)\b", answer.lower())
        said = found[0] if found else ""
        said_true += said == "true"
        parts = passed.setdefault(question.group, {})
        parts[question.part] = parts.get(question.part, True) and said == question.truth
    groups = list(passed.values())
    pictures = [[ok for part, ok in g.items() if part.startswith("LP")] for g in groups]

    def through(*stages: str) -> list[int]:
        return [i for i, g in enumerate(groups) if all(g.get(stage, False) for stage in stages)]

    reached = [i for i in through("CK", "VP", "CB") if pictures[i]]
    every = [ok for oks in pictures for ok in oks]
    return {
        "S_CK": len(through("CK")) / len(groups),
        "S_VP": len(through("VP")) / len(groups),
        "S_CB": ratio(len(through("CK", "CB")), len(through("CK"))),
        "S_LP": ratio(sum(sum(pictures[i]) / len(pictures[i]) for i in reached), len(reached)),
        "CB": len(through("CB")) / len(groups),
        "LP": ratio(sum(every), len(every)),
        "true_ratio": said_true / len(answers),
    }
