"""Simulated headlines: their grammar, their confounding, and what deconfounding makes of them."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.deconfound import Deconfound, simulate
from jaxcore.estimators.deconfound.simulate import (
    EOS,
    FEATURES,
    WORDS,
    HeadlineDesign,
    counterfactuals,
    entangled_headlines,
    features_of,
    grammatical,
    tokens_of,
)


@pytest.fixture(scope="module")
def logs():
    return entangled_headlines(20_000, seed=0)


def _slopes(reward, features):
    X = np.column_stack([np.ones(len(reward)), features])
    return np.linalg.lstsq(X, reward, rcond=None)[0][1:]


def test_headlines_are_grammatical_and_carry_their_features(logs):
    assert logs.tokens.shape[1] == simulate.LENGTH and len(WORDS) == len(set(WORDS)) == 40
    assert grammatical(logs.tokens).all()
    np.testing.assert_array_equal(features_of(logs.tokens), logs.features)
    assert tokens_of(logs.texts()[:50]).tolist() == logs.tokens[:50].tolist()
    assert logs.tau == pytest.approx(logs.features @ np.array([1.0, 0.8, -0.8]))
    assert np.mean(logs.tau) == pytest.approx(0.4, abs=0.05)  # that of the base policy


def test_both_orders_of_the_tail_occur_alike(logs):
    both = logs.tokens[(logs.features[:, :2] == 1).all(axis=1)]
    ends = [tuple(row[row > 2][-2:]) for row in both]
    first = np.mean([WORDS[pair[0]] in FEATURES["e"] for pair in ends])
    assert first == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "doctors science praise plan",
        "science shocking stunning doctors praise plan",
        "science doctors praise",
        "science doctors praise plan today tonight",
        "science doctors praise plan shocking",
        "",
    ],
)
def test_what_the_grammar_cannot_write_is_told(text):
    assert not grammatical(tokens_of([text]))[0]


def test_words_behind_the_end_do_not_count():
    tokens = tokens_of(["science doctors praise plan today"])
    cut = tokens.copy()
    cut[0, 5] = EOS  # before "today"
    assert features_of(tokens)[0].tolist() == [0, 1, 0]
    assert features_of(cut)[0].tolist() == [0, 0, 0] and not grammatical(cut)[0]


def test_naive_slopes_mislead_and_rewards_are_near_the_truth(logs):
    """The gates: iv within 3 errors, plm within 0.03, outcome on confounder below 1.85."""
    naive = _slopes(logs.Y, logs.features)
    assert naive[0] <= 0.1 and naive[2] > 0  # a looks bad, s looks good
    iv = Deconfound(route="iv").fit(logs.Y, logs.C, instruments=logs.Z)
    assert iv.delta[0] == pytest.approx(2, abs=3 * iv.se[0])
    a, e, s = _slopes(iv.adjusted_reward, logs.features)
    assert a > 0.7 and s < -0.5 and e == pytest.approx(0.8, abs=0.1)
    plm = Deconfound(route="plm").fit(logs.Y, logs.C, features=logs.features)
    assert plm.delta[0] == pytest.approx(2, abs=0.03)
    alone = Deconfound(route="ols_c").fit(logs.Y, logs.C)
    assert alone.delta[0] < 1.85
    assert alone.delta[0] == pytest.approx(1.740, abs=0.05)


def test_counterfactuals_differ_in_their_features_alone():
    tokens, features = counterfactuals(3, seed=2)
    assert grammatical(tokens).all()
    np.testing.assert_array_equal(features_of(tokens), features)
    marked = [i for words in FEATURES.values() for i in map(WORDS.index, words)]
    for eight in tokens.reshape(3, 8, -1):
        frames = {tuple(t for t in row if t not in marked and t > 0) for row in eight.tolist()}
        assert len(frames) == 1
        assert len({tuple(row) for row in eight.tolist()}) == 8


def test_designs_of_ones_own(logs):
    design = HeadlineDesign(slopes=(0.0, 0.0, 0.0), delta=0.0, noise=0.0)
    free = entangled_headlines(500, seed=3, design=design)
    np.testing.assert_array_equal(free.Y, free.tau)
    length = entangled_headlines(500, seed=3, effect=lambda t: (t > 2).sum(axis=1) * 1.0)
    assert set(length.tau) <= {4.0, 5.0, 6.0, 7.0}
    assert design.best == pytest.approx(1.8)
    again = entangled_headlines(500, seed=3, design=design)
    np.testing.assert_array_equal(again.tokens, free.tokens)


def test_unknown_words_and_no_rows_are_refused():
    with pytest.raises(UserError, match="found 'aliens'"):
        tokens_of(["science aliens praise plan"])
    with pytest.raises(UserError, match="found 9 words"):
        tokens_of([" ".join(["plan"] * 9)])
    with pytest.raises(UserError, match="at least one row"):
        entangled_headlines(0)
