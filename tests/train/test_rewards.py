"""What completions earn, by name."""

import math

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train import rewards
from jaxcore.train.rewards import Completion, given


def said(text, tokens=(1, 2, 3), ended=True, **line):
    return Completion(text=text, tokens=list(tokens), ended=ended, line=line)


def test_answers_of_the_line_are_matched():
    found = [said(" Paris\n", answer="Paris"), said("In Paris.", answer="Paris")]
    assert given("match", found).tolist() == [1, 0]
    assert given("contains", found).tolist() == [1, 1]
    tokens = [said(None, answer=[1, 2, 3]), said(None, answer=[2, 3]), said(None, answer=[3, 2])]
    assert given("match", tokens).tolist() == [1, 0, 0]
    assert given("contains", tokens).tolist() == [1, 1, 0]
    assert given("brevity", [said("a"), said("", tokens=())]).tolist() == [-3, 0]


@pytest.mark.parametrize("line", [{}, {"answer": 3}, {"answer": [1]}])
def test_a_line_without_an_answer_is_named(line):
    with pytest.raises(UserError, match='Expected a text as "answer" of the prompt'):
        given("match", [said("a", **line)])
    with pytest.raises(UserError, match='Expected a text as "answer"'):
        rewards.check("match", [line], texts=True)
    rewards.check("brevity", [line], texts=True)


def test_a_reward_of_ones_own_may_have_nothing_to_say():
    rewards.register("second", lambda completions: [None, 0.5, math.nan][: len(completions)])
    found = given("second", [said("a")] * 3)
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])
    with pytest.raises(UserError, match="Expected 4 numbers"):
        given("second", [said("a")] * 4)
    with pytest.raises(UserError, match="Expected a new name"):
        rewards.register("match", lambda completions: [])
    rewards.register("words", lambda completions: ["a"])
    with pytest.raises(UserError, match="Expected numbers of the reward 'words'"):
        given("words", [said("a")])
    with pytest.raises(UserError, match="Unknown reward 'mathc': expected one of"):
        given("mathc", [])
