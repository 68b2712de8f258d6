"""`ImageHeterogeneity`: kinds of places, told from their images, with effects of their own."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxcore.data.geo.bands import standardise_table
from jaxcore.data.image_units import ImageUnits
from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample, check_sample
from jaxcore.estimators.crossfit import training_masks
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.fitting import check_training
from jaxcore.estimators.image_confounding import kept
from jaxcore.estimators.image_confounding import propensity as propensities
from jaxcore.estimators.image_confounding.cluster_result import (
    ImageHeterogeneityResult,
    Repetition,
)
from jaxcore.estimators.image_confounding.cluster_task import CLUSTERS, ClusterTask
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.inputs import check_inputs
from jaxcore.estimators.image_confounding.networks import Training, network_for, train_fits
from jaxcore.estimators.image_confounding.settings import NETWORKS
from jaxcore.estimators.image_confounding.spatial import check_coordinates
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.settings import CrossFitting
from jaxcore.models.regression import RegressionConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.groups import GroupConfig
from jaxcore.train.logging import Reporter

_FASTER = 10  # learning rate of the effects, against that of the networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageHeterogeneity:
    """Clusters of images and the effect of a randomised treatment in each of them.

    A network tells for each image the standardised outcome without treatment and the probability of
    every cluster; the effects of the clusters are learned with it. Clusters are those that the
    outcome needs, not those that look alike. Networks of all folds and repetitions number their
    clusters from the lowest effect to the highest.

    What a cluster model finds, it finds in noise as well. Beside it stand, therefore, effects in
    the groups of units that networks which have not seen them put into each cluster, estimated by
    augmented inverse propensity weights: they are valid whatever the networks learned.

    >>> estimator = ImageHeterogeneity(backbone="cnn", n_clusters=3)
    >>> estimator.n_folds, estimator.n_rep, estimator.training.steps
    (3, 2, 500)

    With arrays ``Y``, ``A``, ``images`` and ``X``, ``estimator.fit(Y, A, images, X)`` has
    ``cluster_probs``, ``effects``, ``groups`` and ``cate``, and ``transport(others)`` tells
    clusters of other images.

    References:
      Jerzak, Johansson and Daoud (2023), Image-based treatment effect heterogeneity, CLeaR, PMLR
      213:531-552; each unit's loss has its own effect.
    """

    n_clusters: int = 2
    backbone: str | RegressionConfig = "vit"  # "vit", "cnn", "cnn2023", or a configuration
    training: Training = Training(steps=500)  # that has no use for label_smoothing
    draws: int = 2  # of memberships and effects, for each batch
    n_folds: int = 3
    n_rep: int = 2  # repeated partitions, over which predictions are averaged
    clip: tuple[float, float] = (0.01, 0.99)  # bounds of given propensities
    missing: str = "error"  # or "drop": rows with missing values are left out and counted
    treated: Any = None  # level of the treatment that counts as 1; None: the later of two
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_clusters", 2), ("draws", 1), ("n_folds", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UserError(f"Expected {name} of at least {least}, found {value!r}.")
        if isinstance(self.backbone, str) and self.backbone not in NETWORKS:
            raise UserError(
                f"Expected a backbone of {', '.join(NETWORKS)}, or the configuration of a "
                f"network, found {self.backbone!r}."
            )
        _ = self._folds  # is checked when it is made

    @property
    def _folds(self) -> CrossFitting:
        own = ("n_folds", "n_rep", "clip", "missing", "treated", "seed")
        return CrossFitting(**{name: getattr(self, name) for name in own})

    def fit(
        self,
        Y: Any,
        A: Any,
        images: Any,
        X: Any = None,
        *,
        propensity: Any = None,
        image: Any = None,
        clusters: Any = None,
        coords: Any = None,
        covariates: Sequence[str] | None = None,
        run_dir: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> ImageHeterogeneityResult:
        """Learn clusters from arrays or series whose rows belong together, and images.

        Args:
          Y: outcome.
          A: treatment, at random given the propensities.
          images: taken before the treatment: `jaxcore.data.geo.keyed.KeyedImages`, or an array
            (N, h, w, c), of sequences (N, t, h, w, c), whose images have the keys 0, 1, ...
          X: covariates from before the treatment, (n, p), which networks see beside the images:
            clusters are then of images and covariates together.
          propensity: probability of treatment by design, one number or one for each unit; None:
            the same for all, as large as the share of treated units.
          image: key of the image of each unit; None: one image per unit, in the same order.
          clusters: labels of units that belong together in errors and folds, such as villages;
            None: the images.
          coords: longitude and latitude of each unit in degrees, (n, 2), for a map.
          covariates: names of the columns of ``X``.
          run_dir: receives the trainings, which go on from there after a stop; None keeps nothing.
          reporter: receives the progress of trainings; None is a bar on a terminal.

        Raises:
          UserError: what is wrong with the data.
        """
        n, folds = len(Y), self._folds
        found = Images.of(images, image, n)
        shared = clusters is not None or len(np.unique(found.row)) < n
        labels = found.row if clusters is None else clusters
        sample = check_sample(
            Y,
            A,
            None,
            np.zeros((n, 0)) if X is None else X,
            clusters=labels if shared else None,
            covariates=covariates,
            missing=self.missing,
            binary=("treatment",),
            levels=folds.levels,
        )
        found = found.of_units(sample.kept)
        seen = sample.X if sample.X.shape[1] else None
        names = sample.covariates
        checked = check_inputs(
            found.keyed, sample.A, sample.Y, seen, found.keys, covariate_names=names
        )
        if np.ptp(sample.Y) == 0:
            raise UserError("Expected an outcome that varies, found one value.")
        e = self._propensity(propensity, sample, n)
        with folds.precision():
            parts = partitions(
                folds, sample, binary=("treatment",), check=check_training(models.IRM, sample)
            )
            repetitions = tuple(
                Repetition.of(
                    [
                        train_fits(task, self._config(), CLUSTERS, run_dir, reporter)
                        for task in self._tasks(sample, found, ids, r * k, k)
                    ],
                    ids,
                )
                for r, (ids, k) in enumerate(parts)
            )
        if not all(np.all(np.isfinite(one.outputs)) for one in repetitions):
            raise UserError(
                "Expected finite outputs of the networks, found others: use a lower learning rate."
            )
        if coords is not None:
            coords = check_coordinates(coords, n)[sample.kept]
        notices = (*sample.notices, *checked.notices)
        built = ImageHeterogeneityResult.build(self, sample, found, e, repetitions, notices)
        return dataclasses.replace(built, coords=coords)

    @property
    def clustered(self) -> bool:
        """Errors are clustered, if there are clusters."""
        return True

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The scope the arithmetic runs in."""
        return self._folds.precision()

    def restored(self, parts: Restored) -> ImageHeterogeneityResult:
        """The result of a fit that was saved."""
        sample, arrays = parts.sample, parts.arrays
        images = kept.images_from(parts.more["images"], arrays["images"])
        repetitions = []
        for r in range(len(arrays["fold_ids"])):
            ids = arrays["fold_ids"][str(r)]
            k = int(ids.max()) + 1
            with self.precision():
                tasks = self._tasks(sample, images, ids, r * k, k)
            found = kept.networks_from(arrays["networks"][str(r)], tasks)
            repetitions.append(Repetition.of(found, ids))
        e = arrays["propensity"]
        built = ImageHeterogeneityResult.build(
            self, sample, images, e, tuple(repetitions), parts.notices
        )
        return dataclasses.replace(built, coords=arrays.get("coords"))

    def _propensity(self, given: Any, sample: Sample, n: int) -> Float[np.ndarray, " n"]:
        if given is None:
            return np.full(sample.n, sample.A.mean())
        every = np.full(n, given, np.float64) if np.ndim(given) == 0 else given
        return np.clip(propensities.check(every, n)[sample.kept], *self.clip)

    def _tasks(
        self,
        sample: Sample,
        images: Images,
        ids: Int[np.ndarray, " n"],
        first: int,
        k: int,
    ) -> list[ClusterTask]:
        """What the networks of a repetition, the first of which has number ``first``, learn."""
        outcome = (sample.Y - sample.Y.mean()) / sample.Y.std()
        masks = np.asarray(training_masks(jnp.asarray(ids, jnp.int32), k))
        training, size = self.training, self.training.at_once or k
        masks, judged = training.set_aside(masks, images.row, self.seed)
        name, network = network_for(self.backbone, images, sample.X.shape[1])
        seen = standardise_table(sample.X).astype(np.float32) if sample.X.shape[1] else None
        found = []
        for start in range(0, k, size):
            rows = range(start, min(start + size, k))
            task = ClusterTask(
                model=name,
                network=dataclasses.replace(network, outputs=self.n_clusters),
                units=ImageUnits(
                    images=images.pixels,
                    image=images.row.astype(np.int32),
                    target=np.stack([sample.A, outcome], axis=1).astype(np.float32),
                    masks=masks[rows].astype(np.float32),
                    mean=images.mean.astype(np.float32),
                    sd=images.sd.astype(np.float32),
                    covariates=seen,
                    judged=None if judged is None else judged[rows],
                ),
                numbers=tuple(first + row for row in rows),
                n_clusters=self.n_clusters,
                draws=self.draws,
                batch_size=training.batch_size,
                draw=training.draw,
                augment=training.augment,
                on_device=training.on_device,
            )
            found.append(task)
        return found

    def _config(self) -> TrainConfig:
        """That of the training, in which effects learn faster: they have a way of deviations."""
        config = self.training.config(self.seed)
        rate = _FASTER * self.training.learning_rate
        own = GroupConfig(pattern=f"^{CLUSTERS}/", learning_rate=rate, weight_decay=0.0)
        return dataclasses.replace(config, optim=dataclasses.replace(config.optim, groups=(own,)))
