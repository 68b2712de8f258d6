"""POPE, MME and VLind-Bench: published files read, answers scored; files that are not theirs."""

import json

import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.benchmarks import BENCHMARKS, Question, mme, pope, report, vlind
from jaxcore.estimators.causalmm.benchmarks.running import table


def asked(*truths, **fields):
    return [Question(text="?", truth=truth, **fields) for truth in truths]


def test_pope_has_quirks_that_the_strict_reading_has_not():
    questions = asked("no", "no", "yes", "yes", "no")
    answers = ["I do not know", "There is no dog, yes", "There is no dog, yes", "maybe", "No."]
    official, strict = (pope.score(questions, answers, parse) for parse in ("official", "strict"))
    assert (official["accuracy"], strict["accuracy"]) == (4 / 5, 2 / 5)
    assert (official["recall"], official["precision"], official["yes_ratio"]) == (0.5, 1.0, 0.2)
    assert pope.score(asked("no"), ["no"]) == {
        "accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0, "unknown": 0,
    }  # fmt: skip


def test_mme_counts_questions_and_pictures():
    questions = [
        *asked("yes", "no", group="existence", part="1.jpg"),
        *asked("yes", "no", group="existence", part="2.jpg"),
        *asked("yes", "no", group="code_reasoning", part="1.jpg"),
    ]
    answers = ["Yes", "no.", "Yes, a dog", "There is none: no", "other", "NO"]
    found = mme.score(questions, answers)
    assert found["existence"] == found["perception"] == 75 + 50
    assert found["code_reasoning"] == found["cognition"] == 50 + 0
    assert found["yes_ratio"] == 2 / 6


def vlind_files(folder):
    record = {
        "concept": "colour", "context_id": 3, "context": "Blue grass", "factual_context": "Grass",
        "true_statement": "Grass is blue.", "false_statement": "Grass is green.",
        "existent_noun": "grass", "non-existent_noun": "a cat", "best_img_id": "4",
        "aggregated_human_label_good_images": {"0": 1, "4": 3, "9": 2},
    }  # fmt: skip
    (folder / "data.json").write_text(json.dumps([record, record]))
    return record


def test_vlind_asks_and_scores_by_stages(tmp_path):
    vlind_files(tmp_path)
    questions = vlind.load(tmp_path, None)
    assert len(questions) == 2 * (6 + 4)
    first = questions[0]
    assert first.text.startswith(
        "Only respond in True or False.\nStatement: Grass is green.\nBased"
    )
    folder = tmp_path / "images"
    assert first.image == folder / "factual/colour/3_Grass/0.jpg"
    assert questions[2].image == folder / "counterfactual/colour/3_Blue grass/4.jpg"
    assert questions[4].image is None and "Context: Blue grass\n" in questions[4].text
    right = [question.truth.title() for question in questions]
    assert vlind.score(questions, right) == {
        "S_CK": 1.0, "S_VP": 1.0, "S_CB": 1.0, "S_LP": 1.0, "CB": 1.0, "LP": 1.0, "true_ratio": 0.5,
    }  # fmt: skip
    # The first instance fails at common sense, the second with one of two pictures.
    answers = list(right)
    answers[0] = answers[10 + 8] = "I would say False" if right[0] == "True" else "True"
    found = vlind.score(questions, answers)
    expected = {"S_CK": 0.5, "S_VP": 1.0, "S_CB": 1.0, "S_LP": 0.5, "CB": 1.0, "LP": 0.75}
    assert {name: found[name] for name in expected} == expected
    collapsed = vlind.score(questions, ["True"] * len(questions))
    assert collapsed["true_ratio"] == 1.0 and collapsed["S_LP"] == 0.0


def test_published_files_are_read(tmp_path):
    record = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    (tmp_path / "coco_pope_random.json").write_text(json.dumps(record) + "\n" + json.dumps(record))
    (question, _) = pope.load(tmp_path / "coco_pope_random.json", tmp_path / "images")
    assert (question.truth, question.image) == ("yes", tmp_path / "images/a.jpg")
    (tmp_path / "count.txt").write_text("1.jpg\tOne?\tYes\n1.jpg\tTwo?\tNo\tNo\n")
    (tmp_path / "notes.txt").write_text("nothing of MME")
    assert [q.truth for q in mme.load(tmp_path, None)] == ["yes", "no"]


@pytest.mark.parametrize(
    ("name", "content", "load", "sentence"),
    [
        ("a.json", "", pope.load, "found none"),
        ("a.json", '{"text": 3}\n{}', pope.load, "Expected a text as 'text' in"),
        ("a.json", '{"text": "?", "label": "no", "image": "../x"}', pope.load, "inside"),
        ("count.txt", "1.jpg Is it?", mme.load, "with tabs between them, in line 1"),
        ("other.txt", "x", mme.load, "Expected files of tasks"),
        ("data.json", "[]", vlind.load, "found none"),
        ("data.json", "[3]", vlind.load, "found 3"),
        ("data.json", '[{"concept": "a"}]', vlind.load, "Expected a text as 'context'"),
        ("data.json", "{", vlind.load, "no JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, load, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / name, None)


def test_a_report_has_greedy_and_sampled_scores_and_the_share_of_yes():
    questions = asked("yes", "no", "yes")

    def answer(question, number, seed):
        return "no" if seed == 1 and number == 0 else question.truth

    found = report(BENCHMARKS["pope"], questions, answer, seeds=(0, 1))
    assert found.greedy["accuracy"] == 1.0 and found.answers == ["yes", "no", "yes"]
    assert found.mean("accuracy") == pytest.approx(5 / 6)
    assert found.deviation("accuracy") == pytest.approx(2**0.5 / 6)
    assert "yes_ratio" in table({"plain": found}) and "sampled" in table({"plain": found})
    with pytest.raises(UserError, match="Expected questions to ask, found none"):
        report(BENCHMARKS["pope"], [], answer)
    with pytest.raises(UserError, match="each of 3 questions, found 1"):
        pope.score(questions, ["yes"])
