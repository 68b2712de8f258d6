"""Networks from images as nuisance learners: all folds are trained at once, by the one loop."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from jaxcore import registry
from jaxcore.data.image_units import Draw, ImageUnits
from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.nuisance import HostLearner
from jaxcore.models.regression import RegressionConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.logging import Reporter, default_reporter
from jaxcore.train.optim import OptimConfig
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.state import TrainState
from jaxcore.train.tasks.image_fits import HELD_OUT, ImageFits
from jaxcore.train.tasks.propensity import OUTPUTS, Kind, PropensityTask
from jaxcore.typing import Params

_EVERY = 20  # steps between evaluations with patience
_RISE, _FLOOR = 0.05, 0.01  # of the learning rate: share of the steps, and of the peak


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the networks of a fit are trained.

    >>> Training(steps=100).config(seed=0).optim.schedule.warmup_steps
    5
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    augment: bool = True
    label_smoothing: float = 0.05
    targeting: float = 0.0  # weight of targeted regularisation, see `PropensityTask`
    draw: Draw = "units"
    at_once: int | None = None  # folds that are trained together; None: all
    on_device: bool = True  # all images; else those of each batch are read and sent
    # End after so many evaluations (one in 20 steps) without a better loss on the images that every
    # fold sets aside from its training, and take the networks of the best one; None trains to the
    # end on all. The losses of all folds are averaged.
    patience: int | None = None
    held_out: float = 0.1  # share of the images that are set aside with patience

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "at_once", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"Expected {name} of at least 1, found {value!r}.")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"Expected label_smoothing in [0, 1), found {self.label_smoothing}.")
        if not 0 < self.held_out < 1:
            raise UserError(f"Expected held_out between 0 and 1, found {self.held_out}.")
        if not 0 <= self.targeting < np.inf:
            raise UserError(f"Expected targeting of at least 0, found {self.targeting}.")

    def config(self, seed: int) -> TrainConfig:
        """Settings of a run: AdamW, a warm-up, half a cosine, gradients of norm 1 at most."""
        schedule = ScheduleConfig(
            name="warmup_cosine",
            warmup_steps=int(_RISE * self.steps),
            floor=_FLOOR * self.learning_rate,
        )
        optim = OptimConfig(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule=schedule,
            clip_norm=1.0,
        )
        return TrainConfig(
            steps=self.steps,
            seed=seed,
            optim=optim,
            save_every=200,
            keep_last=1,
            tensorboard=False,
            **self._stopping(),
        )

    def _stopping(self) -> dict[str, Any]:
        if self.patience is None:
            return {}
        every = {"eval_every": min(_EVERY, self.steps), "patience": self.patience}
        return every | {"best_metric": HELD_OUT, "best_mode": "min"}

    def set_aside(
        self, masks: Float[np.ndarray, "k n"], image: Int[np.ndarray, " n"], seed: int
    ) -> tuple[Float[np.ndarray, "k n"], Bool[np.ndarray, "k n"] | None]:
        """Weights of the units that are trained on, and the units that networks are judged on.

        >>> masks, judged = Training(patience=2).set_aside(np.ones((1, 9)), np.arange(9) // 3, 0)
        >>> int(masks.sum()), int(judged.sum())
        (6, 3)
        """
        if self.patience is None:
            return masks, None
        judged = np.zeros(masks.shape, bool)
        for number, mask in enumerate(masks):
            images = np.unique(image[mask > 0])
            count = max(1, round(self.held_out * len(images)))
            chosen = np.random.default_rng((seed, number)).permutation(images)[:count]
            judged[number] = (mask > 0) & np.isin(image, chosen)
        return np.where(judged, 0, masks), judged


def default_network(backbone: str, images: Images, covariates: int) -> tuple[str, RegressionConfig]:
    """A network for these images: name in the registry, and configuration.

    Patches of the transformer have 16 pixels, or as many as leave four on a side.

    >>> import numpy as np
    >>> images = Images.of(np.arange(450).reshape(2, 15, 15, 1), None, 2)
    >>> default_network("vit", images, 0)[1].patch_size
    2
    """
    from jaxcore.models.convnet import ConvNetConfig
    from jaxcore.models.convnet.cnn2023 import CNN2023Config
    from jaxcore.models.vit import ViTConfig

    sizes: dict[str, Any] = {"in_channels": images.bands, "covariates": covariates}
    if backbone == "cnn2023":
        if images.keyed.frames is not None:
            raise UserError("Expected single images for the backbone 'cnn2023', found sequences.")
        return "cnn2023", CNN2023Config(**sizes)
    sizes["frames"] = images.keyed.frames
    if backbone == "vit":
        side = next((p for p in (16, 8, 4, 2) if images.side >= 4 * p), 1)
        return "vit", ViTConfig(patch_size=side, pad_to_patch=True, **sizes)
    for depth in (3, 2, 1):
        network = ConvNetConfig(depth=depth, **sizes)
        if network.least <= images.side:
            return "convnet", network
    raise UserError(
        f"Expected images of at least {network.least} pixels for the backbone 'cnn', found "
        f"{images.side}."
    )


def network_for(
    backbone: str | RegressionConfig, images: Images, covariates: int
) -> tuple[str, RegressionConfig]:
    """Name and configuration of a network that is named, or whose configuration is given."""
    if isinstance(backbone, str):
        return default_network(backbone, images, covariates)
    (name,) = [
        name
        for name in registry.networks()
        if registry.network(name).config_class is type(backbone)
    ]
    return name, dataclasses.replace(backbone, covariates=covariates)


class Fits(NamedTuple):
    """Trained networks, one for each fold, and what they say of all units."""

    task: ImageFits
    params: Params  # the folds are the first axis
    collections: dict[str, Any]
    outputs: Float[np.ndarray, "k n o"]


def train_fits(
    task: ImageFits,
    config: TrainConfig,
    title: str,
    run_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    mesh: Mesh | None = None,
) -> Fits:
    """Train the networks of a task, or go on with it, and ask them about all units.

    Args:
      task: what they learn.
      config: how.
      title: first part of the name of the run's folder.
      run_dir: receives the run; None keeps nothing.
      reporter: receives the progress; None is a bar on a terminal.
      mesh: devices that the images of a batch are split over; None: the default device.
    """
    from jaxcore.train.loop import fit  # with checkpoints: a second to import

    reporter = reporter or default_reporter("images")
    with jax.enable_x64(False), tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary if run_dir is None else run_dir)
        place = place / f"{title}_{task.units.fingerprint()[:8]}_{task.numbers[0]}"
        found = fit(task, config, place, reporter=reporter, mesh=mesh)
        if found.interrupted:
            raise KeyboardInterrupt
        state = found.state if config.patience is None else _best(task, config, place, mesh)
        outputs = task.outputs(state.eval_params, state.collections)
        params, collections = jax.device_get((state.eval_params, state.collections))
    return Fits(task, params, collections, outputs)


def _best(task: ImageFits, config: TrainConfig, place: Path, mesh: Mesh | None) -> TrainState:
    """The state with the smallest loss on what was set aside."""
    from jaxcore.train.checkpoint import Checkpointer
    from jaxcore.train.prepare import prepare
    from jaxcore.train.steps import CHECKPOINTS

    told = {"best_metric": config.best_metric, "best_mode": config.best_mode}
    with Checkpointer(place / CHECKPOINTS, read_only=True, **told) as checkpointer:
        abstract = prepare(task, config, mesh).abstract
        return checkpointer.restore(abstract, checkpointer.best_step)[0]


class ImageLearner(HostLearner):
    """A network as a learner of what an image (and covariates) tell of a target.

    ``fit_predict`` trains the networks of all folds. Features that it is given are not looked at:
    images and covariates are its own, in the order of the units.

    Args:
      model: name of the network in `jaxcore.registry`.
      network: its configuration.
      images: (N, h, w, c), or sequences (N, t, h, w, c); an array, or what gives rows.
      image: row of the image of each unit.
      mean: of each band.
      sd: of each band.
      covariates: standardised, or None.
      training: how.
      seed: of parameters and of the order of the data.
      number: of the first fit; fits of other numbers start from other parameters.
      run_dir: receives the runs, which then go on after a stop; None keeps nothing.
      reporter: receives the progress; None is a bar on a terminal.
      mesh: devices that the images of a batch are split over; None: the default device.
    """

    def __init__(
        self,
        model: str,
        network: RegressionConfig,
        images: Any,
        image: Int[np.ndarray, " n"],
        *,
        mean: Float[np.ndarray, " c"],
        sd: Float[np.ndarray, " c"],
        covariates: Float[np.ndarray, "n p"] | None = None,
        training: Training = Training(),
        seed: int = 0,
        number: int = 0,
        run_dir: str | Path | None = None,
        reporter: Reporter | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self.model, self.network, self.images, self.image = model, network, images, image
        self.mean, self.sd = np.asarray(mean, np.float32), np.asarray(sd, np.float32)
        self.covariates = None if covariates is None else np.asarray(covariates, np.float32)
        self.training, self.seed, self.number = training, seed, number
        self.run_dir, self.reporter, self.mesh = run_dir, reporter, mesh
        self.binary, self.missing = True, False
        self.trained: list[Fits] = []  # of the last call

    def __repr__(self) -> str:
        """The network and how long it was trained."""
        return f"{self.network.title}({self.training.steps} steps)"

    def fit_predict(self, X: Any, y: Any, masks: Any, at: tuple[Any, ...]) -> jax.Array:
        """Probabilities of a target of 0 and 1, axes [fold, 1, unit].

        Raises:
          UserError: features other than those of the units, or what stops a training.
        """
        if len(at) != 1 or len(at[0]) != len(self.image):
            raise UserError("Expected predictions for the units themselves, found other rows.")
        out = self.fit(np.asarray(y)[:, None], np.asarray(masks), "propensity")
        dtype = jax.dtypes.canonicalize_dtype(np.asarray(X).dtype)
        return jnp.asarray(expit(out[:, None, :, 0]), dtype)

    def fit(
        self, target: Float[np.ndarray, "n o"], masks: Float[np.ndarray, "k n"], kind: Kind
    ) -> Float[np.ndarray, "k n o"]:
        """Train the networks of all folds, and ask them about all units; float64.

        Args:
          target: treatment, outcome, or both.
          masks: weights of the units in each fold.
          kind: what the networks tell.
        """
        config = self.training.config(self.seed)
        self.trained = [
            train_fits(task, config, kind, self.run_dir, self.reporter, self.mesh)
            for task in self.tasks(target, masks, kind)
        ]
        return np.concatenate([one.outputs for one in self.trained]).astype(np.float64)

    def tasks(
        self, target: Float[np.ndarray, "n o"], masks: Float[np.ndarray, "k n"], kind: Kind
    ) -> list[PropensityTask]:
        """What the networks of all folds are trained for, those together that are at once."""
        masks, judged = self.training.set_aside(masks, self.image, self.seed)
        every, size = range(len(masks)), self.training.at_once or len(masks)
        groups = (every[first : first + size] for first in range(0, len(masks), size))
        return [self._task(target, masks, judged, kind, rows) for rows in groups]

    def _task(
        self,
        target: np.ndarray,
        masks: np.ndarray,
        judged: np.ndarray | None,
        kind: Kind,
        rows: Sequence[int],
    ) -> PropensityTask:
        units = ImageUnits(
            images=self.images,
            image=self.image.astype(np.int32),
            target=target.astype(np.float32),
            masks=masks[rows].astype(np.float32),
            mean=self.mean,
            sd=self.sd,
            covariates=self.covariates,
            judged=None if judged is None else judged[rows],
        )
        training = self.training
        return PropensityTask(
            model=self.model,
            network=dataclasses.replace(self.network, outputs=OUTPUTS[kind]),
            units=units,
            kind=kind,
            numbers=tuple(self.number + row for row in rows),
            batch_size=training.batch_size,
            draw=training.draw,
            augment=training.augment,
            label_smoothing=training.label_smoothing,
            targeting=training.targeting,
            on_device=training.on_device,
        )
