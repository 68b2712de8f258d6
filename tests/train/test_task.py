"""What a task may be, and what becomes of its parts in a run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.parallel import make_mesh
from jaxcore.train import (
    EMAConfig,
    GradientTask,
    Loss,
    Mean,
    OptimConfig,
    Task,
    TrainConfig,
    create_state,
    fit,
    load_params,
)
from jaxcore.train.logging import Silent

_CFG = TrainConfig(
    steps=6, optim=OptimConfig(learning_rate=1e-2), save_every=2, log_every=2, tensorboard=False
)


def test_what_is_missing_is_named_before_anything_is_computed():
    class Half(GradientTask):
        def init_params(self, key: Any) -> Any:
            return {}

        def batches(self, seed: int, start_step: int) -> Any: ...

    with pytest.raises(TypeError, match=r"abstract methods '?evaluate'?, '?loss"):
        Half()  # type: ignore[abstract]  # the mistake under test
    with pytest.raises(UserError, match="Expected a task, found object, which does not"):
        no_task: Any = object()
        fit(no_task, _CFG, "nowhere", reporter=Silent())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("trainables", "trainable"),
        ("finish", "finished"),
        ("picture", "pictures"),
        ("experence", "experience"),
    ],
)
def test_a_misspelt_method_is_noticed_when_the_class_is_made(wrong, right):
    with pytest.raises(TypeError, match=rf"Mine\.{wrong} is nothing .*near {right}"):
        type("Mine", (TinyTask,), {wrong: lambda self, state: None})


def test_a_misspelt_field_is_noticed_and_other_names_are_free():
    with pytest.raises(TypeError, match=r"inner_step is nothing .*near inner_steps"):
        type("Mine", (TinyTask,), {"__annotations__": {"inner_step": int}, "inner_step": 2})
    fields = {"__annotations__": {"steps": int, "batch_size": int}, "restore": lambda self: None}
    assert type("Mine", (TinyTask,), fields)().name == "tiny"


class _Count(Task):
    """Counts in collections, without any parameter."""

    def init_state(self, key: Any, tx: Any) -> Any:
        return create_state({}, optax.identity(), key=key, collections={"sum": jnp.zeros(3)})

    def step(self, tx: Any, cfg: Any, mesh: Any) -> Any:
        def step(state: Any, batch: Any, frozen: Any = None, /) -> Any:
            new = {"sum": state.collections["sum"] + jnp.sum(batch["x"], axis=0)[:3]}
            return dataclasses.replace(state, step=state.step + 1, collections=new), {}

        return step

    def batches(self, seed: int, start_step: int) -> Any:
        return TinyTask().batches(seed, start_step)

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        return {"sum": float(state.collections["sum"].sum())}


def test_a_task_without_parameters_is_saved_and_goes_on(tmp_path):
    whole = fit(_Count(), _CFG, tmp_path / "whole", reporter=Silent())
    fit(_Count(), dataclasses.replace(_CFG, steps=4), tmp_path / "run", reporter=Silent())
    assert not (tmp_path / "run" / "checkpoints" / "4" / "params").exists()
    resumed = fit(_Count(), _CFG, tmp_path / "run", resume=True, reporter=Silent())
    assert resumed.metrics == whole.metrics and whole.metrics["sum"] != 0
    with pytest.raises(UserError, match="found a run without any"):
        load_params(tmp_path / "run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnPolicy(TinyTask):
    """Fits the answer of its own, moved network, shifted by what is frozen."""

    inner_steps: int = 3
    rows_per_item: int = 4

    def frozen(self) -> Any:
        return {"shift": jnp.full((1, 2), 0.5)}

    def experience(self, state: Any, batch: Any, key: Any, frozen: Any) -> Any:
        x = np.repeat(np.asarray(batch["x"])[:2], 4, axis=0)  # groups of four tries
        tries = np.asarray(jax.random.normal(key, x.shape))
        answer = np.asarray(state.params["second"]["bias"])[None] + np.asarray(frozen["shift"])
        return {"x": x + 0.1 * tries, "y": np.repeat(answer, len(x), axis=0)}


def test_on_policy_steps_learn_from_their_own_experience_and_resume_exactly(tmp_path):
    cfg = dataclasses.replace(_CFG, accum_steps=2, ema=EMAConfig(decay=0.5))
    whole = fit(_OnPolicy(), cfg, tmp_path / "whole", reporter=Silent()).state
    fit(_OnPolicy(), dataclasses.replace(cfg, steps=4), tmp_path / "run", reporter=Silent())
    again = fit(_OnPolicy(), cfg, tmp_path / "run", resume=True, reporter=Silent()).state
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, again.ema_params, whole.ema_params)
    assert int(whole.step) == 6
    bias = np.asarray(whole.params["second"]["bias"])
    assert (bias > 0.1).all()  # 18 updates of 0.01, towards a target that moves along


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WithTeacher(TinyTask):
    """Learns what a network says that does not learn."""

    sharding_rules = (("teacher/first/kernel$", PartitionSpec(None, "tensor")),)

    def frozen(self) -> Any:
        teacher = self.init_params(jax.random.key(9))
        return {"teacher": teacher, "table": np.ones((512, 64), np.float32)}

    def loss(self, variables: Any, batch: Any, key: Any, frozen: Any) -> Loss:
        target = self._apply(frozen["teacher"], batch["x"])
        error = self._apply(variables["params"], batch["x"]) - target
        return Loss(*Mean.of(error**2))

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        held.append(frozen)
        return {}


held: list[Any] = []


def _halves(leaf: Any) -> bool:
    return [s.data.size * 2 for s in leaf.addressable_shards] == [leaf.size] * 2


@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_each_device_holds_its_part_of_what_is_frozen(axis, tmp_path):
    cfg = dataclasses.replace(_CFG, steps=1, max_in_flight=1)
    fit(_WithTeacher(), cfg, tmp_path, mesh=make_mesh(**{axis: 2}), reporter=Silent())
    frozen = held.pop()
    assert _halves(frozen["teacher"]["first"]["kernel"]) == (axis == "tensor")  # by its rule
    assert _halves(frozen["table"]) == (axis == "fsdp")  # because it is big
