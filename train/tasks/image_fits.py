"""Networks from images, one for each fit of a cross-fitting; all of them are trained at once."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcore import registry
from jaxcore.data.image_units import Draw, FitBatches, ImageUnits
from jaxcore.errors import UserError
from jaxcore.models.regression import RegressionConfig, RegressionNetwork
from jaxcore.train.config import TrainConfig
from jaxcore.train.state import TrainState
from jaxcore.train.step import Frozen, Loss, Mean, Step
from jaxcore.train.task import GradientTask
from jaxcore.typing import Batch, Key, Params

HELD_OUT = "held_out_loss"
"""Name of the loss on units that were not trained on, in evaluations."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageFits(GradientTask):
    """Train one network for each fit of a cross-fitting, all of them in one step.

    Parameters, running statistics and the optimiser's state have the fits as their first axis.
    What a fit learns depends on its number, the key and its units, not on the other fits; an
    update that is not finite in one of them is left out in all.

    The data are no settings: ``config.json`` holds their fingerprint.
    """

    model: str  # registered
    network: RegressionConfig
    units: ImageUnits
    numbers: tuple[int, ...] = (0,)  # of the fits, one for each row of the masks
    batch_size: int = 32
    draw: Draw = "units"
    augment: bool = True  # flips, brightness, contrast and noise
    on_device: bool = True  # all images; else those of each batch are read and sent
    # The fits of a step one after another; None: on processors, where they are faster for it
    in_turn: bool | None = None

    def __post_init__(self) -> None:
        k = len(self.units.masks)
        if len(self.numbers) != k:
            raise UserError(f"Expected {k} numbers of fits, found {len(self.numbers)}.")
        if self.network.outputs != self.width:
            raise UserError(
                f"Expected {self.width} outputs of the network, found {self.network.outputs}."
            )
        if not np.all(np.any(self.units.masks > 0, axis=1)):
            raise UserError("Expected units to train on in every fold, found none in one.")

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Numbers that the network gives for a unit."""

    @abc.abstractmethod
    def errors(
        self,
        out: Float[Array, "b o"],
        target: Float[Array, "b t"],
        learned: Params,
        key: Key | None,
    ) -> Float[Array, " b"]:
        """Loss of every unit in one fit.

        Args:
          out: of the network.
          target: of these units.
          learned: parameters of the fit.
          key: in training; None judges units that were not seen.
        """

    def of_network(self, learned: Params) -> Params:
        """Those of the learned parameters that are the network's."""
        return learned

    @property
    def entry(self) -> RegressionNetwork[Any]:
        """What the registry knows of the network."""
        entry = registry.network(self.model)
        assert isinstance(entry, RegressionNetwork)
        return entry

    @property
    def items_per_batch(self) -> int:  # type: ignore[override]  # a field there
        """Images of all fits."""
        return self.batch_size * len(self.numbers)

    def to_dict(self) -> dict[str, Any]:
        """Settings, and whom the data are."""
        skipped = ("units", "network", "on_device", "in_turn", "inner_steps", "rows_per_item")
        plain = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in skipped and f.name != "items_per_batch"
        }
        return {**plain, "network": self.network.to_dict(), "units": self.units.fingerprint()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ImageFits":
        """Refuse: settings do not hold the units.

        Raises:
          UserError: always.
        """
        raise UserError(
            "Expected the units that networks were trained on, found settings "
            "alone: fit again with the same data and this run directory."
        )

    # --- the state, with fits as the first axis ---------------------------------------------------

    def _drawn(self, key: Key) -> tuple[Params, dict[str, Any]]:
        entry, cfg = self.entry, self.network
        keys = [jax.random.fold_in(key, number) for number in self.numbers]
        every = [entry.split(entry.init(one, cfg)) for one in keys]
        learned, carried = zip(*every, strict=True)
        stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        return stack(*learned), stack(*carried)

    def init_params(self, key: Key) -> Params:
        """Fresh parameters of each fit."""
        return self._drawn(key)[0]

    def init_collections(self, key: Key) -> dict[str, Any]:
        """Running statistics, if the network has some."""
        return self._drawn(key)[1]

    def init_state(self, key: Key, tx: optax.GradientTransformation) -> TrainState:
        """An optimiser's state for each fit."""
        return super().init_state(key, _apart(tx))

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """One update of each fit; gradients are clipped, for example, within each."""
        return super().step(_apart(tx), cfg, mesh)

    def frozen(self) -> Frozen:
        """The table of the units, and the images if they are kept on the device."""
        units = self.units
        table = {"target": units.target, "image": units.image, "masks": units.masks}
        if units.covariates is not None:
            table["covariates"] = units.covariates
        if self.on_device:
            table["images"] = np.asarray(units.images[:])
        return table

    # --- the loss ---------------------------------------------------------------------------------

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Sum over the fits of their mean losses: each gets the gradient of its own."""
        carried = {k: v for k, v in variables.items() if k != "params"}
        fits = jnp.asarray(self.numbers, jnp.int32), jnp.arange(len(self.numbers))
        rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch)
        of = functools.partial(self._one, frozen=frozen, key=key)
        values, means, collections = _of_each(
            of, variables["params"], (carried, fits, rows), self.in_turn
        )
        one = Mean(jnp.sum(means.total), jnp.sum(means.weight))
        return Loss(
            jnp.sum(values),
            jnp.ones(()),
            metrics={"mean_loss": one},
            collections=collections,
        )

    def _one(
        self, learned: Params, carried: Any, fit: Any, batch: Batch, *, key: Key, frozen: Any
    ) -> tuple[Mean, dict[str, Any]]:
        number, row = fit
        unit = batch["unit"]
        covariates = frozen["covariates"][unit] if "covariates" in frozen else None
        seen = batch["pixels"] if "pixels" in batch else frozen["images"][frozen["image"][unit]]
        own = jax.random.fold_in(key, number)
        for_pixels, for_network = jax.random.split(own)
        pixels = standardised(seen, self.units.mean, self.units.sd)
        if self.augment:
            pixels = augmented(for_pixels, pixels)
        params = self.entry.join(self.of_network(learned), carried)
        out = self.entry.learn(params, pixels, covariates, self.network, for_network)
        noise = jax.random.fold_in(own, 2)
        errors = self.errors(out.outputs, frozen["target"][unit], learned, noise)
        return Mean.of(errors, frozen["masks"][row][unit]), out.collections

    # --- data -------------------------------------------------------------------------------------

    def batches(self, seed: int, start_step: int) -> FitBatches:
        """Units of each fit, in an order of its own; rows of this process only."""
        return FitBatches(
            self.units,
            self.numbers,
            batch_size=self.batch_size,
            draw=self.draw,
            reading=not self.on_device,
            seed=seed,
            start=start_step,
            process=(jax.process_index(), jax.process_count()),
        )

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Loss on the units that each fit has not seen, or is judged on; nothing without any."""
        left = self.units.left
        if not left.any():
            return {}
        out = self.outputs(state.eval_params, state.collections)
        target = jnp.asarray(self.units.target)
        with jax.numpy_dtype_promotion("standard"):
            judged = functools.partial(self.errors, target=target, key=None)
            every = jax.vmap(lambda out, learned: judged(out, learned=learned))
            errors = np.asarray(every(jnp.asarray(out), state.eval_params))
        return {HELD_OUT: float(errors[left].mean())}

    def metric_names(self) -> tuple[str, ...]:
        """The loss on units not seen."""
        return (HELD_OUT,) if self.units.left.any() else ()

    def outputs(
        self, params: Params, collections: dict[str, Any], *, chunk: int = 512
    ) -> Float[np.ndarray, "k n o"]:
        """What the network of each fit says of every unit.

        Args:
          params: of a train state.
          collections: of a train state.
          chunk: images that are looked at together.
        """
        units = self.units
        run = _outputs(self.entry, self.network)
        trees = (
            self.of_network(params),
            {k: collections[k] for k in self.entry.collections if k in collections},
        )
        pairs = units.covariates is not None
        rows = units.image if pairs else np.arange(units.images.shape[0], dtype=np.int32)
        parts = []
        for first in range(0, len(rows), chunk):
            at = np.minimum(np.arange(first, first + chunk), len(rows) - 1)
            pixels = np.asarray(units.images[rows[at]])
            x = units.covariates[at] if units.covariates is not None else None
            parts.append(np.asarray(run(*trees, pixels, x, units.mean, units.sd)))
        found = np.concatenate(parts, axis=1)[:, : len(rows)]
        return found if pairs else found[:, units.image]


def _of_each(
    of: Callable[..., tuple[Mean, Any]], learned: Params, rest: Any, in_turn: bool | None
) -> Any:
    """Losses of all fits, whose gradients are formed along with them.

    One fit after the other, what each of them holds stays in the caches of a processor;
    accelerators want them all at once.

    Args:
      of: from the parameters of a fit and what else there is of it to its mean loss, and more.
      learned: parameters, with the fits as the first axis.
      rest: what else there is, the same.
      in_turn: one after the other; None: on processors.
    """

    def one(item: Any) -> Any:
        tree, others = item

        def loss(tree: Params) -> Any:
            mean, more = of(tree, *others)
            value = mean.value()
            return value, (value, mean, more)

        slopes, found = jax.grad(loss, has_aux=True)(tree)
        return found, slopes

    def forward(learned: Params) -> Any:
        items, at_once = (learned, rest), jax.vmap(one)
        if in_turn is None:
            after = functools.partial(jax.lax.map, one)
            return jax.lax.platform_dependent(items, cpu=after, default=at_once)
        return jax.lax.map(one, items) if in_turn else at_once(items)

    def backward(slopes: Params, given: Any) -> tuple[Params]:
        def times(slope: Array) -> Array:
            return slope * given[0].reshape(-1, *(1,) * (slope.ndim - 1)).astype(slope.dtype)

        return (jax.tree.map(times, slopes),)

    @jax.custom_vjp
    def run(learned: Params) -> Any:
        return forward(learned)[0]

    run.defvjp(forward, backward)
    return run(learned)


def _apart(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser for each of the fits, which are the first axis of everything."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return jax.vmap(tx.update)(updates, state, params)

    return optax.GradientTransformation(jax.vmap(tx.init), update)


@functools.lru_cache(maxsize=8)
def _outputs(entry: RegressionNetwork[Any], cfg: RegressionConfig) -> Callable[..., Array]:
    def one(learned: Any, carried: Any, pixels: Array, covariates: Array | None) -> Array:
        return entry.apply(entry.join(learned, carried), pixels, covariates, cfg)

    @jax.jit
    def run(
        learned: Any, carried: Any, seen: Array, x: Array | None, mean: Array, sd: Array
    ) -> Array:
        pixels = standardised(seen, mean, sd)
        return jax.vmap(one, in_axes=(0, 0, None, None))(learned, carried, pixels, x)

    return run


def standardised(images: Array, mean: ArrayLike, sd: ArrayLike) -> Float[Array, "*b h w c"]:
    """Images in standard deviations from the mean of each band, float32.

    >>> standardised(jnp.full((1, 1, 2), 3, jnp.uint8), jnp.ones(2), jnp.ones(2)).tolist()
    [[[2.0, 2.0]]]
    """
    centre, scale = (jnp.asarray(v, jnp.float32) for v in (mean, sd))
    ones = (1,) * (images.ndim - 1)
    return (images.astype(jnp.float32) - centre.reshape(*ones, -1)) / scale.reshape(*ones, -1)


def augmented(key: Key, images: Float[Array, "b *t h w c"]) -> Float[Array, "b *t h w c"]:
    """Images as they could have been seen as well.

    Each is turned over in rows, in columns, in both or in none; then, each with probability 1/4,
    a number in (-0.1, 0.1) is added to it, it is multiplied by one in (0.8, 1.2), and gets noise of
    standard deviation 0.05. All images of a sequence alike, but for the noise.

    References:
      Jerzak, Johansson and Daoud, package causalimages.

    >>> augmented(jax.random.key(0), jnp.zeros((2, 3, 3, 1))).shape
    (2, 3, 3, 1)
    """

    def one(key: Key, x: Array) -> Array:
        which, coins, shift, factor, noise = jax.random.split(key, 5)
        rows, columns = jax.random.bernoulli(which, shape=(2,))
        x = jnp.where(rows, jnp.flip(x, axis=-3), x)
        x = jnp.where(columns, jnp.flip(x, axis=-2), x)
        add, scale, grain = jax.random.bernoulli(coins, 0.25, (3,))
        x = x + jnp.where(add, jax.random.uniform(shift, (), x.dtype, -0.1, 0.1), 0)
        x = x * jnp.where(scale, jax.random.uniform(factor, (), x.dtype, 0.8, 1.2), 1)
        return x + jnp.where(grain, 0.05 * jax.random.normal(noise, x.shape, x.dtype), 0)

    return jax.vmap(one)(jax.random.split(key, images.shape[0]), images)
