"""Contrastive regularisation: gradients, options, weights that are not those of a VGG19."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.dea_net.contrastive import (
    VGG19Features,
    contrastive_distances,
    contrastive_regularization,
    vgg19_from_torch,
    vgg19_init,
    vgg19_to_torch,
)


@pytest.fixture(scope="module")
def vgg():
    return vgg19_init(jax.random.key(0), width=4)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 2, 17, 20, 3))


def test_the_published_size():
    shapes = jax.eval_shape(lambda: vgg19_init(jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 12_944_960
    x = jax.ShapeDtypeStruct((1, 37, 50, 3), "float32")
    maps = jax.eval_shape(VGG19Features().apply, {"params": shapes}, x)
    assert [m.shape[1:] for m in maps] == [
        (37, 50, 64),
        (18, 25, 128),
        (9, 12, 256),
        (4, 6, 512),
        (2, 3, 512),
    ]


def test_only_the_restored_image_gets_a_gradient(vgg, images):
    loss = jax.jit(jax.grad(contrastive_regularization, argnums=(0, 1, 2, 3)))
    out, *others = loss(*images, vgg)
    assert jnp.abs(out).max() > 0
    assert all(not leaf.any() for leaf in jax.tree.leaves(others))


def test_ratios_per_batch_and_per_image(vgg, images):
    options = ("per_sample", "positive_only")
    run = jax.jit(contrastive_regularization, static_argnames=options)
    positive, negative = jax.jit(contrastive_distances)(*images, vgg)
    weights = np.array([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1])
    positive, negative = np.asarray(positive), np.asarray(negative)
    of_batch = weights @ (positive.mean(1) / (negative.mean(1) + 1e-7))
    of_image = weights @ (positive / (negative + 1e-7)).mean(1)
    assert float(run(*images, vgg)) == pytest.approx(of_batch, rel=1e-5)
    assert float(run(*images, vgg, per_sample=True)) == pytest.approx(of_image, rel=1e-5)
    assert abs(of_batch - of_image) > 1e-4
    alone = float(run(*images, vgg, positive_only=True))
    assert alone == pytest.approx(weights @ positive.mean(1), rel=1e-5)


def test_torchvision_files_hold_more_than_is_used(vgg):
    tensors = vgg19_to_torch(vgg)
    more = {
        "features.30.weight": np.zeros((32, 32, 3, 3), np.float32),
        "classifier.0.weight": np.zeros((8, 8), np.float32),
    }
    bare = {key.removeprefix("features."): value for key, value in tensors.items()}
    for found in (tensors | more, bare):
        again = vgg19_from_torch(found, width=4)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, vgg))


def _vgg16(tensors):
    return {k: v for k, v in tensors.items() if not k.startswith(("features.16.", "features.25."))}


@pytest.mark.parametrize(
    "change, message",
    [
        (_vgg16, "Expected weights of torchvision's vgg19"),
        (lambda t: {}, "found 0 tensors"),
        (lambda t: {k: v for k, v in t.items() if "28" not in k}, "2 missing: features.28"),
        (lambda t: t | {"features.17.weight": t["features.16.weight"]}, "1 unexpected"),
        (lambda t: t | {"features.0.bias": np.zeros(5, np.float32)}, "1 of another shape"),
    ],
)
def test_other_weights_are_refused(vgg, change, message):
    with pytest.raises(UserError, match=message):
        vgg19_from_torch(change(vgg19_to_torch(vgg)), width=4)


@pytest.mark.parametrize(
    "shapes, message",
    [
        ([(1, 16, 16, 3), (1, 16, 17, 3), (1, 16, 16, 3)], "of one shape"),
        ([(1, 15, 16, 3)] * 3, "at least 16x16 pixels, found"),
        ([(16, 16, 3)] * 3, "batch, height"),
        ([(1, 16, 16, 1)] * 3, "width, 3"),
    ],
)
def test_bad_images_are_refused(vgg, shapes, message):
    with pytest.raises(UserError, match=message):
        contrastive_regularization(*(jnp.zeros(shape) for shape in shapes), vgg)
