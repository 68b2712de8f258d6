"""Networks of all folds in one step: each learns what it would learn alone, and runs go on."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcore.data.image_units import ImageUnits
from jaxcore.errors import UserError
from jaxcore.models.convnet import ConvNetConfig
from jaxcore.models.vit import ViTConfig
from jaxcore.parallel import make_mesh
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.tasks.image_fits import augmented
from jaxcore.train.tasks.propensity import PropensityTask

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (20, 13, 13, 2)).astype(np.uint8)
ROW = np.repeat(np.arange(20), 2)
SEEN = (IMAGES.mean((1, 2, 3))[ROW] - 127) / 12
A = (RNG.random(40) < 1 / (1 + np.exp(-SEEN))).astype(np.float32)
FOLD = ROW % 2
MASKS = np.stack([FOLD != 0, FOLD != 1]).astype(np.float32)
UNITS = ImageUnits(
    images=IMAGES,
    image=ROW,
    target=A[:, None],
    masks=MASKS,
    mean=IMAGES.mean((0, 1, 2)),
    sd=IMAGES.std((0, 1, 2)),
    covariates=RNG.normal(size=(40, 2)).astype(np.float32),
)
VIT = ViTConfig.tiny(in_channels=2)
CONV = ConvNetConfig.tiny(in_channels=2, covariates=0)
CFG = TrainConfig(
    steps=6,
    optim=OptimConfig(name="sgd", learning_rate=0.1, clip_norm=0.1),  # Adam blows rounding up
    tensorboard=False,
    log_every=3,
    save_every=3,
)


def task(network=CONV, units=UNITS, **changes):
    name = "vit" if network is VIT else "convnet"
    if not network.covariates:
        units = dataclasses.replace(units, covariates=None)
    settings = {"numbers": (0, 1), "batch_size": 8} | changes
    return PropensityTask(model=name, network=network, units=units, **settings)


def outputs(one, run_dir, **options):
    state = fit(one, CFG, run_dir, reporter=Silent(), **options).state
    return one.outputs(state.eval_params, state.collections)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What both folds of each network say when they are trained at once."""
    place = tmp_path_factory.mktemp("together")
    return {one.title: outputs(task(one), place / one.title) for one in (VIT, CONV)}


@pytest.mark.parametrize("network", [VIT, CONV], ids=lambda cfg: cfg.title)
def test_folds_learn_at_once_what_they_learn_one_after_another(network, together, tmp_path):
    for number in (0, 1):
        units = dataclasses.replace(UNITS, masks=MASKS[number : number + 1])
        alone = outputs(task(network, units, numbers=(number,)), tmp_path / str(number))
        np.testing.assert_allclose(alone[0], together[network.title][number], atol=2e-5)


@pytest.mark.parametrize("network", [VIT, CONV], ids=lambda cfg: cfg.title)
def test_one_product_for_all_folds_teaches_them_the_same(network, together, tmp_path):
    found = outputs(task(network, in_turn=False), tmp_path)
    np.testing.assert_allclose(found, together[network.title], atol=2e-5)


def test_images_read_for_each_batch_teach_the_same(together, tmp_path):
    class Stored:
        """Images that are there by rows."""

        shape = IMAGES.shape

        def __getitem__(self, rows):
            return IMAGES[rows]

    units = dataclasses.replace(UNITS, images=Stored())
    found = outputs(task(units=units, on_device=False), tmp_path / "run")
    np.testing.assert_allclose(found, together["ConvNet"], atol=2e-6)


def test_a_run_goes_on_and_belongs_to_its_data(together, tmp_path):
    half = dataclasses.replace(CFG, steps=3)
    fit(task(), half, tmp_path, reporter=Silent())
    found = outputs(task(), tmp_path, change_settings=True)
    np.testing.assert_array_equal(found, together["ConvNet"])
    other = dataclasses.replace(UNITS, target=1 - A[:, None])
    with pytest.raises(UserError, match=r"task_config\.units"):
        fit(task(units=other), CFG, tmp_path, reporter=Silent())


def test_a_mesh_changes_nothing_but_rounding(together, tmp_path):
    found = outputs(task(), tmp_path / "run", mesh=make_mesh(data=2))
    np.testing.assert_allclose(found, together["ConvNet"], atol=2e-5)


def test_held_out_units_teach_nothing(together, tmp_path):
    target = np.where(FOLD[:, None] == 0, 1 - UNITS.target, UNITS.target)  # of the first fold
    units = dataclasses.replace(UNITS, target=target)
    found = outputs(task(units=units), tmp_path / "run")
    np.testing.assert_array_equal(found[0], together["ConvNet"][0])
    assert np.abs(found[1] - together["ConvNet"][1]).max() > 1e-3


def test_batches_hold_units_of_their_fold_in_epochs():
    order = task().batches(0, 0)
    first = np.concatenate([next(order)["unit"] for _ in range(5)])  # two epochs of 20
    for fold in (0, 1):
        for epoch in (first[:20, fold], first[20:, fold]):
            assert sorted(epoch) == list(np.flatnonzero(FOLD != fold))
    images = task(draw="images").batches(0, 0)
    drawn = np.concatenate([next(images)["unit"] for _ in range(5)])
    assert sorted(ROW[drawn[:10, 0]]) == sorted(set(ROW[FOLD != 0]))  # ten images an epoch


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="Expected 2 numbers of fits, found 1"):
        task(numbers=(0,))
    with pytest.raises(UserError, match=r"Expected 3 outputs of the network, found 1"):
        task(kind="joint")
    with pytest.raises(UserError, match="found none in one"):
        task(units=dataclasses.replace(UNITS, masks=MASKS * 0))


def test_augmentation_turns_images_over_and_keeps_half_of_them_otherwise():
    images = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1).repeat(400, axis=0)
    found = np.asarray(augmented(jax.random.key(0), images))
    turned = [images[0], images[0][::-1], images[0][:, ::-1], images[0][::-1, ::-1]]
    shares = [np.mean([np.array_equal(one, x) for one in found]) for x in turned]
    np.testing.assert_allclose(shares, 0.75**3 / 4, atol=0.04)
