import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.train.optim import GroupConfig, OptimConfig, make_optimiser


def _run(cfg, params, grads, steps=1, trainable=None) -> tuple[Any, Any]:
    with jax.numpy_dtype_promotion("standard"):
        tx = make_optimiser(cfg, 10, trainable)
        state = tx.init(params)
        for _ in range(steps):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


_PARAMS = {
    "a": {"kernel": jnp.ones((2, 3))},
    "b": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
}


@pytest.mark.parametrize(
    "name", ["adamw", "adam", "nadamw", "radam", "sgd", "lion", "lamb", "muon"]
)
def test_every_optimiser_goes_downhill(name):
    after, _ = _run(OptimConfig(name=name, learning_rate=1e-2, weight_decay=0.1), _PARAMS, _PARAMS)
    for leaf in jax.tree.leaves(after):
        assert np.all(np.isfinite(leaf)) and np.all(np.asarray(leaf) < 1.0)


def test_frozen_leaves_get_no_update_no_decay_no_state_and_no_part_in_the_norm():
    trainable = jax.tree.map(lambda _: True, _PARAMS)
    trainable["a"]["kernel"] = False
    grads = jax.tree.map(jnp.zeros_like, _PARAMS)
    grads["a"]["kernel"] = jnp.full((2, 3), 1e6)
    grads["b"]["bias"] = jnp.full(3, 0.1)
    cfg = OptimConfig(name="sgd", momentum=0.0, learning_rate=1.0, clip_norm=1.0, weight_decay=0.5)
    after, _ = _run(cfg, _PARAMS, grads, trainable=trainable)
    np.testing.assert_array_equal(after["a"]["kernel"], 1.0)
    np.testing.assert_allclose(after["b"]["bias"], 1.0 - 0.1 - 0.5, rtol=1e-6)  # not clipped
    after, state = _run(OptimConfig(weight_decay=0.5), _PARAMS, grads, 3, trainable)
    np.testing.assert_array_equal(after["a"]["kernel"], 1.0)
    assert np.all(np.asarray(after["b"]["kernel"]) < 1.0)  # zero gradient, but decayed
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * (6 + 3)


def test_adamw_decays_apart_from_the_gradient_and_adam_within_it():
    grads = jax.tree.map(jnp.zeros_like, _PARAMS)
    after, _ = _run(OptimConfig(name="adamw", learning_rate=0.1, weight_decay=0.1), _PARAMS, grads)
    np.testing.assert_allclose(after["b"]["bias"], 1.0 - 0.1 * 0.1, rtol=1e-6)
    after, _ = _run(OptimConfig(name="adam", learning_rate=0.1, weight_decay=0.1), _PARAMS, grads)
    np.testing.assert_allclose(after["b"]["bias"], 1.0 - 0.1, rtol=1e-6)  # a full Adam step


def test_two_optimisers_on_two_networks_share_the_clipping():
    cfg = OptimConfig(
        name="sgd",
        momentum=0.0,
        learning_rate=1.0,
        clip_norm=1.0,
        groups=(GroupConfig(pattern="^b/", learning_rate=0.5),),
    )
    grads = jax.tree.map(jnp.ones_like, _PARAMS)
    after, _ = _run(cfg, _PARAMS, grads)
    norm = np.sqrt(6 + 6 + 3)
    np.testing.assert_allclose(after["a"]["kernel"], 1 - 1 / norm, rtol=1e-6)
    np.testing.assert_allclose(after["b"]["kernel"], 1 - 0.5 / norm, rtol=1e-6)


def test_the_two_radam_recipe_equals_two_separate_optimisers():
    cfg = OptimConfig(name="radam", groups=(GroupConfig(pattern="^b/"),))
    joint, _ = _run(cfg, _PARAMS, _PARAMS, 8)
    for name in ("a", "b"):
        alone, _ = _run(OptimConfig(name="radam"), {name: _PARAMS[name]}, {name: _PARAMS[name]}, 8)
        jax.tree.map(np.testing.assert_array_equal, joint[name], alone[name])


def test_no_decay_for_biases_by_a_group():
    cfg = OptimConfig(weight_decay=0.1, groups=(GroupConfig(pattern="bias$", weight_decay=0.0),))
    after, _ = _run(cfg, _PARAMS, jax.tree.map(jnp.zeros_like, _PARAMS))
    np.testing.assert_array_equal(after["b"]["bias"], 1.0)
    assert np.all(np.asarray(after["b"]["kernel"]) < 1.0)


def test_config_round_trip():
    cfg = OptimConfig(betas=(0.9, 0.99), groups=(GroupConfig(pattern="a", betas=(0.5, 0.6)),))
    assert OptimConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    assert hash(cfg) == hash(OptimConfig.from_dict(cfg.to_dict()))


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"name must be one of adamw, .*found 'adm'"):
        OptimConfig(name="adm")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UserError, match="learning_rate must be a number above 0"):
        OptimConfig(learning_rate=0.0)
    with pytest.raises(UserError, match="clip_norm"):
        OptimConfig(clip_norm=-1.0)
    with pytest.raises(UserError, match="not a regular expression"):
        OptimConfig(groups=(GroupConfig(pattern="("),))
    with pytest.raises(UserError, match="'nowhere' matches no parameter"):
        _run(OptimConfig(groups=(GroupConfig(pattern="nowhere"),)), _PARAMS, _PARAMS)
