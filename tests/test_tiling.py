"""Images of any size through a network: padding, tiles, ensemble, sizes compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.ops.padding import crop, pad_to, pad_to_multiple
from jaxcore.tiling import restore, tiled


def image(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


sides = st.integers(1, 70)


@settings(deadline=None, max_examples=60)
@given(h=sides, w=sides, multiple=st.sampled_from([1, 8, 16]))
def test_padding_is_undone_by_cropping(h, w, multiple):
    x = image(h, w, 3)
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[0] % multiple == 0 and padded.shape[1] % multiple == 0
    assert 0 <= padded.shape[0] - h < multiple and 0 <= padded.shape[1] - w < multiple
    np.testing.assert_array_equal(crop(padded, h, w), x)


def test_padding_reflects_where_it_can():
    x = image(1, 5, 6, 2)
    padded = pad_to(x, 9, 8)
    np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (0, 4), (0, 2), (0, 0)], "reflect"))
    assert pad_to(image(1, 1, 1), 8, 8).shape == (8, 8, 1)


@settings(deadline=None, max_examples=60)
@given(
    h=sides,
    w=sides,
    tile=st.sampled_from([8, 16, 32]),
    overlap=st.integers(0, 7),
    blend=st.sampled_from(["linear", "uniform"]),
    ensemble=st.booleans(),
)
def test_a_pointwise_function_is_applied_exactly(h, w, tile, overlap, blend, ensemble):
    x = image(h, w, 3)
    seen = set()

    def fn(tiles):
        seen.add(tiles.shape[1:3])
        return 2 * tiles + 1

    options = {"tile": tile, "overlap": overlap, "blend": blend, "ensemble": ensemble}
    ours = restore(fn, x, multiple=8, **options)
    np.testing.assert_allclose(ours, 2 * x + 1, rtol=1e-5)
    assert len(seen) <= (2 if ensemble else 1)  # the image and its transpose
    assert all(side <= tile and side % 8 == 0 for size in seen for side in size)


def test_neighbourhoods_inside_the_overlap_leave_no_seam():
    x = image(1, 40, 56, 1)

    def blur(a):  # reaches one pixel far, zero outside
        p = np.pad(a, [(0, 0), (1, 1), (1, 1), (0, 0)])
        shifts = [p[:, i : i + a.shape[1], j : j + a.shape[2]] for i in range(3) for j in range(3)]
        return np.mean(shifts, axis=0)

    ours = tiled(blur, x, tile=16, overlap=8)
    uniform = tiled(blur, x, tile=16, overlap=8, blend="uniform")
    exact = blur(x)
    assert np.abs(ours - exact).max() < np.abs(uniform - exact).max() < 0.3
    inner = np.s_[:, 1:7, 1:7]
    np.testing.assert_allclose(ours[inner], exact[inner], atol=1e-6)


def test_ensemble_is_the_mean_over_the_eight_symmetries():
    x = image(8, 16, 2)
    weight = image(16, 16, 1, seed=1)

    def fn(a):  # depends on the position, so it is not equivariant
        return a * weight[: a.shape[1], : a.shape[2]]

    expected = np.zeros_like(x)
    for k in range(4):
        for flip in (False, True):
            turned = np.rot90(x, k)
            turned = turned[:, ::-1] if flip else turned
            back = fn(turned[None])[0]
            back = back[:, ::-1] if flip else back
            expected += np.rot90(back, -k) / 8
    np.testing.assert_allclose(restore(fn, x, multiple=8, ensemble=True), expected, atol=1e-6)


def test_batches_and_single_images_agree():
    x = image(3, 21, 34, 3)
    batch = restore(np.sqrt, x, multiple=8, tile=16, overlap=4)
    assert batch.shape == x.shape and batch.dtype == np.float32
    for one, single in zip(batch, x, strict=True):
        np.testing.assert_array_equal(restore(np.sqrt, single, multiple=8, tile=16, overlap=4), one)


def test_buckets_and_tiles_bound_the_number_of_compilations():
    traces = []

    @jax.jit
    def network(x):
        traces.append(x.shape)
        return jnp.tanh(x)

    sizes = [(h, w) for h in (33, 40, 47, 64) for w in (50, 63)]
    for h, w in sizes:
        restore(network, image(h, w, 3), multiple=8, bucket=64)
    assert traces == [(1, 64, 64, 3)]
    traces.clear()
    for h, w in sizes:
        restore(network, image(h, w, 3), multiple=8, tile=32, overlap=8)
    assert traces == [(1, 32, 32, 3)]


def test_progress_counts_every_call():
    calls = []
    options = {"tile": 16, "overlap": 0, "ensemble": True}
    restore(np.sqrt, image(30, 40, 1), multiple=8, progress=lambda *a: calls.append(a), **options)
    assert calls == [(i + 1, 8 * 2 * 3) for i in range(48)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 20}, "tile must be a positive multiple of 8, found 20"),
        ({"bucket": 12}, "bucket must be a positive multiple of 8, found 12"),
        ({"tile": 16, "overlap": 16}, "overlap must be from 0 to below the tile 16, found 16"),
        ({"blend": "hard"}, "blend must be 'linear' or 'uniform', found 'hard'"),
    ],
)
def test_options_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        restore(np.sqrt, image(8, 8, 1), multiple=8, **change)


def test_images_that_cannot_be_restored():
    bad = image(8, 8, 1)
    bad[0, :2, 0] = np.nan, np.inf
    for x, message in (
        (bad, "found 2 that are NaN or infinite"),
        (np.zeros((8, 8), np.float32), r"found \(8, 8\)"),
        (np.zeros((0, 8, 3), np.float32), r"found \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), "found uint8"),
        (np.zeros((8, 8, 3), np.complex64), "found complex64"),
    ):
        with pytest.raises(UserError, match=message):
            restore(np.sqrt, x, multiple=8)
    with pytest.raises(UserError, match="must keep batch, height and width"):
        restore(lambda x: x[:, ::2], image(8, 8, 1), multiple=8)


def test_any_array_of_floats_will_do():
    x = image(8, 12, 1)
    for same in (x.tolist(), jnp.asarray(x), jnp.asarray(x, jnp.bfloat16), x.astype(np.float64)):
        out = restore(lambda y: y, same, multiple=8)
        np.testing.assert_allclose(out, x, atol=0.01)


def test_small_images_are_padded_to_the_least_size():
    seen = []

    def network(x):
        seen.append(x.shape[1:3])
        return x

    x = image(3, 40, 3)
    for tile in (None, 20):
        out = restore(network, x, multiple=4, least=16, tile=tile, overlap=4)
        np.testing.assert_allclose(out, x, atol=1e-6)
    assert seen[0] == (16, 40) and set(seen[1:]) == {(16, 20)}
    with pytest.raises(UserError, match="tile must be at least 16, found 12"):
        restore(network, x, multiple=4, least=16, tile=12, overlap=4)
