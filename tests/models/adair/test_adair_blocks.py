"""The frequency block alone: empty windows, modes, methods, gradients, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.models.adair import AFLB, GDFN, AdaIRConfig, frequency
from jaxcore.nn import capture, init_params

HEIGHT, WIDTH, CHANNELS = 12, 16, 16


def config(**changes):
    return AdaIRConfig(dim=16, heads=(1, 1, 4, 4), **changes)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    features = rng.normal(size=(2, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
    return image, features


def make(cfg, data, spread=1.0):
    """Parameters with para1 != 0, so that the block contributes."""
    block = AFLB(cfg=config(bias=cfg.bias))

    def init(key):
        return block.init(key, *data)["params"]

    params = jax.jit(lambda key: init_params(init, key))(jax.random.key(0))
    rate = jax.random.normal(jax.random.key(1), (2, 2))
    params["mining"]["rate_conv_2"]["kernel"] = spread * rate
    params["para1"] = jnp.linspace(0.5, 1.5, CHANNELS)
    return params


def run(cfg, params, data):
    """Features, and what was found on the way, named within the block's mining."""
    y, values = jax.jit(capture(AFLB(cfg=cfg).apply))({"params": params}, *data)
    return y, {name.removeprefix("mining/"): value for name, value in values.items()}


@pytest.mark.parametrize("bias", [False, True])
def test_skipping_an_empty_window_changes_nothing(data, bias):
    full = config(bias=bias, skip_empty_mask=False)
    params = make(full, data)
    expected, info = run(full, params, data)
    ours, _ = run(config(bias=bias), params, data)
    assert not info["half_width"].any()
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["official", "fixed", "ratio", "soft"])
def test_matrix_and_fft_agree(data, mode):
    options = {"mask_mode": mode, "mask_unit": 2, "mask_side": 4}
    params = make(config(), data)
    fft, info = run(config(**options), params, data)
    matrix, _ = run(config(spectral="matrix", **options), params, data)
    assert info["half_width"].max() >= 1
    np.testing.assert_allclose(matrix, fft, atol=2e-5)


def test_windows_of_the_modes():
    t = jnp.array([[0.0, 0.3], [0.5, 0.999]])
    size = (12, 17)

    def half(**options):
        return np.asarray(frequency.windows(t, size, config(**options))[0])

    np.testing.assert_array_equal(half(mask_unit=4), [[0, 1], [1, 3]])
    np.testing.assert_array_equal(half(), np.zeros((2, 2)))
    np.testing.assert_array_equal(half(mask_mode="fixed"), [[5, 5], [5, 5]])
    np.testing.assert_array_equal(half(mask_mode="fixed", mask_side=40), [[6, 8], [6, 8]])
    np.testing.assert_array_equal(half(mask_mode="ratio"), [[0, 2], [3, 8]])
    np.testing.assert_allclose(half(mask_mode="soft"), t * np.array([[6, 8.5]]), rtol=1e-6)


def gradients(cfg, params, data, weight=1.0):
    def loss(params, image, features):
        y = AFLB(cfg=cfg).apply({"params": params}, image, features)
        return jnp.mean(jnp.abs(y.astype(jnp.float32) - weight))

    return jax.jit(jax.grad(loss))(params, *data)


@pytest.mark.parametrize(
    "cfg", [config(skip_empty_mask=False), config(skip_empty_mask=False, dtype="bfloat16")]
)
def test_gradients_are_finite_where_the_low_part_is_zero(data, cfg):
    found = gradients(cfg, make(cfg, data), data)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in jax.tree.leaves(found))
    low = found["channel_cross_h"]
    assert not low["temperature"].any() and not low["q"]["kernel"].any()


@pytest.mark.parametrize(("mode", "learns"), [("soft", True), ("official", False)])
def test_only_the_soft_threshold_learns(data, mode, learns):
    cfg = config(mask_mode=mode, mask_unit=2)
    found = gradients(cfg, make(cfg, data), data)["mining"]
    assert found["conv1"]["kernel"].any()
    for name in ("rate_conv_0", "rate_conv_2"):
        assert bool(found[name]["kernel"].any()) is learns
        assert np.isfinite(found[name]["kernel"]).all()


def test_a_new_threshold_needs_no_new_compilation(data):
    cfg = config(mask_unit=2)
    traces = []

    @jax.jit
    def block(params, image, features):
        traces.append(1)
        apply = capture(AFLB(cfg=cfg).apply, "mining/half_width")
        return apply({"params": params}, image, features)[1]["mining/half_width"]

    one, other = (block(make(cfg, data, spread), *data) for spread in (1.0, -3.0))
    assert not np.array_equal(one, other)
    assert len(traces) == 1


def test_mask_is_the_window_in_fft_order(data):
    cfg = config(mask_unit=2)
    info = run(cfg, make(cfg, data), data)[1]
    for mask, (kh, kw) in zip(info["mask"], np.asarray(info["half_width"], int), strict=True):
        centred = np.fft.fftshift(mask)
        expected = np.zeros((HEIGHT, WIDTH))
        h, w = HEIGHT // 2, WIDTH // 2
        expected[h - kh : h + kh, w - kw : w + kw] = 1
        np.testing.assert_array_equal(centred, expected)


def test_local_statistics(data):
    cfg = config(mask_mode="soft")
    params = make(cfg, data)
    whole, _ = run(cfg, params, data)

    def with_window(window):
        block = AFLB(cfg=cfg, window=window)
        return jax.jit(lambda p, *a: block.apply({"params": p}, *a))(params, *data)

    np.testing.assert_array_equal(with_window(16), whole)
    local = with_window(8)
    assert local.shape == whole.shape and np.isfinite(local).all()
    assert np.abs(local - whole).max() > 1e-3


@pytest.mark.parametrize("bias", [False, True])
def test_hidden_channels_that_are_filled_up_change_no_value_and_no_parameter(data, bias):
    _, x = data  # 42 hidden channels

    def both(multiple):
        block = GDFN(multiple=multiple, use_bias=bias)
        params = jax.jit(block.init)(jax.random.key(0), x)
        params = jax.tree.map(lambda a: a + 0.1, params)  # biases that are not zero

        def loss(params, x):
            y = block.apply(params, x)
            return jnp.sum(y**2), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

    for a, b in zip(*map(jax.tree.leaves, (both(1), both(8))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())
