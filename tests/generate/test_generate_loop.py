"""One loop over tokens: what a row gets does not depend on the rest of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxcore.errors import UserError
from jaxcore.generate import (
    GREEDY,
    Sampler,
    generate,
    join_rows,
    pad_left,
    repeat_rows,
    stream,
)
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig

CFG = LlamaConfig.tiny(vocab_size=23)
NEW = 6
PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5]]
KEYS = jax.random.split(jax.random.key(7), 3)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.6, leaf.dtype),
        llama.param_shapes(CFG),
    )


def read(params, prompts, bucket=8):
    tokens, valid = pad_left(prompts, bucket=bucket)
    return llama.prefill(params, tokens, CFG, room=NEW, valid=valid)


def anew(params, tokens):
    logits = llama.apply(params, tokens, CFG).logits
    assert logits is not None
    return logits


def run(params, prompts, keys, bucket=8, **options):
    logits, cache = read(params, prompts, bucket)
    options = {"sampler": Sampler(), "max_new_tokens": NEW, **options}
    return generate(llama.step(params, CFG), cache, logits, keys=keys, **options)


def test_rows_do_not_depend_on_batch_or_padding(params):
    together = run(params, PROMPTS, KEYS)
    again = run(params, PROMPTS, KEYS)
    np.testing.assert_array_equal(together.tokens, again.tokens)
    for row in (0, 1):
        alone = run(params, PROMPTS[row : row + 1], KEYS[row : row + 1], bucket=16)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
    other = run(params, PROMPTS, jax.random.split(jax.random.key(8), 3))
    assert np.any(np.asarray(other.tokens) != np.asarray(together.tokens))


def test_the_largest_logit_of_the_text_read_anew(params):
    found = run(params, PROMPTS, KEYS, sampler=GREEDY, keep=("logits", "scores"))
    assert found.kept["logits"].shape == (NEW, 1, 3, 23)
    np.testing.assert_array_equal(found.kept["logits"][:, 0], found.kept["scores"])
    for row, prompt in enumerate(PROMPTS):
        text = jnp.asarray([[*prompt, *np.asarray(found.tokens[row])]])
        logits = anew(params, text)[0, len(prompt) - 1 : -1]
        np.testing.assert_allclose(found.kept["scores"][:, row], logits, atol=1e-4)
        np.testing.assert_array_equal(jnp.argmax(logits, -1), found.tokens[row])


def test_rows_end_by_themselves(params):
    free = np.asarray(run(params, PROMPTS, KEYS).tokens)
    end = int(free[0, 2])
    found = run(params, PROMPTS, KEYS, eos=[end])
    for row in range(3):
        places = np.flatnonzero(free[row] == end)
        length = places[0] + 1 if len(places) else NEW
        assert found.lengths[row] == length
        np.testing.assert_array_equal(found.tokens[row, :length], free[row, :length])
        assert np.all(np.asarray(found.tokens[row, length:]) == end)


def test_a_stream_brings_the_same_tokens(params):
    logits, cache = read(params, PROMPTS)
    options = {"keys": KEYS, "sampler": Sampler(), "max_new_tokens": NEW}
    parts = list(stream(llama.step(params, CFG), cache, logits, **options, chunk=4))
    assert [part.shape[1] for part in parts] == [1, 4, 1]
    np.testing.assert_array_equal(np.concatenate(parts, 1), run(params, PROMPTS, KEYS).tokens)


def test_equal_branches_combined_are_one(params):
    logits, cache = read(params, PROMPTS)
    tripled = repeat_rows(cache, 3)
    found = generate(
        llama.step(params, CFG),
        tripled,
        jnp.tile(logits, (3, 1)),
        keys=KEYS,
        sampler=Sampler(),
        max_new_tokens=NEW,
        combine=Partial(lambda weight, parts: parts[0] + weight * (parts[1] - parts[2]), 0.5),
        branches=3,
        keep=("logits",),
    )
    np.testing.assert_array_equal(found.tokens, run(params, PROMPTS, KEYS).tokens)
    assert found.kept["logits"].shape == (NEW, 3, 3, 23)


def test_branches_of_other_prompts_are_read_on_their_own(params):
    """The second branch scores the tokens that the first one has drawn."""
    logits, cache = read(params, PROMPTS[:1])
    others, second = read(params, PROMPTS[1:2])
    found = generate(
        llama.step(params, CFG),
        join_rows([cache, second]),
        jnp.concatenate([logits, others]),
        keys=KEYS[:1],
        sampler=GREEDY,
        max_new_tokens=NEW,
        combine=lambda parts: parts[0],
        branches=2,
        keep=("logits",),
    )
    text = jnp.asarray([[*PROMPTS[1], *np.asarray(found.tokens[0])]])
    scored = anew(params, text)[0, len(PROMPTS[1]) - 1 : -1]
    np.testing.assert_allclose(found.kept["logits"][:, 1, 0], scored, atol=1e-4)


def test_one_program_for_all_prompts_of_a_bucket(params):
    traced = []

    def counted(step, tokens, cache):
        traced.append(1)
        return step(tokens, cache)

    counts = []
    for seed, temperature, prompts in ((1, 1.0, PROMPTS), (2, 0.7, PROMPTS[::-1])):
        logits, cache = read(params, prompts)
        generate(
            Partial(counted, llama.step(params, CFG)),
            cache,
            logits,
            keys=jax.random.split(jax.random.key(seed), 3),
            sampler=Sampler(temperature=temperature),
            max_new_tokens=NEW,
        )
        counts.append(len(traced))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1 new token"),
        ({"max_new_tokens": 8}, "room for 8 tokens and 8 new ones, found a cache of 14 slots"),
        ({"branches": 2}, "combine 2 branches"),
        ({"keys": jax.random.key(0)}, "one typed random key for each of 3 row"),
        ({"keep": ("hidden",)}, "drawn_logps to keep, found hidden"),
    ],
)
def test_what_does_not_fit_is_refused(params, change, message):
    logits, cache = read(params, PROMPTS)
    options = {"keys": KEYS, "sampler": GREEDY, "max_new_tokens": NEW, **change}
    with pytest.raises(UserError, match=message):
        generate(llama.step(params, CFG), cache, logits, **options)


def test_prompts_that_are_empty_are_refused():
    with pytest.raises(UserError, match="a token in each, found an empty one"):
        pad_left([[1], []])


def test_log_probabilities_of_what_is_drawn(params):
    sampler = Sampler(temperature=0.5, banned=(3,))
    keep = ("scores", "logps", "drawn_logps")
    free = np.asarray(run(params, PROMPTS, KEYS, sampler=sampler).tokens)
    found = run(params, PROMPTS, KEYS, sampler=sampler, keep=keep, eos=[int(free[0, 2])])
    scores = np.asarray(found.kept["scores"])
    tokens, lengths = np.asarray(found.tokens).T, np.asarray(found.lengths)
    behind = np.arange(NEW)[:, None] >= lengths
    banned = scores.copy()
    banned[..., 3] = -np.inf
    for name, logits in (("logps", scores), ("drawn_logps", banned / 0.5)):
        each = np.asarray(jax.nn.log_softmax(logits))
        own = np.take_along_axis(each, tokens[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(found.kept[name], np.where(behind, 0, own), atol=1e-5)
    assert behind.any()


def test_of_a_plain_function_it_is_not_known_what_it_draws_from(params):
    first = Partial(lambda logits, keys: jnp.argmax(logits, -1))
    with pytest.raises(UserError, match="Expected a Sampler"):
        run(params, PROMPTS, KEYS, sampler=first, keep=("drawn_logps",))
