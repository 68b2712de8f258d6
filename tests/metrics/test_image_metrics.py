import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxcore.errors import UserError
from jaxcore.metrics import METRICS, PROTOCOLS, luma, psnr, ssim


def _pair(shape, seed=0, spread=0.1):
    """A target in [0, 1] and a prediction that leaves it."""
    rng = np.random.default_rng(seed)
    target = rng.random(shape, np.float32)
    return target + spread * rng.standard_normal(shape, np.float32), target


@pytest.mark.parametrize("shape", [(40, 56, 3), (37, 51, 3), (7, 7, 1), (9, 200, 2)])
def test_psnr_and_ssim_agree_with_scikit_image(shape):
    image, target = _pair(shape)
    expected = peak_signal_noise_ratio(target, image, data_range=1)
    np.testing.assert_allclose(psnr(image, target), expected, rtol=1e-6)
    expected = structural_similarity(
        target.astype(np.float64), image.astype(np.float64), data_range=1, channel_axis=-1
    )
    np.testing.assert_allclose(ssim(image, target), expected, rtol=1e-5)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_gaussian_ssim_agrees_with_scikit_image(data_range):
    image, target = (data_range * a for a in _pair((33, 48, 3)))
    expected = structural_similarity(
        target.astype(np.float64),
        image.astype(np.float64),
        data_range=data_range,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    found = ssim(image, target, data_range=data_range, window="gaussian11")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_padded_ssim_is_the_plain_definition():
    image, target = (np.clip(a, 0, 1).astype(np.float64) for a in _pair((13, 12, 1)))
    k = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    k = np.outer(k, k) / np.outer(k, k).sum()

    def local(a):
        a = np.pad(a[..., 0], 5)
        return np.array(
            [[(k * a[i : i + 11, j : j + 11]).sum() for j in range(12)] for i in range(13)]
        )

    mx, my = local(image), local(target)
    vx, vy = local(image**2) - mx**2, local(target**2) - my**2
    vxy = local(image * target) - mx * my
    index = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4)
    index /= (mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)
    found = ssim(
        image.astype(np.float32), target.astype(np.float32), window="gaussian11", padding="zero"
    )
    np.testing.assert_allclose(found, index.mean(), rtol=1e-5)


def test_equal_images_have_100_db_as_for_dea_net():
    image, target = _pair((2, 20, 24, 3))
    image[0] = target[0] = 0.5
    decibel, index = (metric(image, target) for metric in PROTOCOLS["rgb_gaussian"])
    assert decibel[0] == 100 and index[0] == 1
    assert decibel[1] == METRICS["psnr_rgb"](image, target)[1] < 100
    assert abs(index[1] - METRICS["ssim_rgb"](image, target)[1]) > 1e-3


def test_y_channel_protocol():
    image, target = _pair((30, 41, 3))

    def y(a):
        levels = np.round(np.clip(a.astype(np.float64), 0, 1) * 255)
        return np.round(16 + levels @ np.array([65.481, 128.553, 24.966]) / 255)

    assert (np.abs(np.asarray(luma(jnp.asarray(image)))[..., 0] - y(image)) <= 1).all()
    assert (np.asarray(luma(jnp.asarray(image)))[..., 0] == y(image)).mean() > 0.999
    expected = 20 * np.log10(255 / np.sqrt(np.mean((y(image) - y(target)) ** 2)))
    np.testing.assert_allclose(METRICS["psnr_y"](image, target), expected, rtol=1e-5)
    expected = structural_similarity(
        y(target),
        y(image),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    np.testing.assert_allclose(METRICS["ssim_y_gaussian11"](image, target), expected, rtol=1e-5)


def test_protocols_clip_first():
    image, target = _pair((24, 24, 3), spread=0.5)
    clipped = np.clip(image, 0, 1)
    for name, metric in METRICS.items():
        assert metric(image, target) == metric(clipped, target), name
    assert psnr(image, target) != psnr(clipped, target)


@pytest.mark.parametrize("name", METRICS)
def test_protocols_are_pure_functions_of_one_image(name):
    metric = METRICS[name]
    images, targets = _pair((3, 20, 17, 3))
    single = [metric(i, t) for i, t in zip(images, targets, strict=True)]
    np.testing.assert_allclose(jax.jit(metric)(images, targets), single, rtol=2e-6)
    np.testing.assert_allclose(jax.vmap(metric)(images, targets), single, rtol=2e-6)
    gradient = jax.grad(lambda a: metric(a, targets[0]))(jnp.asarray(images[0]))
    assert np.isfinite(gradient).all()
    equal = metric(targets[0], targets[0])
    best = {"psnr_rgb_equal100": 100.0}.get(name, np.inf if name.startswith("psnr") else 1.0)
    np.testing.assert_allclose(equal, best, rtol=1e-6)
    at_target = jax.grad(lambda a: metric(a, targets[0]))(jnp.asarray(targets[0]))
    assert np.isfinite(at_target).all()


def test_half_precision_is_measured_in_float32():
    image, target = _pair((16, 16, 3))
    half = jnp.asarray(image, jnp.bfloat16)
    found = psnr(half, jnp.asarray(target))
    assert found.dtype == jnp.float32
    assert found == psnr(np.asarray(half, np.float32), target)


@pytest.mark.parametrize("kind", ["constant", "random"])
def test_the_mean_is_accurate_for_large_images(kind):
    shape = (3000, 4000, 3)
    rng = np.random.default_rng(0)
    error = np.float32(0.1) if kind == "constant" else rng.random(shape, np.float32)
    target = np.zeros(shape, np.float32)
    image = target + error
    expected = -10 * np.log10(np.mean(np.square(image, dtype=np.float64)))
    np.testing.assert_allclose(jax.jit(psnr)(image, target), expected, atol=2e-6)


def test_border():
    image, target = _pair((30, 20, 3))
    inner = np.s_[4:-4, 4:-4]
    assert psnr(image, target, border=4) == psnr(image[inner], target[inner])
    assert ssim(image, target, border=4) == ssim(image[inner], target[inner])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: psnr(jnp.zeros((4, 4, 3)), jnp.zeros((4, 4, 1))), "one shape"),
        (lambda: psnr(jnp.zeros((4, 4)), jnp.zeros((4, 4))), "height, width"),
        (lambda: psnr(jnp.zeros((4, 4, 3), jnp.uint8), jnp.zeros((4, 4, 3))), "floating-point"),
        (lambda: psnr(jnp.zeros((4, 4, 3)), jnp.zeros((4, 4, 3)), border=2), "border"),
        (lambda: ssim(jnp.zeros((6, 9, 3)), jnp.zeros((6, 9, 3))), "at least 7x7 pixels"),
        (
            lambda: METRICS["ssim_y_gaussian11"](jnp.zeros((10, 50, 3)), jnp.zeros((10, 50, 3))),
            "at least 11x11 pixels",
        ),
        (lambda: ssim(jnp.zeros((9, 9, 3)), jnp.zeros((9, 9, 3)), window="box"), "window"),
        (lambda: luma(jnp.zeros((4, 4, 1))), "RGB"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_nan_is_not_hidden():
    image = jnp.full((8, 8, 3), jnp.nan)
    assert np.isnan(psnr(image, jnp.zeros((8, 8, 3))))


def test_matlab_protocol_is_the_plain_definition():
    """SSIM of a volume: 11x11x11 Gaussian weights, the border repeated on every side."""
    image, target = _pair((6, 5, 3))
    psnr_rgb8, ssim_rgb8 = (m(image, target) for m in PROTOCOLS["matlab_rgb"])
    x, y = (np.round(255 * np.clip(a.astype(np.float64), 0, 1)) for a in (image, target))
    np.testing.assert_allclose(psnr_rgb8, 10 * np.log10(255**2 / np.mean((x - y) ** 2)), rtol=1e-5)
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.einsum("i,j,k->ijk", *[line / line.sum()] * 3)

    def local(a):
        padded = np.pad(a, 5, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11, 11))
        return np.einsum("hwcijk,ijk->hwc", windows, weights)

    mx, my = local(x), local(y)
    vx, vy, vxy = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    index = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(ssim_rgb8, index.mean(), rtol=1e-4)


def test_a_volume_needs_its_border_repeated():
    image, target = _pair((12, 12, 3))
    with pytest.raises(UserError, match="padding edge for the SSIM of a volume, found valid"):
        ssim(image, target, window="gaussian11", volume=True)
