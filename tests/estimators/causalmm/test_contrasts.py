"""Counterfactual decoding and other contrasts on a tiny decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm import (
    CausalMMConfig,
    Decoder,
    DoLaConfig,
    LanguageEdit,
    PAIConfig,
    Text,
    TextOnlyConfig,
    VisionEdit,
    causal_effect,
    causalmm,
    combine_logits,
    contrast,
    dola,
    language_edit,
    pai,
    plausibility_mask,
    regular,
    without_pictures,
)
from jaxcore.estimators.causalmm.baselines import layer_contrast
from jaxcore.estimators.causalmm.decoding import branch_keys
from jaxcore.generate import GREEDY, Sampler
from jaxcore.models import llama

NEW, LENGTH = 3, 5
CFG = llama.LlamaConfig.tiny(depth=3)


@pytest.fixture(scope="module")
def decoder():
    params = llama.init(jax.random.key(0), CFG)
    params = jax.tree.map(lambda a: a * 4 if a.ndim > 1 else a, params)  # logits that differ
    return Decoder(params, CFG, llama)


@pytest.fixture(scope="module")
def prompt():
    """Two rows, the second padded."""
    tokens = np.random.default_rng(0).integers(0, CFG.vocab_size, (2, LENGTH))
    valid = np.arange(LENGTH) >= np.array([[0], [2]])
    return Text(jnp.asarray(tokens, jnp.int32), jnp.asarray(valid))


KEYS = jax.random.split(jax.random.key(1), 2)
RUN = {"keys": KEYS, "sampler": GREEDY, "max_new_tokens": NEW}


@pytest.fixture(scope="module")
def greedy(decoder, prompt):
    return regular(decoder, prompt, room=NEW).generate(**RUN, keep=("logits",))


def language(decoder, prompt, keys=KEYS, room=NEW, counterfactual=None, **changes):
    options = {"keys": keys, "room": room, "counterfactual": counterfactual}
    return causalmm(decoder, prompt, CausalMMConfig(**changes), **options)


def test_combination_and_plausible_tokens():
    one, c = jnp.array([[2.0, 1.5, -3.0]]), jnp.array([[3.0, 0.0, -9.0]])
    np.testing.assert_allclose(combine_logits(one, [c], 1.0, 0.0), 2 * one - c)
    np.testing.assert_allclose(combine_logits(one, [c, c], [1.0, 0.5], 0.0), 2.5 * one - 1.5 * c)
    both = combine_logits(one, [c], 1.0, 0.1)
    assert both[0, 2] == -jnp.inf and jnp.isfinite(both[0, :2]).all()
    assert plausibility_mask(one, 1.0).tolist() == [[True, False, False]]
    with pytest.raises(UserError, match=r"epsilon in \[0, 1\], found 2"):
        combine_logits(one, [c], 1.0, 2.0)
    with pytest.raises(UserError, match="one gamma for each of 1 branches, found 2"):
        combine_logits(one, [c], [1.0, 1.0])


def test_without_strength_it_is_plain_decoding_of_plausible_tokens(decoder, prompt, greedy):
    for changes in ({"gamma": 0.0}, {"epsilon": 1.0, "gamma": 5.0}):
        found = language(decoder, prompt, **changes).generate(**RUN, keep=("scores",))
        np.testing.assert_array_equal(found.tokens, greedy.tokens)
        kept = np.isfinite(found.kept["scores"])
        epsilon = changes.get("epsilon", 0.1)
        np.testing.assert_array_equal(kept, plausibility_mask(greedy.kept["logits"][:, 0], epsilon))


def test_no_contrast_makes_an_implausible_token(decoder, prompt):
    """Differences of logits alone prefer what no branch would say."""
    found = language(decoder, prompt, gamma=50.0).generate(**RUN, keep=("logits",))
    factual = found.kept["logits"][:, 0]
    said = jnp.take_along_axis(factual, found.tokens.T[..., None], axis=-1)[..., 0]
    assert (said >= factual.max(-1) + np.log(0.1) - 1e-5).all()


@pytest.mark.parametrize("kind", ["reverse", "random"])
def test_every_branch_with_a_cache_is_the_whole_text_read_again(decoder, prompt, kind):
    """So no branch's cache leaks into another's, at any step."""
    edit = LanguageEdit(kind=kind)
    found = language(decoder, prompt, language=edit).generate(**RUN, keep=("logits",))
    text = jnp.concatenate([prompt.x, found.tokens], axis=1)
    valid = jnp.pad(prompt.valid, ((0, 0), (0, NEW)), constant_values=True)
    edits = language_edit(edit, CFG.depth, CFG.num_heads, keys=branch_keys(KEYS, 0))
    for branch, one in ((0, None), (1, edits)):
        out = llama.apply(decoder.params, text, CFG, valid=valid, edit=one)
        assert out.logits is not None
        whole = out.logits[:, LENGTH - 1 : -1]
        cached = jnp.moveaxis(found.kept["logits"][:, branch], 0, 1)
        np.testing.assert_allclose(cached, whole, atol=1e-4)
    factual, other = jnp.moveaxis(found.kept["logits"], 1, 0)
    assert np.abs(factual - other)[1:].max() > 1e-2  # at later tokens too


def test_a_row_does_not_depend_on_its_neighbours_or_padding(decoder, prompt):
    edit = LanguageEdit(kind="random")
    options = {"sampler": Sampler(), "max_new_tokens": NEW}
    batch = language(decoder, prompt, language=edit).generate(keys=KEYS, **options)
    alone = Text(prompt.x[1:, 2:], prompt.valid[1:, 2:])
    one = language(decoder, alone, keys=KEYS[1:], language=edit).generate(keys=KEYS[1:], **options)
    np.testing.assert_array_equal(one.tokens[0], batch.tokens[1])


def embedded(decoder, prompt, scale=1.0):
    x = llama.embed(decoder.params, prompt.x, CFG)
    return Text(x * jnp.where(jnp.arange(LENGTH)[None, :, None] == 3, scale, 1.0), prompt.valid)


def test_branches_of_one_batch_are_those_of_two(decoder, prompt):
    factual, edited = (embedded(decoder, prompt, scale) for scale in (1.0, 0.0))
    run = {"counterfactual": lambda keys: edited, "room": 1}
    logits = {}
    for mode in ("both", "vision", "language", "joint"):
        ready = language(decoder, factual, mode=mode, **run)
        logits[mode] = ready.logits.reshape(-1, 2, CFG.vocab_size)
    for i, mode in enumerate(("vision", "language"), 1):
        np.testing.assert_allclose(logits["both"][i], logits[mode][1], atol=1e-5)
        assert np.abs(logits["joint"][1] - logits[mode][1]).max() > 1e-3
    twice = language(decoder, factual, mode="language", num_counterfactuals=2, room=1)
    scores = [twice.combine(twice.logits.reshape(3, 2, -1)), None]
    scores[1] = combine_logits(logits["both"][0], [logits["both"][2]], 1.0)
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_the_shared_cache_of_the_release_contrasts_the_first_token_only(decoder, prompt):
    factual, edited = (embedded(decoder, prompt, scale) for scale in (1.0, 0.0))
    run = {"counterfactual": lambda keys: edited, "mode": "vision"}
    gaps = {}
    for mode in ("official", "separate"):
        ready = language(decoder, factual, cache_mode=mode, **run)
        kept = ready.generate(**RUN, keep=("logits",)).kept["logits"]
        gaps[mode] = np.abs(kept[:, 0] - kept[:, 1]).max((1, 2))
    assert (gaps["official"][1:] < 1e-5).all() and gaps["official"][0] > 1e-2
    assert (gaps["separate"] > 1e-3).all()


def test_contrast_with_a_shorter_prompt(decoder, prompt):
    """Another length is padding, which changes nothing."""
    text = without_pictures(
        Text(prompt.x[:1], prompt.valid[:1]), [int(prompt.x[0, 2])], prompt.x[:1]
    )
    assert text.x.shape[1] < LENGTH
    one = Text(prompt.x[:1], prompt.valid[:1])
    both = contrast(decoder, one, text, TextOnlyConfig(), room=1)
    for i, single in enumerate((one, text)):
        alone = regular(decoder, single, room=1)
        np.testing.assert_allclose(both.logits[i], alone.logits[0], atol=1e-5)


def test_raised_attention_to_pictures(decoder, prompt, greedy):
    pictures = jnp.arange(LENGTH)[None].repeat(2, 0) == 3
    plain = pai(decoder, prompt, prompt, pictures, PAIConfig(alpha=0.0, gamma=0.0), room=NEW)
    np.testing.assert_array_equal(plain.generate(**RUN).tokens, greedy.tokens)
    raised = pai(decoder, prompt, prompt, pictures, PAIConfig(alpha=9.0, first=0), room=NEW)
    rows = raised.logits.reshape(2, 2, -1)
    np.testing.assert_allclose(rows[1], greedy.kept["logits"][0, 0], atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max((0, 1)).max() > 1e-3


def test_contrast_of_layers_goes_row_by_row(decoder, prompt):
    """Also the mask and the chosen layer, which batches have shared elsewhere."""
    ready = dola(decoder, prompt, DoLaConfig(layers=(0, 1)), room=NEW)
    tokens = ready.generate(**RUN).tokens
    for row in (0, 1):
        alone = Text(prompt.x[row : row + 1], prompt.valid[row : row + 1])
        one = dola(decoder, alone, DoLaConfig(layers=(0, 1)), room=NEW)
        np.testing.assert_allclose(one.logits[0], ready.logits[row], atol=1e-4)
        found = one.generate(keys=KEYS[row : row + 1], sampler=GREEDY, max_new_tokens=NEW)
        np.testing.assert_array_equal(found.tokens[0], tokens[row])
    with pytest.raises(UserError, match="layers below the last one, 2"):
        dola(decoder, prompt, DoLaConfig(layers=(2,)), room=NEW)


def test_contrast_of_layers_by_its_definition():
    rng = np.random.default_rng(0)
    logits, early = rng.normal(size=(2, 5)), rng.normal(size=(3, 2, 5))

    def chances(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    for row in range(2):
        p, candidates = chances(logits[row]), chances(early[:, row])
        mean = (p + candidates) / 2
        gap = ((p * np.log(p / mean)) + candidates * np.log(candidates / mean)).sum(-1)
        expected = np.log(p / candidates[gap.argmax()])
        expected[p < 0.1 * p.max()] = -np.inf
        ours = layer_contrast(jnp.asarray(logits), jnp.asarray(early), 0.1)[row]
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_effects_by_their_definition():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 6))
    tokens = np.array([0, 5, 2, 2])
    effect = causal_effect(jnp.asarray(one), jnp.asarray(other), jnp.asarray(tokens))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (one, other))
    own = np.arange(4), tokens
    np.testing.assert_allclose(effect.logit, (one - other)[own], atol=1e-5)
    np.testing.assert_allclose(effect.total_variation, np.abs(p - q).sum(-1) / 2, atol=1e-5)
    odds = np.log(p[own] / (1 - p[own])) - np.log(q[own] / (1 - q[own]))
    np.testing.assert_allclose(effect.log_odds, odds, atol=1e-4)
    assert effect.summary(["a", "b", "c", "d"]).count("\n") == 4


def test_settings_keep_their_numbers_in_files():
    config = CausalMMConfig(mode="both", language=LanguageEdit(layers=(1, 2)), gamma_language=0.5)
    assert CausalMMConfig.from_dict(config.to_dict()) == config and config.gammas == (1.0, 0.5)
    official = CausalMMConfig.official_pope()
    assert (official.epsilon, official.mode, official.vision.kind) == (0.6, "vision", "shuffle")
    assert CausalMMConfig.paper_best().language.kind == "random"
    assert VisionEdit().kind == "shuffle"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "both"}, "Expected pictures for the mode 'both', found none"),
        ({"language": LanguageEdit(layers=(7,))}, "numbers from 0 to 2, found"),
        ({"language": LanguageEdit(heads=(9,))}, "heads must be numbers from 0 to 3"),
        ({"room": 100}, "at most 64 tokens, found a prompt of 5"),
    ],
)
def test_contrasts_that_cannot_be(decoder, prompt, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        language(decoder, prompt, **changes)
