"""Stacks with masks, caches, dropout and results per layer: the loop equals the unrolled form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.nn import apply_stack, capture, intervene, tap

LAYERS, BATCH, TOKENS, WIDTH = 3, 2, 5, 8


class Block(nn.Module):
    """Attention of new tokens to cached ones and to themselves, with dropout."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, mask, cache):
        q, k, v = (nn.Dense(WIDTH, name=name)(x) for name in "qkv")
        keys = jnp.concatenate([cache["k"], k], axis=1)
        values = jnp.concatenate([cache["v"], v], axis=1)
        logits = jnp.einsum("bqd,bkd->bqk", q, keys)
        weights = tap(self, "weights", jax.nn.softmax(jnp.where(mask, logits, -1e9)))
        weights = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(weights)
        x = x + jnp.einsum("bqk,bkd->bqd", weights, values)
        return x, {"k": keys, "v": values}


class Net(nn.Module):
    scan: bool = True
    remat: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, mask, cache):
        return apply_stack(
            Block(self.dropout, name="layers"),
            x,
            length=LAYERS,
            broadcast=(mask,),
            scanned=(cache,),
            scan=self.scan,
            remat=self.remat,
        )


def empty_cache():
    nothing = jnp.zeros((LAYERS, BATCH, 0, WIDTH))
    return {"k": nothing, "v": nothing}


CAUSAL = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))[None]
FORMS = [(scan, remat) for scan in (True, False) for remat in (True, False)]


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (BATCH, TOKENS, WIDTH))


@pytest.fixture(scope="module")
def params(x):
    return Net().init(jax.random.key(0), x, CAUSAL, empty_cache())


def test_both_forms_make_the_same_parameters(params, x):
    unrolled = Net(scan=False).init(jax.random.key(0), x, CAUSAL, empty_cache())
    jax.tree.map(np.testing.assert_array_equal, params, unrolled)
    kernel = params["params"]["layers"]["q"]["kernel"]
    assert kernel.shape == (LAYERS, WIDTH, WIDTH)
    assert not np.allclose(kernel[0], kernel[1])


def by_hand(params, x):
    """Layer after layer, without a stack."""
    caches = []
    for i in range(LAYERS):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params["params"]["layers"])
        empty = jax.tree.map(lambda leaf: leaf[0], empty_cache())
        x, cache = Block().apply({"params": own}, x, CAUSAL, empty)
        caches.append(cache)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)


@pytest.mark.parametrize(("scan", "remat"), FORMS)
def test_outputs_caches_and_gradients_are_those_of_the_layers_by_hand(params, x, scan, remat):
    net = Net(scan=scan, remat=remat)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        net.apply(params, x, CAUSAL, empty_cache()),
        by_hand(params, x),
    )

    def loss(apply):
        return lambda params: jnp.sum(jnp.sin(apply(params)[0]))

    ours = jax.grad(loss(lambda p: net.apply(p, x, CAUSAL, empty_cache())))(params)
    theirs = jax.grad(loss(lambda p: by_hand(p, x)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_a_token_at_a_time_through_the_cache_equals_all_at_once(params, x):
    whole, _ = Net().apply(params, x, CAUSAL, empty_cache())
    cache, outputs = empty_cache(), []
    for i in range(TOKENS):
        everything = jnp.ones((1, 1, i + 1), bool)
        y, cache = Net().apply(params, x[:, i : i + 1], everything, cache)
        outputs.append(y)
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), whole, atol=1e-5)


def test_dropout_differs_between_layers_and_not_between_forms(params, x):
    key = jax.random.key(3)
    outputs = []
    for scan, remat in FORMS:
        net = Net(scan=scan, remat=remat, dropout=0.5)
        outputs.append(net.apply(params, x, CAUSAL, empty_cache(), rngs={"dropout": key})[0])
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], atol=1e-5)

    class Drop(nn.Module):
        @nn.compact
        def __call__(self, x):
            kept = nn.Dropout(0.5, deterministic=False)(jnp.ones(64))
            return x, kept

    class Drops(nn.Module):
        @nn.compact
        def __call__(self, x):
            return apply_stack(Drop(name="layers"), x, length=2)

    _, kept = Drops().apply({}, x, rngs={"dropout": key})
    assert (kept[0] != kept[1]).any()


@pytest.mark.parametrize(("scan", "remat"), FORMS)
def test_taps_of_the_layers_are_stacked_and_edits_know_their_layer(params, x, scan, remat):
    net = Net(scan=scan, remat=remat)
    run = jax.jit(capture(net.apply, "layers/weights"))
    _, values = run(params, x, CAUSAL, empty_cache())
    weights = values["layers/weights"]
    assert weights.shape == (LAYERS, BATCH, TOKENS, TOKENS)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)

    def uniform(value, layer):
        return jnp.where(layer == 1, 1 / TOKENS, value)

    edited = capture(intervene(net.apply, {"*/weights": uniform}))
    after = jax.jit(edited)(params, x, CAUSAL, empty_cache())[1]["layers/weights"]
    np.testing.assert_allclose(after[0], weights[0], atol=1e-6)
    np.testing.assert_allclose(after[1], 1 / TOKENS, atol=1e-6)
    assert np.abs(after[2] - weights[2]).max() > 1e-4


def test_a_second_call_traces_nothing_again(params, x):
    traces = []

    @jax.jit
    def run(params, x):
        traces.append(1)
        return Net().apply(params, x, CAUSAL, empty_cache())

    run(params, x)
    run(params, x + 1)
    assert len(traces) == 1
