import dataclasses
import json
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.train.groups import GroupConfig, OptimName, summary
from jaxcore.train.optim import OptimConfig, make_optimiser
from jaxcore.train.schedules import ScheduleConfig


def _run(cfg, params, grads, steps=1, trainable=None) -> tuple[Any, Any]:
    with jax.numpy_dtype_promotion("standard"):
        tx = make_optimiser(cfg, 10, trainable)
        state = tx.init(params)
        for _ in range(steps):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


NAMES = get_args(OptimName)
_FREEZE_A = GroupConfig(pattern="^a/", freeze=True)
_PARAMS = {
    "a": {"kernel": jnp.ones((2, 3))},
    "b": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
}


@pytest.mark.parametrize("name", NAMES)
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
    cfg = dataclasses.replace(cfg, decay_all=True)
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
    np.testing.assert_allclose(after["b"]["kernel"], 1.0 - 0.1 * 0.1, rtol=1e-6)
    after, _ = _run(OptimConfig(name="adam", learning_rate=0.1, weight_decay=0.1), _PARAMS, grads)
    np.testing.assert_allclose(after["b"]["kernel"], 1.0 - 0.1, rtol=1e-6)  # a full Adam step


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


def test_a_group_may_have_another_decay():
    cfg = OptimConfig(weight_decay=0.1, groups=(GroupConfig(pattern="^a/", weight_decay=0.0),))
    after, _ = _run(cfg, _PARAMS, jax.tree.map(jnp.zeros_like, _PARAMS))
    np.testing.assert_array_equal(after["a"]["kernel"], 1.0)
    assert np.all(np.asarray(after["b"]["kernel"]) < 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_biases_and_norms_do_not_decay_unless_all_shall(name):
    """Also in a stack of layers, where each has one more axis."""
    params = {
        "norm": {"scale": jnp.ones(3), "bias": jnp.ones(3)},
        "layers": {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3)), "gain": jnp.ones(3)},
    }
    grads = jax.tree.map(jnp.zeros_like, params)
    cfg = OptimConfig(name=name, learning_rate=0.1, weight_decay=0.1)
    after, _ = _run(cfg, params, grads)
    moved = jax.tree.map(lambda x: bool(np.any(x != 1)), after)
    assert moved["layers"] == {"kernel": True, "bias": False, "gain": False}
    assert moved["norm"] == {"scale": False, "bias": False}
    after, _ = _run(dataclasses.replace(cfg, decay_all=True), params, grads)
    assert all(np.all(np.asarray(x) < 1) for x in jax.tree.leaves(after))


@pytest.mark.parametrize("name", NAMES)
def test_moments_and_updates_are_float32_whatever_the_parameters_are(name):
    """To the last bit those of a float32 copy of the parameters and gradients."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 4)), jnp.bfloat16)}
    tx = make_optimiser(OptimConfig(name=name, weight_decay=0.1, clip_norm=0.5), 10)
    wide: Any = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    low, high = tx.init(params), tx.init(wide)
    updates: Any
    own: Any
    for i in range(3):
        grads = {"w": jnp.asarray(rng.normal(size=(4, 4)), jnp.bfloat16)}
        with jax.numpy_dtype_promotion("standard"):
            updates, low = tx.update(grads, low, params)
            own, high = tx.update({"w": grads["w"].astype(jnp.float32)}, high, wide)
        assert updates["w"].dtype == jnp.float32, i
        np.testing.assert_array_equal(updates["w"], own["w"])
    kinds = {x.dtype for x in jax.tree.leaves(low) if x.ndim}
    assert kinds == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, low, high)


def test_a_group_in_one_word():
    assert GroupConfig.parse("norm|bias:decay=0") == GroupConfig(
        pattern="norm|bias", weight_decay=0.0
    )
    group = GroupConfig.parse("(?:a|b)/c:lr=1e-5,eps=1e-6,optimiser=lion")
    assert group == GroupConfig(pattern="(?:a|b)/c", learning_rate=1e-5, eps=1e-6, name="lion")
    assert GroupConfig.parse(group.text()) == group
    assert GroupConfig.parse("embed:freeze").text() == "embed:freeze"


@pytest.mark.parametrize(
    "text",
    ["", "encoder", "encoder:", ":lr=1", "encoder:lr", "encoder:lr=x", "a:rate=1", "a:lr=1;b"],
)
def test_a_group_in_other_words_is_refused(text):
    with pytest.raises(UserError, match=r"as PATTERN:KEY=VALUE,\.\.\., such as .*, found"):
        GroupConfig.parse(text)


def test_frozen_groups_have_no_state_no_update_and_no_part_in_the_norm():
    cfg = OptimConfig(
        name="sgd", momentum=0.5, learning_rate=1.0, clip_norm=1.0, groups=(_FREEZE_A,)
    )
    grads = jax.tree.map(jnp.zeros_like, _PARAMS)
    grads["a"]["kernel"] = jnp.full((2, 3), 1e6)
    grads["b"]["bias"] = jnp.full(3, 0.1)
    after, state = _run(cfg, _PARAMS, grads)
    np.testing.assert_array_equal(after["a"]["kernel"], 1.0)
    np.testing.assert_allclose(after["b"]["bias"], 0.9, rtol=1e-6)  # not clipped
    assert sum(x.size for x in jax.tree.leaves(state) if x.ndim) == 6 + 3


def test_a_sentence_says_what_each_group_holds():
    groups = (GroupConfig.parse("a/:lr=1e-5"), GroupConfig.parse("bias:decay=0"))
    assert summary(groups, _PARAMS, 1e-3, 0.1) == (
        "Optimiser groups: 'a/' 6 parameters, learning rate 1e-05, decay 0.1; 'bias' 3, learning "
        "rate 0.001, decay 0; all others 6, learning rate 0.001, decay 0.1."
    )


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
    wrong = dict(learning_rate=float("inf"), betas=(2, -1), eps=-1.0, weight_decay=float("nan"))
    with pytest.raises(UserError) as error:
        OptimConfig(**wrong, momentum=1.0, clip_norm=float("inf"))  # type: ignore[arg-type]  # mistakes
    fields = [part.split()[0] for part in str(error.value).split("; ")]
    assert fields == ["learning_rate", "betas", "eps", "weight_decay", "momentum", "clip_norm"]
    with pytest.raises(UserError, match=r"betas of radam must be above 0 and above 0.6"):
        OptimConfig(name="radam", betas=(0.9, 0.5))
    cosine = ScheduleConfig(name="cosine", floor=1e-5)
    low = GroupConfig(pattern="a", learning_rate=1e-6)
    with pytest.raises(UserError, match=r"^groups.0.learning_rate must be at least schedule.floor"):
        OptimConfig(schedule=cosine, groups=(low,))
    with pytest.raises(UserError, match="freeze of 'a' leaves no use for its other settings"):
        GroupConfig(pattern="a", freeze=True, eps=1e-6)
    with pytest.raises(UserError, match="not a regular expression"):
        OptimConfig(groups=(GroupConfig(pattern="("),))
    for groups, message in (
        ("nowhere:lr=1", "'nowhere' matches no parameter: expected .* such as a/kernel, b/kernel"),
        ("b/:lr=1 bias:lr=2", "'bias' matches no parameter that an earlier group has not taken"),
        ("a/|b/:freeze", "found that all are frozen"),
        ("bias:decay=0.1", "'bias' asks for a weight decay of 0.1, found only biases"),
    ):
        cfg = OptimConfig(groups=tuple(map(GroupConfig.parse, groups.split())))
        with pytest.raises(UserError, match=message):
            _run(cfg, _PARAMS, _PARAMS)


def test_older_settings_keep_their_meaning():
    """They decayed everything; where there was no decay, nothing has changed."""
    old = OptimConfig(weight_decay=0.1).to_dict()
    del old["decay_all"]
    assert OptimConfig.from_dict(old).decay_all
    assert not OptimConfig.from_dict({**old, "weight_decay": 0.0}).decay_all


def test_the_gradient_of_a_unit_is_kept_below_a_share_of_its_weights():
    cfg = OptimConfig(name="sgd", learning_rate=1.0, momentum=0.0, clip_adaptive=0.25)
    params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 0.0]]), "bias": jnp.array([1.0])}
    slopes = {"kernel": jnp.array([[60.0, 3.0], [80.0, 4.0]]), "bias": jnp.array([0.1])}
    after, _ = _run(cfg, params, slopes)
    # Five times 0.25 for the first output; 1e-3 stands for weights of length 0.
    expected = [[2.25, -0.00015], [3.0, -0.0002]]
    np.testing.assert_allclose(after["kernel"], expected, rtol=1e-4)
    np.testing.assert_allclose(after["bias"], [0.9], rtol=1e-6)
