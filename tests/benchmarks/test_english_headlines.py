"""The demonstration in English: its word rules, its logs, and all of it with a tiny network."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.english_headlines import __main__ as command
from benchmarks.english_headlines import headlines
from benchmarks.english_headlines.headlines import SIGNS, TEMPLATES
from jaxcore.estimators.deconfound.simulate import entangled_headlines


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_feature_is_read_off_every_template(template):
    for signs in itertools.product(*((None, *words) for words in SIGNS.values())):
        text = headlines.headline(template, "pilots", "welcome", "idea", signs)
        assert headlines.features(text) == [float(sign is not None) for sign in signs], text
        assert text in headlines.grammar()


def test_words_of_frames_carry_no_feature():
    assert not np.any([headlines.features(text) for text in TEMPLATES])
    bare = [text for text in headlines.grammar() if ":" not in text and "," not in text]
    assert {tuple(headlines.features(text))[::2] for text in bare} == {(0.0, 0.0)}


def test_texts_off_the_templates_are_judged_by_their_words_too():
    texts = [
        "Shocking: voters reject the plan",
        "It is SHOCKING what experts say this week, isn't it?",
        "Todays shockingly long list",  # whole words alone count
        "The plan praised by pilots, data show",
    ]
    found = headlines.judged(texts)
    assert found["J"] == pytest.approx((-0.8 + 1.0 + 0.0 + 1.0) / 4)
    assert found["J_valid"] == pytest.approx((-0.8 + 1.0) / 2)
    assert found["validity"] == 0.5
    assert [found[f"P({name})"] for name in "aes"] == [0.5, 0.25, 0.5]


def test_logs_say_what_the_simulated_world_holds(tmp_path):
    headlines.write_logs(tmp_path / "logs.jsonl", 300, seed=3)
    lines = [json.loads(line) for line in (tmp_path / "logs.jsonl").read_text().splitlines()]
    logs = entangled_headlines(300, seed=3, design=headlines.DESIGN)
    np.testing.assert_array_equal([headlines.features(x["text"]) for x in lines], logs.features)
    np.testing.assert_array_equal([x["outcome"] for x in lines], logs.Y)
    assert all(x["text"].strip() in headlines.grammar() for x in lines)
    assert {x["prompt"] for x in lines} == set(headlines.PROMPTS)


def test_the_reward_of_the_lines_is_that_of_the_instrument(tmp_path):
    source, output = tmp_path / "logs.jsonl", tmp_path / "adjusted.jsonl"
    headlines.write_logs(source, 4000, seed=3)
    found = headlines.adjust(source, output)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    changes = np.array([x["outcome"] - x["reward"] for x in lines])
    places = np.array([x["confounders"]["prominence"] for x in lines])
    assert np.polyfit(places, changes, 1)[0] == pytest.approx(found["delta"]["iv"]["delta"])
    assert found["delta"]["iv"]["delta"] == pytest.approx(2, abs=0.15)
    assert found["effects"]["naive"]["s"] > 0.2 > found["effects"]["naive"]["a"]
    for name in ("iv", "plm"):
        told = [found["effects"][name][sign] for sign in SIGNS]
        assert told == pytest.approx(headlines.DESIGN.effects, abs=0.2)


@pytest.mark.slow
def test_all_of_it_runs_and_goes_on_where_it_was(tmp_path, capfd):
    options = command.Options(output=tmp_path, work=tmp_path / "work", policies=("iv",), smoke=True)
    command.main(options)
    first = json.loads((tmp_path / "english_headlines.json").read_text())
    assert first["policies"].keys() == {"base", "iv"}
    assert first["policies"]["base"]["KL"] == pytest.approx(0, abs=1e-4)
    assert abs(first["policies"]["iv"]["KL"]) < 0.1  # two updates
    assert "best possible J is 1.8" in (tmp_path / "english_headlines.txt").read_text()
    assert (tmp_path / "english_headlines.png").stat().st_size > 1000
    assert "step 2/2: loss" in "".join(capfd.readouterr())
    command.main(options)
    again = json.loads((tmp_path / "english_headlines.json").read_text())
    assert again["policies"]["iv"]["J"] == first["policies"]["iv"]["J"]
    assert "step 2/2: loss" not in "".join(capfd.readouterr())  # nothing was trained again
