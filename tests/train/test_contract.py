"""A wrong task is refused before anything is computed, in one sentence."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train import GradientTask, Loss, Mean, TrainConfig, fit
from jaxcore.train.contract import numbers
from jaxcore.train.logging import Silent
from tests.tiny_task import TinyTask

CFG = TrainConfig(steps=2, tensorboard=False)


class Whole(TinyTask):
    """What the tasks below spoil."""


def refused(task, run_dir):
    """The sentence; nothing is left behind."""
    with pytest.raises(UserError) as error:
        fit(task, CFG, run_dir, reporter=Silent())
    assert not run_dir.exists()
    return str(error.value)


def test_all_methods_that_take_other_arguments_are_named_at_once(tmp_path):
    class Short(Whole):  # the mistakes under test, which a type checker sees too
        def loss(self, params, batch): ...  # pyright: ignore[reportIncompatibleMethodOverride]

        def evaluate(self, params): ...  # pyright: ignore[reportIncompatibleMethodOverride]

        def batches(self): ...  # pyright: ignore[reportIncompatibleMethodOverride]

    found = refused(Short(), tmp_path / "run")
    assert "loss(params, batch), which is called with (variables, batch, key, frozen)" in found
    assert "evaluate(params), which is called with (state, frozen)" in found
    assert "batches(), which is called with (seed, start_step)" in found


def test_a_class_and_what_derives_from_nothing_are_told_apart(tmp_path):
    class Bare:
        def loss(self): ...

    assert "found the class Whole: make one" in refused(Whole, tmp_path / "run")
    found = refused(Bare(), tmp_path / "run")
    assert found.startswith("Expected a task, found Bare, which does not derive from")
    assert found.endswith("without batches, evaluate, init_params.")


def test_settings_that_nothing_describes_are_refused(tmp_path):
    class Plain(GradientTask):
        def __init__(self):
            self.width = 3

        nothing: Any = lambda self, *_: None
        init_params = loss = batches = evaluate = nothing

    assert "Plain with width, which no to_dict() describes" in refused(Plain(), tmp_path / "run")


def test_batches_that_cannot_be_resumed_are_refused(tmp_path):
    """They were, once: at the first checkpoint, when everything was lost."""

    class Generator(Whole):
        def batches(self, seed, start_step):
            yield {"x": np.zeros((8, 6), np.float32), "y": np.zeros((8, 2), np.float32)}

    class Forgetful(Whole):
        def batches(self, seed, start_step):
            inner = super().batches(seed, start_step)
            inner = type("Odd", (), {"__next__": inner.__next__, "get_state": lambda _: {1, 2}})()
            inner.set_state = print
            return inner

    found = refused(Generator(), tmp_path / "run")
    assert "found a generator without get_state and set_state" in found
    assert "bytes or JSON, found {1, 2}" in refused(Forgetful(), tmp_path / "run")


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ([np.zeros(2)], "found list"),
        ({"a": {"b": [np.zeros(2)]}}, "found list at a/b"),
        ({"slope": 3.0}, "found float at slope"),
        (None, "found NoneType"),
    ],
)
def test_parameters_are_a_nested_dict_of_arrays(tmp_path, params, found):
    class Odd(Whole):
        def init_params(self, key):
            return params

    assert f"a nested dict of arrays, {found}" in refused(Odd(), tmp_path / "run")


def test_a_loss_returns_sums(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Rows(Whole):
        metrics: bool = False

        def loss(self, variables, batch, key, frozen):
            one = jnp.sum(variables["params"]["second"]["bias"])
            if self.metrics:
                return Loss(*Mean.of(one), metrics={"mae": one})
            return Loss(batch["x"] * one, jnp.float32(1))

    def sentence(task, run):
        with pytest.raises(UserError) as error:
            fit(task, CFG, tmp_path / run, reporter=Silent())
        return str(error.value)

    assert "as total and weight of 'loss', found the shapes (8, 6) and ()" in sentence(Rows(), "a")
    assert "the metric 'mae' of the loss" in sentence(Rows(metrics=True), "b")


def test_an_evaluation_gives_numbers(tmp_path):
    class Odd(Whole):
        def evaluate(self, state, frozen) -> Any:
            return {"psnr": np.zeros(3)}

    with pytest.raises(UserError) as error:
        fit(Odd(), CFG, tmp_path / "run", reporter=Silent())
    assert str(error.value) == (
        "Expected of evaluate() a dict of numbers, found ndarray of shape (3,) for 'psnr'."
    )
    assert list((tmp_path / "run" / "checkpoints").glob("*2*"))  # what was trained is not lost
    for metrics, found in ((3.0, "found float"), ({"psnr": "good"}, "found str for 'psnr'")):
        with pytest.raises(UserError, match=found):
            numbers(metrics)
    assert numbers({"psnr": jnp.float32(3)}) == {"psnr": 3.0}
