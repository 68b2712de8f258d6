"""Stacks with masks, caches, dropout and results per layer: the loop equals the unrolled form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.nn import apply_stack, capture, intervene, tap

LAYERS, BATCH, TOKENS, WIDTH = 3, 2, 5, 8


class Block(nn.Module):
    """Attention of new tokens to cached ones and to themselves."""

    @nn.compact
    def __call__(self, x, mask, cache):
        q, k, v = (nn.Dense(WIDTH, name=name)(x) for name in "qkv")
        keys = jnp.concatenate([cache["k"], k], axis=1)
        values = jnp.concatenate([cache["v"], v], axis=1)
        logits = jnp.einsum("bqd,bkd->bqk", q, keys)
        weights = tap(self, "weights", jax.nn.softmax(jnp.where(mask, logits, -1e9)))
        x = x + jnp.einsum("bqk,bkd->bqd", weights, values)
        return x, {"k": keys, "v": values}


class Net(nn.Module):
    scan: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x, mask, cache):
        return apply_stack(
            Block(name="layers"),
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
    return jax.jit(Net().init)(jax.random.key(0), x, CAUSAL, empty_cache())


def test_both_forms_make_the_same_parameters(params, x):
    unrolled = jax.jit(Net(scan=False).init)(jax.random.key(0), x, CAUSAL, empty_cache())
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


def everything(apply, params, x):
    """Outputs, caches and gradients."""

    def loss(params, x):
        out = apply(params, x)
        return jnp.sum(jnp.sin(out[0])), out

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)


@pytest.fixture(scope="module")
def expected(params, x):
    return everything(by_hand, params, x)


@pytest.mark.parametrize(("scan", "remat"), FORMS)
def test_outputs_caches_and_gradients_are_those_of_the_layers_by_hand(
    params, x, expected, scan, remat
):
    net = Net(scan=scan, remat=remat)
    found = everything(lambda p, x: net.apply(p, x, CAUSAL, empty_cache()), params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


def test_a_token_at_a_time_through_the_cache_equals_all_at_once(params, x, expected):
    run, cache, outputs = jax.jit(Net().apply), empty_cache(), []
    for i in range(3):
        seen = jnp.ones((1, 1, i + 1), bool)
        y, cache = run(params, x[:, i : i + 1], seen, cache)
        outputs.append(y)
    (_, (whole, _)), _ = expected
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), whole[:, :3], atol=1e-5)


class Drop(nn.Module):
    """A block that gives out what its dropout leaves."""

    @nn.compact
    def __call__(self, x):
        return x, nn.Dropout(0.5, deterministic=False)(x)


class Drops(nn.Module):
    scan: bool
    remat: bool

    @nn.compact
    def __call__(self, x):
        return apply_stack(Drop(name="layers"), x, length=2, scan=self.scan, remat=self.remat)[1]


def test_dropout_differs_between_layers_and_not_between_forms():
    @jax.jit
    def run(key):
        kept = [Drops(*form).apply({}, jnp.ones(64), rngs={"dropout": key}) for form in FORMS]
        return jnp.stack(kept)

    kept = np.asarray(run(jax.random.key(3)))
    assert (kept[0, 0] != kept[0, 1]).any()
    assert (kept == kept[0]).all()


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
