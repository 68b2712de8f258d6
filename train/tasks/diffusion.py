"""Diffusion models of images (RDDM): restoration, translation and generation."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.bounds import Count
from jaxcore.data.images.pipeline import Augment, Images
from jaxcore.data.images.sources import Sample
from jaxcore.errors import UserError
from jaxcore.figures import grid
from jaxcore.models import rddm
from jaxcore.models.rddm.process.forward import to_signed, to_unit
from jaxcore.models.rddm.process.losses import rddm_loss
from jaxcore.models.rddm.sampling.released import sampling_table
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.parallel import local_copies
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.images import ImageTask
from jaxcore.typing import Batch, Key, Params

_PICTURE = 3  # channels of a picture of the data


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionTask(ImageTask):
    """Train the networks of RDDM on crops (or whole squares) taken to random times.

    The network's configuration says what is trained: ``kind`` for restoration, translation or
    generation, ``objective`` and ``schedule``. With the objective "auto_res_noise"
    a run is the search for an objective (AOSA) and ends when that is found.

    Restoration is evaluated on whole images with a few-step sampler; generation, which has nothing
    to compare with image by image, by the loss on held-out images.

    >>> from jaxcore.models.rddm import RDDMConfig
    >>> task = DiffusionTask(network=RDDMConfig.tiny())
    >>> DiffusionTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "diffusion"
    changeable: ClassVar[tuple[str, ...]] = (*ImageTask.changeable, "sample_steps", "preview")
    model: str = dataclasses.field(default="rddm", metadata={"option": False})
    # left-right "flip", always ("mirror"), "all" eight turns, or quarter turns ("rotate")
    augment: Augment = "flip"
    sample_steps: Count = 5  # calls of the networks in evaluation and sample pictures
    preview: Count = 9  # generated images in a sample picture

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_steps > self.network.schedule.timesteps:
            raise UserError(
                f"sample_steps must be from 1 to {self.network.schedule.timesteps}, found "
                f"{self.sample_steps}."
            )
        self._check_conditions()

    def _check_conditions(self) -> None:
        count, folder = self.network.condition_channels, self.data.condition_folder
        if count > _PICTURE:
            raise UserError(
                f"Expected at most {_PICTURE} condition_channels, those of a picture, found "
                f"{count}."
            )
        if folder and not count:
            raise UserError(
                f"Expected a network with condition_channels for the pictures in {folder}, found "
                "one without."
            )

    @property
    def images(self) -> Images:
        """Images of a row."""
        if self.network.kind == "generation":
            return ("clean",) + ("condition",) * bool(self.network.condition_channels)
        return ("degraded", "clean") + ("condition",) * bool(self.network.condition_channels)

    def loss(self, variables: Mapping[str, Any], batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Mean distance of the outputs to their targets at random times, summed over outputs."""
        params, cfg, images = variables["params"], self.network, self._signed(batch)
        networks, schedule = rddm.apply_fn(cfg), cfg.schedule.make()
        if cfg.searching:
            selector = rddm.selector(cfg)
            value, parts = selector.search_loss(params, networks, images, key, schedule=schedule)
        else:
            value, parts = rddm_loss(
                params, networks, images, key, schedule=schedule, objective=cfg.make_objective()
            )
        rows = jnp.float32(len(images["clean"]))
        metrics = {name: Mean(part * rows, rows) for name, part in parts.items()}
        return Loss(value * rows, rows, metrics)

    def _signed(self, batch: Batch) -> dict[str, jax.Array]:
        """Images in [-1, 1]; conditions stay in [0, 1], cut to the channels that are used."""
        out = {name: to_signed(batch[name]) for name in ("degraded", "clean") if name in batch}
        if "condition" in batch:
            out["condition"] = batch["condition"][..., : self.network.condition_channels]
        return out

    def finished(self, state: TrainState) -> bool:
        """Whether a search for an objective has found one."""
        cfg = self.network
        return cfg.searching and self.entry.chosen(state.params, cfg) is not None

    def restore(self, params: Params, sample: Sample) -> np.ndarray:
        """Restore one image of the evaluation."""
        shown = sample.get("condition")
        return self.entry.restore(
            params,
            sample["degraded"],
            self.network,
            steps=self.sample_steps,
            seed=self.eval_seed,
            condition=None if shown is None else shown[..., : self.network.condition_channels],
            tile=self.eval_tile,
        )

    @property
    def _paired(self) -> bool:
        return self.network.kind != "generation" and self.data.comparable

    def evaluate(self, state: TrainState, frozen: Frozen = None) -> dict[str, float]:
        """PSNR and SSIM where there are pairs, else the loss on the evaluation images."""
        params = state.eval_params
        metrics = super().evaluate(state) if self._paired else self._held_out_loss(params)
        return metrics | ({"weight": float(params["weight"])} if self.network.searching else {})

    def metric_names(self) -> tuple[str, ...]:
        """Those of `evaluate`."""
        names = super().metric_names() if self._paired else ("held_out_loss",)
        return (*names, *(("weight",) if self.network.searching else ()))

    def _held_out_loss(self, params: Params) -> dict[str, float]:
        def value(params: Params, number: int, found: tuple[str, Sample]) -> float:
            batch = {name: found[1][name][None] for name in self.images}
            key = jax.random.fold_in(jax.random.key(self.eval_seed), number)
            return float(_loss_of(self, params, batch, key))

        values = self.shared(value, params)
        return {"held_out_loss": float(np.mean(values))} if values else {}

    def pictures(self, state: TrainState, frozen: Frozen = None) -> dict[str, np.ndarray]:
        """Restored evaluation images beside the others, or generated ones."""
        if self.network.kind != "generation":
            return super().pictures(state)
        params = local_copies(state.eval_params)[0]
        return {} if jax.process_index() else {"generated": self._generated(params)}

    def _generated(self, params: Params) -> np.ndarray:
        cfg, side = self.network, self.stages[-1].patch
        if cfg.condition_channels:
            raise UserError("Expected no further conditions in generated samples, found some.")
        images = sample(
            rddm.apply_fn(cfg),
            rddm.standardise(params, cfg),
            table=sampling_table(cfg.schedule.make(), self.sample_steps),
            objective=cfg.make_objective(),
            key=jax.random.key(self.eval_seed),
            shape=(self.preview, side, side, cfg.unet.channels),
        )
        cells = [(image, "") for image in np.asarray(to_unit(images))]
        wide = math.ceil(math.sqrt(len(cells)))
        return grid([cells[i : i + wide] for i in range(0, len(cells), wide)])


@functools.partial(jax.jit, static_argnames="task")
def _loss_of(task: DiffusionTask, params: Params, batch: Batch, key: Key) -> jax.Array:
    loss = task.loss({"params": params}, batch, key, None)
    return Mean(loss.total, loss.weight).value()
