"""LPIPS, DISTS and FID beside formulas written out in NumPy, and beside PyTorch's networks."""

import functools

import jax
import numpy as np
import pytest

from jaxcore.metrics.frechet import Cloud, frechet_distance
from jaxcore.metrics.inception import inception_compiled, is_fid_edition
from jaxcore.metrics.perceptual import dists_compiled, lpips_compiled
from tests.metric_weights import ALEX, VGG, heads_of, thin


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(2)
    return [rng.random((2, 64, 80, 3), np.float32) for _ in range(2)]


def conv(x, kernel, stride, padding, groups=1):
    """Of one image (c, h, w), in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (1, 2))
    windows = windows[:, ::stride, ::stride]
    if groups > 1:
        return np.einsum("chwij,cij->chw", windows, kernel[:, 0])
    return np.einsum("chwij,ocij->ohw", windows, kernel)


def largest(x, side):
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return windows[:, ::2, ::2].max((-2, -1))


def written_out(network, weights, x, taps=None):
    """Maps of one normalised image (c, h, w)."""

    def layer(x, index, stride, padding):
        name = f"features.{index}"
        y = conv(x, weights[f"{name}.weight"], stride, padding)
        return np.maximum(y + weights[f"{name}.bias"][:, None, None], 0)

    found = []
    if network == "alex":
        for index, (_, stride, padding) in ALEX.items():
            x = largest(x, 3) if index in (3, 6) else x
            x = layer(x, index, stride, padding)
            found.append(x)
        return found
    for block in VGG:
        if found and taps is None:
            x = largest(x, 2)
        elif found:
            kernel = np.outer(taps, taps) / np.sum(taps) ** 2
            kernel = np.broadcast_to(kernel, (len(x), 1, 3, 3))
            x = np.sqrt(conv(x**2, kernel, 2, 1, groups=len(x)) + 1e-12)
        for index in block:
            x = layer(x, index, 1, 1)
        found.append(x)
    return found


def channels_first(x):
    return np.moveaxis(x.astype(np.float64), -1, 0)


def lpips_written_out(network, weights, heads, a, b):
    shift, scale = np.array((-0.03, -0.088, -0.188)), np.array((0.458, 0.448, 0.45))
    maps = [
        written_out(network, weights, channels_first((2 * x - 1 - shift) / scale)) for x in (a, b)
    ]
    total = 0.0
    for i, (p, q) in enumerate(zip(*maps, strict=True)):
        p, q = (x / (np.sqrt((x**2).sum(0)) + 1e-10) for x in (p, q))
        head = heads[f"lin{i}.model.1.weight"].ravel()
        total += np.einsum("chw,c->hw", (p - q) ** 2, head).mean()
    return total


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_its_formula(pictures, network):
    weights, (heads, _) = thin(network), heads_of([3] * 5)
    found = lpips_compiled(weights, heads, *pictures, network=network)
    expected = [
        lpips_written_out(network, weights, heads, a, b) for a, b in zip(*pictures, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_array_equal(
        lpips_compiled(weights, heads, pictures[0], pictures[0], network=network), 0
    )


def test_dists_is_its_formula(pictures):
    weights, (_, heads) = thin("vgg"), heads_of([3] * 5)
    found = dists_compiled(weights, heads, *pictures)
    alpha, beta = (heads[name].astype(np.float64).ravel() for name in ("alpha", "beta"))
    whole, small = alpha.sum() + beta.sum(), 1e-6
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    for one, pair in zip(found, zip(*pictures, strict=True), strict=True):
        p, q = (
            [
                channels_first(x),
                *written_out("vgg", weights, channels_first((x - mean) / std), (0.5, 1, 0.5)),
            ]
            for x in pair
        )
        terms = []
        for x, y in zip(p, q, strict=True):
            mx, my = x.mean((1, 2)), y.mean((1, 2))
            texture = (2 * mx * my + small) / (mx**2 + my**2 + small)
            shared = (x * y).mean((1, 2)) - mx * my
            spread = x.var((1, 2)) + y.var((1, 2))
            terms.append((texture, (2 * shared + small) / (spread + small)))
        first, second = (np.concatenate(part) for part in zip(*terms, strict=True))
        expected = 1 - (alpha @ first + beta @ second) / whole
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        dists_compiled(weights, heads, pictures[0], pictures[0]), 0, atol=1e-6
    )


def test_the_frechet_distance_is_that_of_gaussians():
    """Against the root of the product of the covariances itself."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(200, 6)), rng.normal(1, 2, size=(300, 6)) @ rng.normal(size=(6, 6))
    values, vectors = np.linalg.eig(np.cov(a.T) @ np.cov(b.T))
    root = (vectors * np.sqrt(values)) @ np.linalg.inv(vectors)
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)
    parts = [Cloud.of(part) for part in np.array_split(b, 3)]
    found = frechet_distance(Cloud.of(a), functools.reduce(lambda p, q: p + q, parts))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    few = Cloud.of(rng.normal(size=(3, 50)))  # covariances that are not regular
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-8)


def arrays(module):
    return {key: value.numpy() for key, value in module.state_dict().items()}


def images_for(torch, pictures):
    return [torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in pictures]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_features_are_those_of_torchvision(pictures, network):
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision.models")
    from jaxcore.metrics.features import alexnet, vgg16

    torch.manual_seed(0)
    model = (models.alexnet if network == "alex" else models.vgg16)(weights=None).eval()
    weights = arrays(model)
    ends = (1, 4, 7, 9, 11) if network == "alex" else (3, 8, 15, 22, 29)
    expected, x = [], images_for(torch, pictures[:1])[0]
    with torch.no_grad():
        for i, layer in enumerate(model.features):
            x = layer(x)
            if i in ends:
                expected.append(
                    np.moveaxis(x.numpy(), 1, -1).copy()
                )  # the next layer may be inplace
    found = jax.jit(alexnet if network == "alex" else vgg16)(weights, pictures[0])
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("fid", [True, False])
def test_inception_is_that_of_pytorch(pictures, fid):
    torch = pytest.importorskip("torch")
    edition = pytest.importorskip("pytorch_fid.inception")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.inception_v3(
        weights=None,
        num_classes=1008 if fid else 1000,
        aux_logits=False,
        init_weights=True,
        transform_input=False,
    )
    if fid:
        for name, width in (("5b", 32), ("5c", 64), ("5d", 64)):
            made = edition.FIDInceptionA(
                {"5b": 192, "5c": 256, "5d": 288}[name], pool_features=width
            )
            setattr(model, f"Mixed_{name}", made)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(model, f"Mixed_{name}", edition.FIDInceptionC(768, channels_7x7=width))
        model.Mixed_7b, model.Mixed_7c = (
            edition.FIDInceptionE_1(1280),
            edition.FIDInceptionE_2(2048),
        )
    with torch.no_grad():
        for key, value in model.named_buffers():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif key.endswith("running_mean"):
                value.normal_(0, 0.1)
    model.eval()
    seen = []
    model.avgpool.register_forward_hook(lambda *found: seen.append(found[-1].flatten(1).numpy()))
    with torch.no_grad():
        x = images_for(torch, pictures[:1])[0]
        x = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        model(2 * x - 1)
    weights = {key: value for key, value in arrays(model).items() if value.ndim}
    assert is_fid_edition(weights) == fid
    found = inception_compiled(weights, pictures[0], fid=fid)
    assert found.shape == (2, 2048)
    assert np.abs(found - seen[0]).max() < 1e-3 * np.abs(seen[0]).max()
