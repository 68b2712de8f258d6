"""Logs of texts: read, refused by line, rewarded, paired; published layouts from small files."""

import json

import numpy as np
import pytest

from jaxcore.data.logs import Logs, bag_of_words, from_outcomes, read_logs, write_rewards
from jaxcore.data.logs.layouts import read_mind, read_stack_exchange, read_upworthy, within_tests
from jaxcore.errors import UserError

ROW = {
    "prompt": "p",
    "text": "a headline",
    "outcome": 0.5,
    "confounders": {"hour": 9},
    "instruments": {"slot": 1},
    "groups": {"author": "ann", "week": 3},
    "features": [0.1, 0.2],
    "note": "kept",
}


def _written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_come_by_name(tmp_path):
    path = _written(tmp_path / "logs.jsonl", ROW, ROW | {"outcome": None, "text": "x"})
    logs = read_logs(path)
    assert len(logs) == 2 and logs.prompts == ["p", "p"] and logs.texts[1] == "x"
    assert np.isnan(logs.outcome[1])
    assert logs.matrix("confounders").tolist() == [[9.0], [9.0]]
    assert logs.groups["author"].tolist() == ["ann", "ann"]
    assert logs.groups["week"].tolist() == [3, 3] and logs.features.shape == (2, 2)
    with pytest.raises(UserError, match="confounders among hour, found 'day'"):
        logs.chosen("confounders", ["day"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcome": "many"}, "a number as outcome in line 2"),
        ({"confounders": {"day": 1}}, "as in the first line \\(hour\\) in line 2"),
        ({"confounders": {"hour": "nine"}}, "a number as hour in line 2"),
        ({"groups": {"author": 1.5, "week": 3}}, "as group author in line 2"),
        ({"features": [1.0]}, "2 features in line 2 .*, found 1"),
        ({"features": "long"}, "a list of numbers as features"),
        ({"text": 3}, "a string as text"),
        ({"confounders": [1]}, "confounders by name"),
        ({"features": None}, "in all lines"),
    ],
)
def test_lines_of_another_kind_are_refused_by_their_number(tmp_path, change, words):
    path = _written(tmp_path / "logs.jsonl", ROW, ROW | change)
    with pytest.raises(UserError, match=words) as raised:
        read_logs(path)
    assert "\n" not in str(raised.value)


def test_files_without_rows_or_outcomes_are_refused(tmp_path):
    for content, words in (
        ("", "found none"),
        ('{"text": "a"}\n', "an outcome in line 1"),
        ('{"outcome": 1}\n', "a text or its features in line 1"),
        ("[1]\n[2]\n", "line 1"),
        ('{"text": "a", "outcome": NaN}\n{"a": 1}\n', "line 1"),
    ):
        path = tmp_path / "logs.jsonl"
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            read_logs(path)
    with pytest.raises(UserError, match="no such file"):
        read_logs(tmp_path / "nothing.jsonl")
    with pytest.raises(UserError, match="at most 1 rows"):
        read_logs(_written(tmp_path / "two.jsonl", ROW, ROW), max_rows=1)


def test_rewards_join_the_lines_they_belong_to(tmp_path):
    source = _written(tmp_path / "logs.jsonl", ROW, ROW | {"text": "b"}, ROW | {"text": "c"})
    out = tmp_path / "out.jsonl"
    assert write_rewards(source, out, [1.5, 2.5], [True, False, True]) == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["text"], r["reward"], r["note"]) for r in rows] == [
        ("a headline", 1.5, "kept"),
        ("c", 2.5, "kept"),
    ]
    with pytest.raises(UserError, match=r"out\.jsonl"):
        write_rewards(source, out, [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="the file has changed"):
        write_rewards(source, tmp_path / "more.jsonl", [1.0] * 4)
    assert not (tmp_path / "more.jsonl").exists()


def test_words_that_say_nothing_are_left_out():
    features = bag_of_words(["a b c", "a b", "a d"], 9)
    assert features.tolist() == [[1.0], [1.0], [0.0]]  # a is in all, c and d in one
    with pytest.raises(UserError, match="give features"):
        bag_of_words(["one", "two"])


def test_pairs_are_of_one_prompt_and_one_group_and_the_better_text_comes_first():
    rng = np.random.default_rng(0)
    r, prompt, author = rng.normal(size=200), rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    r[7] = np.nan
    pairs = from_outcomes(r, prompt, within=author, margin=0.5, per_row=3)
    assert len(pairs.chosen) > 100 and 7 not in {*pairs.chosen, *pairs.rejected}
    assert np.all(r[pairs.chosen] - r[pairs.rejected] > 0.5)
    for label in (prompt, author):
        np.testing.assert_array_equal(label[pairs.chosen], label[pairs.rejected])
    with pytest.raises(UserError, match="differ by more than 99"):
        from_outcomes(r, prompt, margin=99)


def test_upworthy_tells_pooled_rates_and_contrasts_within_tests(tmp_path):
    path = tmp_path / "upworthy.csv"
    path.write_text(
        "clickability_test_id,headline,excerpt,impressions,clicks,created_at\n"
        "t1,One,More,100,10,2014-01-06 10:00:00\n"
        "t1,Two,More,100,20,2014-01-06 10:00:00\n"
        "t2,Three,Else,1000,10,2014-02-03 10:00:00\n"
    )
    logs = read_upworthy(path)
    np.testing.assert_allclose(logs.outcome, [0.1, 0.2, 0.01])
    np.testing.assert_allclose(within_tests(logs), [-0.05, 0.05, 0])
    assert logs.groups["week"].tolist() == ["2014-02", "2014-02", "2014-06"]
    assert logs.confounders["log_impressions"][2] == pytest.approx(np.log(1000))
    path.write_text("headline\nOne\n")
    with pytest.raises(UserError, match="clickability_test_id"):
        read_upworthy(path)


def test_answers_come_in_the_order_of_their_time(tmp_path):
    answers = [
        {"text": "late", "score": 1, "created": "2020-01-01T05:00:00Z", "author": "bob"},
        {"text": "early", "score": 7, "created": "2020-01-01T01:00:00Z", "author": "ann"},
    ]
    question = {"question": "Why?", "created": "2020-01-01T00:00:00Z", "answers": answers}
    logs = read_stack_exchange(_written(tmp_path / "q.jsonl", question))
    assert logs.texts == ["early", "late"] and logs.prompts == ["Why?", "Why?"]
    assert logs.confounders["hours"].tolist() == [1.0, 5.0]
    assert logs.confounders["place"].tolist() == [0.0, 1.0]
    assert logs.groups["author"].tolist() == ["ann", "bob"]
    answers[0]["score"] = "high"
    with pytest.raises(UserError, match="answers with score in line 1"):
        read_stack_exchange(_written(tmp_path / "q.jsonl", question))
    with pytest.raises(UserError, match="a question and a list of answers in line 1"):
        read_stack_exchange(_written(tmp_path / "q.jsonl", {"title": "Why?"}))


def test_news_count_what_was_shown_and_clicked(tmp_path):
    (tmp_path / "news.tsv").write_text(
        "N1\tsports\tgolf\tA title\tAbout\turl\t[]\t[]\nN2\tnews\tworld\tNever shown\t\t\t\t\n"
    )
    behaviors = tmp_path / "behaviors.tsv"
    behaviors.write_text("1\tU1\tnow\tN9\tN1-1 N3-0\n2\tU2\tnow\t\tN1-0\n")
    logs = read_mind(tmp_path)
    assert logs.texts == ["A title"] and logs.outcome.tolist() == [0.5]
    assert logs.groups["category"].tolist() == ["sports"]
    behaviors.write_text("1\tU1\tnow\tN9\tN1\n")
    with pytest.raises(UserError, match="N1-0 in line 1"):
        read_mind(tmp_path)
    behaviors.write_text("1\tU1\n")
    with pytest.raises(UserError, match="at least 5 fields"):
        read_mind(tmp_path)
    with pytest.raises(UserError, match=r"news\.tsv|behaviors\.tsv"):
        read_mind(tmp_path / "nowhere")


def test_columns_may_be_handed_in():
    logs = Logs(texts=["a"], outcome=np.ones(1))
    assert logs.matrix("instruments") is None
