"""A task for tests of the training loop: two layers, random augmentation, a grain pipeline."""

import dataclasses
from typing import Any, ClassVar

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.serial import Serial
from jaxcore.train import GradientTask, Loss, Mean


class _Augment(grain.RandomMapTransform):
    def random_map(self, element: Any, rng: np.random.Generator) -> Any:
        sign = np.float32(rng.choice([-1.0, 1.0]))
        jitter = rng.normal(size=element["x"].shape).astype(np.float32)
        return {"x": sign * element["x"] + 0.1 * jitter, "y": sign * element["y"]}


class _Source:
    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(0)
        self._x = rng.normal(size=(40, width)).astype(np.float32)
        self._y = np.tanh(self._x @ rng.normal(size=(width, 2)).astype(np.float32))

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        return {"x": self._x[index], "y": self._y[index]}


_STEPS: dict[Any, Any] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyTask(Serial, GradientTask):
    """Two layers; noise from the key of the step, so that keys matter too."""

    name: ClassVar[str] = "tiny"
    width: int = 6
    hidden: int = 8
    batch: int = 8
    freeze: bool = False
    poison: tuple[int, ...] = ()  # batches that hold a NaN

    def init_params(self, key: Any) -> Any:
        a, b = jax.random.split(key)
        return {
            "first": {"kernel": 0.3 * jax.random.uniform(a, (self.width, self.hidden))},
            "second": {
                "kernel": 0.3 * jax.random.uniform(b, (self.hidden, 2)),
                "bias": jnp.zeros(2),
            },
        }

    def _apply(self, params: Any, x: Any) -> Any:
        h = jnp.tanh(x @ params["first"]["kernel"])
        return h @ params["second"]["kernel"] + params["second"]["bias"][None]

    def loss(self, variables: Any, batch: Any, key: Any, frozen: Any) -> Loss:
        x = batch["x"] + 0.1 * jax.random.uniform(key, batch["x"].shape)
        error = self._apply(variables["params"], x) - batch["y"]
        return Loss(*Mean.of(error**2), metrics={"mae": Mean.of(jnp.abs(error))})

    def batches(self, seed: int, start_step: int) -> Any:
        data = grain.MapDataset.source(_Source(self.width)).seed(seed).shuffle().repeat()
        data = data.random_map(_Augment()).batch(self.batch)
        if self.poison:
            data = data.map_with_index(self._poison)
        # By default 16 threads read 500 batches ahead, which took most of a short run's time.
        iterator = iter(
            data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        )
        if start_step:
            iterator.set_state({"next_index": start_step})
        return iterator

    def _poison(self, index: int, batch: Any) -> Any:
        return {**batch, "x": batch["x"] * np.float32(np.nan)} if index in self.poison else batch

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        data = _Source(self.width)
        error = self._apply(state.eval_params, data[:]["x"]) - data[:]["y"]
        return {"mse": float(jnp.mean(error**2))}

    def metric_names(self) -> tuple[str, ...]:
        return ("mse",)

    def pictures(self, state: Any, frozen: Any) -> dict[str, np.ndarray]:
        grey = np.asarray(state.eval_params["first"]["kernel"] > 0.15)
        return {"kernel": np.stack([255 * grey] * 3, -1).astype(np.uint8)}

    def step(self, tx: Any, cfg: Any, mesh: Any) -> Any:
        """One function for all runs that need the same, which JAX then traces once."""
        updates = None if cfg.optim.schedule.name == "constant" else cfg.steps
        told = cfg.optim, updates, cfg.accum_steps, cfg.ema, cfg.skip_nonfinite, cfg.remat
        key = type(self), dataclasses.replace(self, poison=()), told, mesh
        if key not in _STEPS:
            _STEPS[key] = super().step(tx, cfg, mesh)
        return _STEPS[key]

    def trainable(self, params: Any) -> Any:
        if not self.freeze:
            return None
        return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key != "first", params)
