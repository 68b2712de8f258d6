"""The key-table engine: exact in both directions, and strict about what it is given."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.convert import (
    CONV,
    CONV_TRANSPOSE,
    DEPTHWISE,
    IDENTITY,
    LINEAR,
    POINTWISE,
    VECTOR,
    Rule,
    channel_vector,
    from_state_dict,
    official_shapes,
    select_prefix,
    strip_prefix,
    to_state_dict,
)
from jaxcore.errors import UserError

pytestmark = pytest.mark.newest

RULES = [
    Rule(r"level(\d)/conv", r"encoder.\1.0.weight", CONV),
    Rule(r"level(\d)/depthwise", r"encoder.\1.1.weight", DEPTHWISE),
    Rule(r"level(\d)/up", r"encoder.\1.up.weight", CONV_TRANSPOSE),
    Rule(r"level(\d)/blocks/qkv", r"encoder.\1.blocks.{i}.qkv.weight", POINTWISE, stacked=True),
    Rule(r"level(\d)/blocks/scale", r"encoder.\1.blocks.{i}.g", VECTOR, stacked=True),
    Rule(r"level(\d)/even", r"encoder.\1.pairs.{2i}.w", LINEAR, stacked=True),
    Rule(r"level(\d)/odd", r"encoder.\1.pairs.{2i+1}.w", LINEAR, stacked=True),
    Rule(r"head/kernel", "head.weight", LINEAR),
    Rule(r"head/(bias|count)", r"head.\1"),
]
SHAPES = {
    "level0": {
        "conv": (3, 3, 4, 6),
        "depthwise": (3, 3, 1, 5),
        "up": (2, 4, 3, 7),
        "blocks": {"qkv": (3, 4, 12), "scale": (3, 4)},
        "even": (2, 3, 5),
        "odd": (2, 3, 5),
    },
    "level1": {"conv": (1, 5, 2, 2), "blocks": {"qkv": (1, 2, 3)}},
    "head": {"kernel": (6, 2), "bias": (2,), "count": ()},
}
OFFICIAL = {
    "encoder.0.0.weight": (6, 4, 3, 3),
    "encoder.0.1.weight": (5, 1, 3, 3),
    "encoder.0.up.weight": (3, 7, 2, 4),
    **{f"encoder.0.blocks.{i}.qkv.weight": (12, 4, 1, 1) for i in range(3)},
    **{f"encoder.0.blocks.{i}.g": (4, 1, 1) for i in range(3)},
    **{f"encoder.0.pairs.{i}.w": (5, 3) for i in range(4)},
    "encoder.1.0.weight": (2, 2, 1, 5),
    "encoder.1.blocks.0.qkv.weight": (3, 2, 1, 1),
    "head.weight": (2, 6),
    "head.bias": (2,),
    "head.count": (),
}
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.int32)


def tree_of(dtype):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def random_state(dtype, seed=0):
    """Arrays of random bits: NaN payloads, infinities and denormals included."""
    rng = np.random.default_rng(seed)
    size = np.dtype(dtype).itemsize
    return {
        key: np.frombuffer(rng.bytes(int(np.prod(shape)) * size), dtype).reshape(shape)
        for key, shape in OFFICIAL.items()
    }


def bits(value):
    value = np.asarray(value)
    return value.dtype, value.shape, value.tobytes()


def test_official_shapes():
    assert official_shapes(tree_of(np.float32), RULES) == OFFICIAL


@settings(deadline=None, max_examples=25)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32 - 1))
def test_round_trip_is_exact(dtype, seed):
    state = random_state(dtype, seed)
    params = from_state_dict(state, RULES, tree_of(dtype))
    assert jax.tree.all(
        jax.tree.map(lambda leaf, want: leaf.shape == want.shape, params, tree_of(dtype))
    )
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    back = to_state_dict(params, RULES)
    assert {k: bits(v) for k, v in back.items()} == {k: bits(v) for k, v in state.items()}
    assert all(value.flags.c_contiguous and value.flags.writeable for value in back.values())
    again = from_state_dict(back, RULES, params)
    assert [bits(leaf) for leaf in jax.tree.leaves(again)] == [
        bits(leaf) for leaf in jax.tree.leaves(params)
    ]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_mismatch_is_named_at_once(data):
    state: dict[str, Any] = random_state(np.float32)
    keys = sorted(OFFICIAL)
    missing = data.draw(st.sets(st.sampled_from(keys), max_size=4), "missing")
    rest = [key for key in keys if key not in missing]
    misshaped = data.draw(st.sets(st.sampled_from(rest), max_size=4), "misshaped")
    fresh = st.text("xyz", min_size=1, max_size=3).map("new.{}".format)
    unexpected = data.draw(st.sets(fresh, max_size=4), "unexpected")
    for key in missing:
        del state[key]
    for key in misshaped:
        state[key] = np.zeros((*OFFICIAL[key], 2), np.float32)
    for key in unexpected:
        state[key] = np.zeros(1, np.float32)
    if not (missing or misshaped or unexpected):
        from_state_dict(state, RULES, tree_of(np.float32))
        return
    with pytest.raises(UserError) as caught:
        from_state_dict(state, RULES, tree_of(np.float32))
    text = str(caught.value)
    matching = len(keys) - len(missing) - len(misshaped)
    assert f"{matching} of {len(keys)} keys match" in text
    for count, kind in ((missing, "missing"), (unexpected, "unexpected")):
        assert (f"{len(count)} {kind}: " in text) == bool(count)
        assert all(key in text for key in count)
    for key in misshaped:
        assert f"{key} expected {OFFICIAL[key]}, found {(*OFFICIAL[key], 2)}" in text


def test_long_lists_are_cut_but_counted():
    with pytest.raises(UserError, match=r"0 of 18 keys match, 18 missing: .*; and 13 more") as e:
        from_state_dict({}, RULES, tree_of(np.float32))
    assert str(e.value).count(";") == 5


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda s: {"old." + k: v for k, v in s.items()}, "18 keys fit once the prefix 'old.'"),
        (lambda s: {"other": s["head.bias"]}, "no name fits"),
        (lambda s: {k: np.zeros((*v.shape, 2), "f4") for k, v in s.items()}, "another size"),
    ],
)
def test_hints(change, hint):
    with pytest.raises(UserError, match=hint):
        from_state_dict(change(random_state(np.float32)), RULES, tree_of(np.float32))


def test_known_dead_keys_are_ignored_and_others_are_not():
    state = random_state(np.float32) | {"head.dead.weight": np.zeros(3, np.float32)}
    from_state_dict(state, RULES, tree_of(np.float32), ignore=[r".*\.dead\..*"])
    with pytest.raises(UserError, match=r"1 unexpected: head\.dead\.weight"):
        from_state_dict(state, RULES, tree_of(np.float32), ignore=[r"head"])


def test_floats_are_converted_to_the_targets_dtype():
    state = random_state(np.float16)
    params = from_state_dict(state, RULES, tree_of(np.float32))
    np.testing.assert_array_equal(params["head"]["kernel"], state["head.weight"].T.astype("f4"))


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (np.float32, np.array([1, 2])),
        (np.int32, np.array([1.0, 2.0])),
        (np.float16, np.array([1e6, 0.0], np.float32)),
        (np.int32, np.array([2**40, 0])),
        (np.float32, np.array([True, False])),
    ],
)
def test_numbers_that_do_not_fit_are_refused(target, value):
    with pytest.raises(UserError, match=f"b expected {np.dtype(target)}, found {value.dtype}"):
        from_state_dict({"b": value}, [Rule("b", "b")], {"b": jax.ShapeDtypeStruct((2,), target)})


def test_infinities_of_the_file_stay():
    value = np.array([np.inf, np.nan], np.float64)
    target = {"b": jax.ShapeDtypeStruct((2,), np.float32)}
    params = from_state_dict({"b": value}, [Rule("b", "b")], target)
    np.testing.assert_array_equal(params["b"], value.astype(np.float32))


def test_leaves_are_placed_where_the_target_says():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    target = {"b": jax.ShapeDtypeStruct((4,), np.float32, sharding=sharding)}
    params = from_state_dict({"b": np.arange(4, dtype="f4")}, [Rule("b", "b")], target)
    assert params["b"].sharding == sharding


def test_later_changes_of_the_source_do_not_show():
    source = np.zeros(1024, np.float32)
    target = {"b": jax.ShapeDtypeStruct((1024,), np.float32)}
    params = from_state_dict({"b": source}, [Rule("b", "b")], target)
    source[:] = 1
    assert not params["b"].any()


def test_a_wrong_table_is_a_programmers_error():
    leaf = jax.ShapeDtypeStruct((2,), np.float32)
    with pytest.raises(ValueError, match="No rule"):
        from_state_dict({}, [Rule("a", "a")], {"b": leaf})
    with pytest.raises(ValueError, match="both map to 'w'"):
        from_state_dict({}, [Rule(".", "w")], {"a": leaf, "b": leaf})
    with pytest.raises(ValueError, match="go together"):
        Rule("a", "a.{i}")
    with pytest.raises(ValueError, match="go together"):
        Rule("a", "a", stacked=True)


def test_parameters_of_a_wrong_rank_are_named():
    with pytest.raises(UserError, match=r"'a' of shape \(3,\) cannot be a pointwise weight"):
        to_state_dict({"a": jnp.zeros(3)}, [Rule("a", "a", POINTWISE)])


def test_an_empty_stack_has_no_keys():
    rules = [Rule("a", "a.{i}", stacked=True)]
    assert to_state_dict({"a": jnp.zeros((0, 3))}, rules) == {}
    target = {"a": jax.ShapeDtypeStruct((0, 3), np.float32)}
    assert from_state_dict({}, rules, target)["a"].shape == (0, 3)


@pytest.mark.parametrize(
    ("transform", "ours"),
    [
        (CONV, (5, 3, 4)),
        (CONV, (2, 3, 3, 4, 6)),
        (LINEAR, (3, 4)),
        (channel_vector(1, 2), (4,)),
        (IDENTITY, ()),
    ],
)
def test_transforms_invert_each_other(transform, ours):
    value = np.random.default_rng(0).standard_normal(ours)
    np.testing.assert_array_equal(transform.to_ours(transform.to_torch(value)), value)


@pytest.mark.parametrize(("stride", "padding"), [(2, 0), (2, 1), (1, 1)])
def test_transposed_convolution_is_the_adjoint_of_convolution(stride, padding):
    """PyTorch defines ConvTranspose2d as the gradient of Conv2d with the same weight."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 5, 4, 3)).astype(np.float32)  # (I, O, kh, kw)
    x = jnp.asarray(rng.standard_normal((2, 6, 7, 3)).astype(np.float32))
    dims = ("NHWC", "HWIO", "NHWC")
    ours = jnp.asarray(CONV_TRANSPOSE.to_ours(weight))
    pads = [(k - 1 - padding,) * 2 for k in (4, 3)]
    y = jax.lax.conv_general_dilated(
        x, ours, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=dims
    )

    def forward(image):
        kernel = jnp.asarray(CONV.to_ours(weight))
        window = (stride, stride), [(padding, padding)] * 2
        return jax.lax.conv_general_dilated(image, kernel, *window, dimension_numbers=dims)

    _, adjoint = jax.vjp(forward, jnp.zeros(y.shape))
    np.testing.assert_allclose(y, adjoint(x)[0], rtol=1e-5, atol=1e-5)


def test_prefixes_go_only_if_the_networks_keys_come_out():
    assert strip_prefix({"module.net.a": 1, "module.net.b": 2}, ["a"]) == {"a": 1, "b": 2}
    assert strip_prefix({"module.model.a": 1}, ["model.a"]) == {"model.a": 1}
    assert strip_prefix({"model.a": 1}, ["model.a", "a"]) == {"model.a": 1}
    assert strip_prefix({"model.x": 1}, ["a"]) == {"model.x": 1}
    assert strip_prefix({"net.a": 1, "b": 2}, ["a"]) == {"net.a": 1, "b": 2}
    assert strip_prefix({"ema.a": 1}, ["a"], ["ema."]) == {"a": 1}
    assert strip_prefix({"net.": 1}, ["a"]) == {"net.": 1}
    assert strip_prefix({}, ["a"]) == {}
    assert select_prefix({"ema.a": 1, "b": 2}, "ema.") == {"a": 1}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.model.", "model."])
def test_wrapped_weights_are_read_as_they_are(prefix):
    state = random_state(np.int32)
    wrapped = {prefix + key: value for key, value in state.items()}
    params = from_state_dict(wrapped, RULES, tree_of(np.int32))
    assert to_state_dict(params, RULES).keys() == state.keys()


def test_a_network_whose_own_keys_begin_like_a_wrapper_keeps_them():
    rules = [Rule("embed", "model.embed.weight")]
    for prefix in ("", "module."):
        weights = {prefix + "model.embed.weight": np.arange(3, dtype="f4")}
        params = from_state_dict(weights, rules, {"embed": np.zeros(3, "f4")})
        assert list(to_state_dict(params, rules)) == ["model.embed.weight"]
