"""Deconvolution of galaxies: the network between Tikhonov's filter and debiasing."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import registry
from jaxcore.bounds import Count, Index
from jaxcore.data.astro.galaxies import draw_galaxies, render
from jaxcore.data.astro.telescopes import Observed, observe
from jaxcore.data.astro.training import (
    StampData,
    entries,
    evaluation_rows,
    known,
    split,
    training_rows,
)
from jaxcore.errors import UserError
from jaxcore.figures import grid
from jaxcore.metrics import galaxies as metrics
from jaxcore.metrics import ssim
from jaxcore.models.deconvolution import debias, restore_tikhonov
from jaxcore.models.deconvolution.tikhonov import LAM, Choice
from jaxcore.models.sunet import normalise
from jaxcore.ops.grids import factor_between, rebin
from jaxcore.ops.spectra import convolve, psf_to_tf
from jaxcore.ops.starlet import Starlet, mad_sigma
from jaxcore.parallel import local_copies
from jaxcore.train.state import TrainState
from jaxcore.train.task import BatchIterator, Frozen, Loss, Mean
from jaxcore.train.tasks.network import NetworkTask
from jaxcore.typing import Batch, Key, Params

STEPS = ("tikhonov", "network", "debias")
_APERTURE = 14 / 64  # radius over the side of a stamp
_SHOWN = 4  # rows of a picture


class Restored(NamedTuple):
    """Stamps of the evaluation, before and after every step."""

    seen: Observed
    images: dict[str, Float[Array, "n h w"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvolutionTask(NetworkTask):
    """Train a network to restore what Tikhonov's filter makes of an observation.

    Stamps are made in the step itself from the seeds of a batch: galaxies, what the telescope
    sees, and its Tikhonov deconvolution. Evaluation runs all three steps of the method.

    >>> from jaxcore.models.sunet import SUNetConfig
    >>> task = DeconvolutionTask(network=SUNetConfig.tiny())
    >>> DeconvolutionTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "deconvolution"
    changeable: ClassVar[tuple[str, ...]] = ("eval_images", "eval_seed", "debias_steps")
    model: str = dataclasses.field(default="sunet", metadata={"option": False})
    data: StampData = dataclasses.field(default_factory=StampData)
    # Regularisation of step 1: a number, or how to choose it ("sure", "gcv", "discrepancy").
    lam: float | Choice = LAM
    # Scale of the images for the network. "input": mean and peak of the Tikhonov image for it and
    # the target. "official": the mean of each, and the peak of the target, which is not known
    # where the network is used.
    norm: Literal["input", "official"] = "input"
    debias_steps: Count = 10  # iterations of step 3 in the evaluation
    eval_images: Index | None = None  # evaluate at most so many stamps
    eval_seed: int = 0  # of simulated galaxies and observations

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.entry.channels(self.network)
        if channels != 1:
            raise UserError(f"Expected a network of one channel for stamps, found {channels}.")

    @property
    def side(self) -> int:
        """Height and width of restored stamps."""
        return self.stages[0].patch

    def check(self) -> None:
        """Look for the data before anything is written.

        Raises:
          UserError: something is missing or damaged, or sides do not fit.
        """
        super().check()
        if len({stage.patch for stage in self.stages}) > 1:
            raise UserError("Expected stamps of one size in all stages, found several.")
        factor = self.data.telescope.factor
        if self.side % factor:
            raise UserError(
                f"Expected stamps whose side (--stages.0.patch) is a multiple of {factor}, found "
                f"{self.side}."
            )
        known(self.data, self.side)
        split(self.data, self.side)

    def frozen(self) -> Frozen:
        """Shapes and PSFs of the catalogue, if there is one."""
        found = known(self.data, self.side)
        return None if found is None else found._asdict()

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Name, unique items, repetitions and entries per epoch of the data."""
        return [(name, n, 1, n) for name, n in entries(self.data, self.side).items()]

    def batches(self, seed: int, start_step: int) -> BatchIterator:
        """Seeds, stamps or pairs; rows of this process only."""
        return training_rows(
            self.data,
            self.stages,
            seed=seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def stamps(self, batch: Batch, frozen: Frozen = None) -> Observed:
        """What the telescope saw of the rows of a batch, and what was there. Pure.

        Args:
          batch: of `batches`.
          frozen: of `frozen`.
        """
        if "observed" in batch:
            observed = batch["observed"]
            return Observed(batch["target"], observed, batch["psf"], mad_sigma(observed))
        keys = jax.random.wrap_key_data(jnp.asarray(batch["seed"]), impl="threefry2x32")
        for_galaxy, for_telescope = jax.vmap(jax.random.split, out_axes=1)(keys)
        truth, shapes, psfs = batch.get("truth"), None, None
        if frozen is not None:
            shapes, psfs = frozen["shapes"], frozen["psfs"]
        if truth is None:
            truth = render(draw_galaxies(for_galaxy, self.data.galaxies, shapes), self.side)
        return observe(for_telescope, jnp.asarray(truth), self.data.telescope, psfs)

    def pair(self, seen: Observed) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"]]:
        """What the network gets, and what it shall return."""
        t = restore_tikhonov(seen.observed, seen.psf, self.lam, sigma=seen.sigma)
        scaled = normalise(t)
        if self.norm == "input":
            return scaled.images, (seen.target - scaled.mean) / scaled.peak
        target = seen.target - jnp.mean(seen.target, axis=(-2, -1), keepdims=True)
        peak = jnp.maximum(jnp.max(target, axis=(-2, -1), keepdims=True), 1e-12)
        return (t - scaled.mean) / peak, target / peak

    def loss(self, variables: Mapping[str, Any], batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Mean absolute error of scaled images.

        Args:
          variables: parameters of the network.
          batch: rows of `batches`.
          key: nothing is drawn: what is random comes from the seeds of the rows.
          frozen: of `frozen`.
        """
        given, wanted = self.pair(self.stamps(batch, frozen))
        out = self.entry.apply(variables["params"], given[..., None], self.network)[..., 0]
        rows = jnp.mean(jnp.abs(out - wanted), axis=(1, 2))
        before = jnp.mean(jnp.abs(given - wanted), axis=(1, 2))
        return Loss(*Mean.of(rows), metrics={"loss_tikhonov": Mean.of(before)})

    def brief(self) -> Self:
        """Evaluate one batch."""
        size = min(self.stages[0].batch_size, self.evaluation_size())
        return dataclasses.replace(self, eval_images=size)

    def evaluation_size(self) -> int:
        """How many stamps an evaluation looks at."""
        found = split(self.data, self.side)
        count = self.data.held_out if found is None else len(found[1].target)
        return count if self.eval_images is None else min(count, self.eval_images)

    def restored(
        self, params: Params, frozen: Frozen = None, limit: int | None = None
    ) -> Iterator[Restored]:
        """The evaluation stamps through all three steps, batch by batch, in their order.

        Args:
          params: of the network.
          frozen: of `frozen`.
          limit: at most so many stamps; by default ``eval_images``.
        """
        limit = self.eval_images if limit is None else limit
        rows = evaluation_rows(self.data, self.side, self.eval_seed, limit)
        count, size = len(next(iter(rows.values()))), self.stages[0].batch_size
        for first in range(0, count, size):
            batch = {name: value[first : first + size] for name, value in rows.items()}
            there = len(next(iter(batch.values())))
            # The last batch is filled up, so that one program serves all.
            full = {n: np.concatenate([v, v[:1].repeat(size - there, 0)]) for n, v in batch.items()}
            out = _through_all_steps(self, params, full, frozen)
            yield jax.tree.map(lambda a, there=there: np.asarray(a)[:there], out)

    def evaluate(self, state: TrainState, frozen: Frozen = None) -> dict[str, float]:
        """Medians over the evaluation stamps, after every step; see `score`.

        Every process looks at all of them.
        """
        return self.measure(local_copies(state.eval_params)[0], frozen)

    def measure(self, params: Params, frozen: Frozen = None) -> dict[str, float]:
        """Those of `evaluate`, of parameters alone.

        Args:
          params: of the network, on one device.
          frozen: of `frozen`.
        """
        return summarise(score(one) for one in self.restored(params, frozen))

    def metric_names(self) -> tuple[str, ...]:
        """Those of `evaluate`."""
        return tuple(summarise([{step: _NO_SCORE for step in STEPS}]))

    def pictures(self, state: TrainState, frozen: Frozen = None) -> dict[str, np.ndarray]:
        """The first evaluation stamps: observed, after every step, and the target."""
        params = local_copies(state.eval_params)[0]
        found = list(self.restored(params, frozen, limit=_SHOWN))
        return {"deconvolved": picture(found[0])} if found else {}

    @classmethod
    def field_types(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """The network's configuration is of the class of its model."""
        return {"network": registry.network(data.get("model", "sunet")).config_class}


@functools.partial(jax.jit, static_argnames="task")
def _through_all_steps(
    task: DeconvolutionTask, params: Params, batch: Batch, frozen: Frozen
) -> Restored:
    seen = task.stamps(batch, frozen)
    t = restore_tikhonov(seen.observed, seen.psf, task.lam, sigma=seen.sigma)
    scaled = normalise(t)
    out = task.entry.apply(params, scaled.images[..., None], task.network)[..., 0]
    restored = scaled.back(out)
    dictionary = Starlet(scales_of(task.side))
    options = {"sigma": seen.sigma, "dictionary": dictionary, "n_iter": task.debias_steps}
    debiased = debias(restored, seen.observed, seen.psf, **options).image
    return Restored(seen, {"tikhonov": t, "network": restored, "debias": debiased})


def scales_of(side: int) -> int:
    """Scales of the starlet in step 3: four for 64 pixels, five for 128.

    >>> scales_of(64), scales_of(128)
    (4, 5)
    """
    return max(1, side.bit_length() - 3)


class Score(NamedTuple):
    """Quality of stamps after one step."""

    nmse: Any
    flux_error: Any  # relative, inside a circle
    peak_error: Any  # largest pixel over that of the target, minus one
    chi2: Any  # of the residual inside the circle, per pixel
    ssim: Any  # of images scaled by the target


_NO_SCORE = Score(*(np.ones(1) for _ in range(5)))


def score(restored: Restored) -> dict[str, Score]:
    """Scores of all stamps of a batch after every step.

    Args:
      restored: of `DeconvolutionTask.restored`.
    """
    arrays = jax.tree.map(jnp.asarray, restored)
    return {step: _score(arrays.seen, arrays.images[step]) for step in STEPS}


@jax.jit
def _score(seen: Observed, image: Array) -> Score:
    radius, target = _APERTURE * target_side(seen), seen.target
    factor = factor_between(seen.observed.shape, target.shape)
    residual = seen.observed - rebin(convolve(image, psf_to_tf(seen.psf)), factor)
    largest = jnp.max(target, axis=(-2, -1), keepdims=True)
    mean = jnp.mean(target, axis=(-2, -1), keepdims=True)
    scale = jnp.maximum(largest - mean, 1e-12)
    both = [((a - mean) / scale)[..., None] for a in (image, target)]
    side = target.shape[-1]
    alike = ssim(*both, window="gaussian11") if side >= 11 else jnp.ones(len(target))
    return Score(
        metrics.nmse(image, target),
        metrics.flux_error(image, target, radius),
        jnp.max(image, axis=(-2, -1)) / largest[:, 0, 0] - 1,
        metrics.reduced_chi2(residual, seen.sigma, radius / factor),
        alike,
    )


def target_side(seen: Observed) -> int:
    """Height and width of restored stamps."""
    return seen.target.shape[-1]


def summarise(scores: Any) -> dict[str, float]:
    """Medians over all stamps.

    Returns:
      ``<step>/nmse``, ``<step>/flux_bias`` (signed), ``<step>/flux_error`` (of absolute values),
      ``<step>/peak_error``, ``<step>/chi2``, ``<step>/ssim``; and ``nmse``, ``flux_error`` and
      ``ssim`` after the last step. Nothing for no stamps.

    >>> summarise([{"debias": Score(*np.ones((5, 2)))}])["nmse"]
    1.0
    """
    found: dict[str, list[Score]] = {}
    for batch in scores:
        for step, values in batch.items():
            found.setdefault(step, []).append(values)
    out: dict[str, float] = {}
    for step, parts in found.items():
        joined = Score(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        for name, values in joined._asdict().items():
            out[f"{step}/{name}"] = float(np.median(values))
        out[f"{step}/flux_bias"] = out[f"{step}/flux_error"]
        out[f"{step}/flux_error"] = float(np.median(np.abs(joined.flux_error)))
    for name in ("nmse", "flux_error", "ssim") if found else ():
        out[name] = out[f"debias/{name}"]
    return out


def picture(restored: Restored) -> np.ndarray:
    """Observed | Tikhonov | network | debiased | target, a row per stamp, brightness compressed."""
    seen, scores = restored.seen, score(restored)
    factor = factor_between(seen.observed.shape, seen.target.shape)
    rows = []
    for i, target in enumerate(seen.target):
        top = float(target.max())
        wide = np.repeat(np.repeat(seen.observed[i], factor, 0), factor, 1) / factor**2
        shown: list[tuple[str, Any]] = [("observed", wide)]
        for step in STEPS:
            caption = f"{step} {float(scores[step].nmse[i]):.3f}"
            shown.append((caption, restored.images[step][i]))
        shown.append(("target", target))
        rows.append([(_bright(image / top), text) for text, image in shown])
    return grid(rows)


def _bright(image: Any) -> np.ndarray:
    """Brightness compressed, each pixel at least two wide so that captions fit."""
    wide = max(1, -(-120 // image.shape[0]))
    image = np.repeat(np.repeat(image, wide, 0), wide, 1)
    return np.arcsinh(20 * np.maximum(image, -0.02)) / np.arcsinh(20.0)
