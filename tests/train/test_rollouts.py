"""What a decoder writes itself, and the log-probabilities it wrote it with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.generate import pad_left
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train.rollouts import Sampling, sample

CFG = LlamaConfig.tiny(vocab_size=13)
EOS, PAD = 2, 0
TOKENS, VALID = pad_left([[3, 1, 4, 1], [5, 9]], bucket=4)
SAMPLING = Sampling(group=3, max_new_tokens=6, temperature=0.7, top_k=5, banned=(PAD, 1))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype),
        llama.param_shapes(CFG),
    )


def roll(params, key=0, rows=slice(None), settings=SAMPLING):
    chosen = TOKENS[rows], VALID[rows]
    return sample(params, CFG, *chosen, jax.random.key(key), settings, eos=[EOS], pad=PAD)


@pytest.fixture(scope="module")
def found(params):
    return roll(params)


def test_completions_of_a_prompt_follow_each_other(found):
    np.testing.assert_array_equal(found.prompts, np.repeat(TOKENS, 3, axis=0))
    np.testing.assert_array_equal(found.prompts_valid, np.repeat(VALID, 3, axis=0))
    assert found.texts.shape == found.valid.shape == (6, 10)
    assert len({tuple(row) for row in np.asarray(found.tokens)}) > 3  # they differ


def test_a_mask_counts_the_end_and_nothing_behind_it(found):
    for tokens, mask, ended, length in zip(
        found.tokens, found.mask, found.ended, found.lengths, strict=True
    ):
        written = list(np.asarray(tokens))
        assert bool(ended) == (EOS in written)
        expected = written.index(EOS) + 1 if ended else len(written)
        assert int(length) == expected == int(mask.sum())
        assert all(token == PAD for token in written[expected:])
    assert 0 < int(found.ended.sum()) < 6  # the case holds both


def test_log_probabilities_are_those_of_the_text_read_anew(params, found):
    logits = llama.apply(params, found.texts, CFG, valid=found.valid).logits
    assert logits is not None
    logits = logits[:, 3:-1]
    plain = np.asarray(jax.nn.log_softmax(logits))
    shaped = np.asarray(logits).copy()
    shaped[..., [PAD, 1]] = -np.inf
    fifth = np.sort(shaped, axis=-1)[..., -5:-4]
    shaped = np.where(shaped < fifth, -np.inf, shaped / 0.7)
    drawn = np.asarray(jax.nn.log_softmax(shaped))
    for wanted, seen in ((plain, found.logps), (drawn, found.drawn_logps)):
        own = np.take_along_axis(wanted, np.asarray(found.tokens)[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(seen, np.where(found.mask, own, 0), atol=1e-5)


def test_banned_tokens_are_never_drawn(found):
    assert not np.isin(np.asarray(found.tokens)[np.asarray(found.mask)], [PAD, 1]).any()


def test_a_completion_depends_on_its_prompt_and_number_alone(params, found):
    alone = roll(params, rows=slice(0, 1))
    np.testing.assert_array_equal(alone.tokens, found.tokens[:3])
    fewer = roll(params, settings=dataclasses.replace(SAMPLING, group=2))
    kept = np.asarray(found.tokens).reshape(2, 3, -1)[:, :2].reshape(4, -1)
    np.testing.assert_array_equal(fewer.tokens, kept)
    assert np.any(np.asarray(roll(params, key=1).tokens) != np.asarray(found.tokens))


def test_what_cannot_be_sampled_is_refused(params):
    with pytest.raises(UserError, match="may end a completion"):
        roll(params, settings=Sampling(banned=(EOS,)))
    with pytest.raises(UserError, match="at most 64 tokens"):
        roll(params, settings=Sampling(max_new_tokens=61))
