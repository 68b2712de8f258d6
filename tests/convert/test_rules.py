"""Rules with several sources: joined, divided and tied tensors, and several namings."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.convert import (
    CONV,
    LINEAR,
    POINTWISE,
    Rule,
    choose_layout,
    from_state_dict,
    official_shapes,
    to_state_dict,
)
from jaxcore.errors import UserError

pytestmark = pytest.mark.newest

PLACES = ("q_proj", "k_proj", "v_proj")
SEPARATE = tuple(f"layers.{{i}}.{place}.weight" for place in PLACES)
BIASES = tuple(f"layers.{{i}}.{place}.bias" for place in PLACES)
# Ours is one matrix, theirs are three; grouped queries have more heads than keys and values.
JOINED = [
    Rule("blocks/qkv/kernel", SEPARATE, LINEAR, stacked=True, parts=(4, 2, 2)),
    Rule(
        "blocks/qkv/bias",
        BIASES,
        stacked=True,
        parts=(4, 2, 2),
    ),
]
# Ours are three, theirs is one.
DIVIDED = [
    rule
    for part, place in enumerate("qkv")
    for rule in (
        Rule(f"blocks/{place}/kernel", "layers.{i}.qkv.weight", LINEAR, True, -1, (4, 2, 2), part),
        Rule(
            f"blocks/{place}/bias", "layers.{i}.qkv.bias", stacked=True, parts=(4, 2, 2), part=part
        ),
    )
]


def tree(shapes, dtype="f4"):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes, is_leaf=lambda x: type(x) is tuple
    )


def random_state(shapes, seed=0, dtype="f4"):
    rng = np.random.default_rng(seed)
    return {
        key: np.frombuffer(rng.bytes(4 * int(np.prod(shape))), dtype).reshape(shape)
        for key, shape in shapes.items()
    }


def bits(tensors):
    return {key: (value.shape, np.asarray(value).tobytes()) for key, value in tensors.items()}


def test_one_leaf_joins_several_tensors():
    target = tree({"blocks": {"qkv": {"kernel": (3, 5, 16), "bias": (3, 16)}}})
    shapes = official_shapes(target, JOINED)
    assert shapes["layers.2.q_proj.weight"] == (8, 5)
    assert shapes["layers.2.v_proj.weight"] == (4, 5)
    assert shapes["layers.0.k_proj.bias"] == (4,)
    state = random_state(shapes)
    params = from_state_dict(state, JOINED, target)
    for layer in range(3):
        whole = np.concatenate([state[f"layers.{layer}.{p}.weight"] for p in PLACES])
        np.testing.assert_array_equal(params["blocks"]["qkv"]["kernel"][layer], whole.T)
    assert bits(to_state_dict(params, JOINED)) == bits(state)


def test_one_tensor_is_divided_among_several_leaves():
    one = {"kernel": (3, 5, 4), "bias": (3, 4)}
    target = tree({"blocks": {"q": {"kernel": (3, 5, 8), "bias": (3, 8)}, "k": one, "v": one}})
    shapes = official_shapes(target, DIVIDED)
    assert shapes == {f"layers.{i}.qkv.weight": (16, 5) for i in range(3)} | {
        f"layers.{i}.qkv.bias": (16,) for i in range(3)
    }
    state = random_state(shapes)
    params = from_state_dict(state, DIVIDED, target)
    np.testing.assert_array_equal(
        params["blocks"]["v"]["kernel"][1], state["layers.1.qkv.weight"][12:].T
    )
    assert bits(to_state_dict(params, DIVIDED)) == bits(state)


@settings(deadline=None, max_examples=30)
@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    unit=st.integers(1, 3),
    transform=st.sampled_from([LINEAR, POINTWISE, CONV]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_joining_inverts_dividing(parts, unit, transform, seed, data):
    """Any shares, along any axis of the leaf."""
    size = unit * sum(parts)
    ndim = 4 if transform is CONV else 2
    axis = data.draw(st.integers(-ndim, -1))
    shape = [2, 3, 1, 2][:ndim]
    shape[axis] = size
    keys = tuple(f"part{i}" for i in range(len(parts)))
    joined = [Rule("w", keys, transform, axis=axis, parts=parts)]
    whole = tree({"w": tuple(shape)}, "i4")
    state = random_state(official_shapes(whole, joined), seed, "i4")
    params = from_state_dict(state, joined, whole)
    assert bits(to_state_dict(params, joined)) == bits(state)
    # The same tensors as leaves, of one official tensor.
    divided = [
        Rule(key, "whole", transform, axis=axis, parts=parts, part=i) for i, key in enumerate(keys)
    ]
    leaves = {key: transform.to_ours(value) for key, value in state.items()}
    official = to_state_dict(leaves, divided)
    np.testing.assert_array_equal(transform.to_ours(official["whole"]), params["w"])
    again = from_state_dict(official, divided, leaves)
    assert bits(again) == bits(leaves)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shards_cross_the_borders_of_the_parts(axis):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(*[None] * axis, "x")
    sharding = jax.sharding.NamedSharding(mesh, spec)
    rules = [Rule("w", SEPARATE, LINEAR, stacked=True, parts=(5, 2, 1))]
    plain = tree({"w": (2, 4, 16)})
    state = random_state(official_shapes(plain, rules))
    target = {"w": jax.ShapeDtypeStruct((2, 4, 16), "f4", sharding=sharding)}
    sharded = from_state_dict(state, rules, target)["w"]
    assert sharded.sharding == sharding
    assert sharded.tobytes() == from_state_dict(state, rules, plain)["w"].tobytes()
    assert bits(to_state_dict({"w": sharded}, rules)) == bits(state)


def test_parts_that_do_not_fit():
    with pytest.raises(UserError, match=r"'w' of shape \(7,\) cannot be divided into parts"):
        official_shapes(tree({"w": (7,)}), [Rule("w", ("a", "b"))])
    with pytest.raises(UserError, match="no axis 1"):
        official_shapes(tree({"w": (8,)}), [Rule("w", ("a", "b"), axis=1)])
    rules = [Rule("(a|b)", "w", parts=(1, 1), part=0)]
    with pytest.raises(ValueError, match="both map to 'w'"):
        official_shapes(tree({"a": (2,), "b": (2,)}), rules)
    with pytest.raises(ValueError, match="A part of 'w' belongs to no leaf"):
        official_shapes(tree({"a": (2,)}), rules)
    for options in (
        {"parts": (1, 2)},
        {"part": 0},
        {"part": 2, "parts": (1, 1)},
        {"key": ("a", "b"), "part": 0, "parts": (1, 1)},
        {"key": ("a", "b"), "parts": (1,)},
        {"key": ("a", "b"), "tied": ("c",)},
    ):
        with pytest.raises(ValueError, match="Rule 'w'"):
            Rule(**{"path": "w", "key": "a", **options})


def test_a_missing_part_is_named():
    target = tree({"w": (2, 6)})
    rules = [Rule("w", ("q", "k", "v"), LINEAR)]
    state = {"q": np.ones((2, 2), "f4"), "v": np.ones((3, 2), "f4")}
    with pytest.raises(UserError, match="1 of 3 keys match, 1 missing: k, 1 of another shape: v"):
        from_state_dict(state, rules, target)


EMBED = np.arange(6, dtype="f4").reshape(3, 2)
ONE_LEAF = [Rule("embed", "embed_tokens.weight", tied=("lm_head.weight",))]
TWO_LEAVES = [
    Rule("embed", "embed_tokens.weight"),
    Rule("head", "lm_head.weight", LINEAR, tied=("embed_tokens.weight",)),
]


@pytest.mark.parametrize(
    "keys", [("embed_tokens",), ("embed_tokens", "lm_head"), ("lm_head",)], ids=str
)
def test_one_leaf_of_a_tied_weight_whatever_copies_a_file_holds(keys):
    state = {f"{key}.weight": EMBED for key in keys}
    params = from_state_dict(state, ONE_LEAF, {"embed": EMBED})
    np.testing.assert_array_equal(params["embed"], EMBED)
    assert to_state_dict(params, ONE_LEAF).keys() == {"embed_tokens.weight"}


def test_copies_that_differ_are_refused():
    state = {"embed_tokens.weight": EMBED, "lm_head.weight": EMBED + 1}
    with pytest.raises(UserError, match=r"lm_head\.weight differs from embed_tokens\.weight"):
        from_state_dict(state, ONE_LEAF, {"embed": EMBED})


@pytest.mark.parametrize("tied", [True, False])
def test_two_leaves_take_a_tied_weight_and_give_it_back(tied):
    state = {"embed_tokens.weight": EMBED} | ({} if tied else {"lm_head.weight": EMBED + 1})
    target = {"embed": EMBED, "head": EMBED.T}
    params = from_state_dict(state, TWO_LEAVES, target)
    np.testing.assert_array_equal(params["head"], (EMBED + (not tied)).T)
    assert bits(to_state_dict(params, TWO_LEAVES)) == bits(state)


def test_a_tied_weight_that_is_nowhere_is_missing_once_per_key():
    with pytest.raises(UserError, match=r"0 of 2 keys match, 2 missing: embed_tokens.*; lm_head"):
        from_state_dict({}, TWO_LEAVES, {"embed": EMBED, "head": EMBED.T})


LAYOUTS = {
    "released": [Rule("fc", "tower.vision_model.fc.weight", LINEAR), Rule("b", "projector.b")],
    "memory": [Rule("fc", "model.tower.fc.weight", LINEAR), Rule("b", "model.projector.b")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_one_network_under_several_namings(layout, wrapper):
    target = tree({"fc": (2, 3), "b": (3,)})
    state = random_state(official_shapes(target, LAYOUTS[layout]))
    wrapped = {wrapper + key: value for key, value in state.items()}
    assert choose_layout(wrapped, LAYOUTS, target) == layout
    params = from_state_dict(wrapped, LAYOUTS[layout], target)
    assert bits(to_state_dict(params, LAYOUTS[layout])) == bits(state)


def test_weights_that_fit_no_naming_are_compared_with_the_nearest():
    target = tree({"fc": (2, 3), "b": (3,)})
    state = {"model.tower.fc.weight": np.zeros((3, 2)), "other": np.zeros(1)}
    assert choose_layout(state, LAYOUTS, target) == "memory"
    assert choose_layout({}, LAYOUTS, target) == "released"
