"""`ImageConfounding`: the effect of a treatment whose assignment shows in images of the places."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit

from jaxcore import registry
from jaxcore.data.geo.bands import standardise_table
from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample, check_sample
from jaxcore.estimators.crossfit import combined, crossfit, own_fold, training_masks
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.fitting import check_training, columns_of, fit_notices
from jaxcore.estimators.double_ml.model import OUTCOME, TREATMENT, Model
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.image_confounding import propensity
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.networks import (
    Fits,
    ImageLearner,
    Training,
    default_network,
)
from jaxcore.estimators.image_confounding.representations import (
    band_stats,
    gaussian_filters,
    random_conv_features,
)
from jaxcore.estimators.image_confounding.result import ImageConfoundingResult, told
from jaxcore.estimators.image_confounding.spatial import blocks, check_coordinates
from jaxcore.estimators.image_confounding.weighting import (
    AUGMENTED,
    ESTIMATORS,
    effect,
)
from jaxcore.estimators.image_confounding.weighting import (
    columns_of as columns_of_estimator,
)
from jaxcore.estimators.nuisance import Logistic, label
from jaxcore.estimators.nuisance.candidates import Candidate, learner_for
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.settings import CrossFitting
from jaxcore.estimators.units import Units
from jaxcore.models.regression import RegressionConfig
from jaxcore.train.logging import Reporter
from jaxcore.train.tasks.propensity import standardised

NETWORKS = ("vit", "cnn", "cnn2023")
FEATURES = ("band_stats", "rcf", "embeddings")
BACKBONES = (*NETWORKS, *FEATURES, "none")
"""Networks that are trained, features that are not, and no look at the images.

"band_stats" are means, deviations and quantiles of bands, "rcf" random convolutional features, and
"embeddings" what is given instead of images: an array (N, d) of whatever encoder."""

_TARGETS = {"ato": "ATO", "att": "ATT"}
_TITLES = {
    "difference": "difference in means",
    "ipw": "inverse propensity weights (Horvitz-Thompson)",
    "hajek": "inverse propensity weights (Hajek)",
    "ato": "overlap weights",
    "att": "weights for the treated",
    "aipw_hajek": "AIPW with weights divided by their sum",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfounding(CrossFitting):
    """Effect of a treatment of two levels; its confounders show in images, and in covariates.

    Propensities come from a network that sees image and covariates, trained on the other folds, or
    from a penalised regression on features of the images. Units that share an image stay in one
    fold, and errors are clustered by image.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 99, (80, 6, 6, 1)).astype(np.uint8)
    >>> seen = (images.mean((1, 2, 3)) - 49.0) / 5
    >>> A = (rng.random(80) < 1 / (1 + np.exp(-seen))).astype(float)
    >>> Y = 2 * A + seen + rng.normal(size=80)
    >>> result = ImageConfounding(backbone="band_stats", n_folds=2).fit(Y, A, images)
    >>> 1 < result.theta < 3
    True

    References:
      Jerzak, Johansson and Daoud (2023), Integrating Earth Observation Data into Causal Inference,
      arXiv 2301.12985.
    """

    backbone: str | RegressionConfig = "vit"  # one of `BACKBONES`, or a network's configuration
    estimator: str = "aipw"  # one of `weighting.ESTIMATORS`
    # Of the outcome, for doubly robust estimators: a learner (see `PLR`) on covariates and features
    # of the images, or "network": one network for treatment and outcome.
    outcome_model: Candidate | Literal["network"] = "ridge"
    rcf_features: int = 256
    ml_m: Candidate = "ridge"  # of the treatment, on features of images that are not trained
    # Rescale the log-odds of a network by a logistic regression on the units that it has not seen:
    # networks trained for too long are too sure of themselves.
    calibrate: bool = True
    clip: tuple[float, float] = (1e-3, 1 - 1e-3)
    trim: float | None = None  # leave out units with propensities outside (trim, 1 - trim)
    se: Literal["cluster", "iid"] = "cluster"
    block_km: float | None = None  # clusters and folds of squares of this size, not of images
    training: Training = Training()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_folds < 2:
            raise UserError(f"Expected at least 2 folds, found {self.n_folds}.")
        if isinstance(self.backbone, str) and self.backbone not in BACKBONES:
            raise UserError(
                f"Expected a backbone of {', '.join(BACKBONES)}, or the configuration of a "
                f"network, found {self.backbone!r}."
            )
        if self.estimator not in ESTIMATORS:
            raise UserError(
                f"Expected an estimator of {', '.join(ESTIMATORS)}, found {self.estimator!r}."
            )
        if self.trim is not None and not 0 < self.trim < 0.5:
            raise UserError(f"Expected trim between 0 and 0.5, found {self.trim}.")
        if self.se not in ("cluster", "iid"):
            raise UserError(f"Expected se of 'cluster' or 'iid', found {self.se!r}.")
        if self.joint and not self.trains:
            raise UserError(
                f"Expected a backbone that is trained for outcome_model='network', found "
                f"{self.backbone!r}."
            )

    @property
    def trains(self) -> bool:
        """Whether a network is trained."""
        return not isinstance(self.backbone, str) or self.backbone in NETWORKS

    @property
    def joint(self) -> bool:
        """Whether one network tells treatment and outcome."""
        return isinstance(self.outcome_model, str) and self.outcome_model == "network"

    @property
    def clustered(self) -> bool:
        """Whether standard errors are clustered, if there are clusters."""
        return self.se == "cluster"

    @property
    def model(self) -> Model:
        """What is estimated, for tables."""
        if self.estimator == "aipw":
            return models.IRM
        nuisances = models.IRM.nuisances
        if self.estimator not in AUGMENTED:
            nuisances = {"ml_m": nuisances["ml_m"]}
        return dataclasses.replace(
            models.IRM,
            title=_TITLES[self.estimator],
            effect=_TARGETS.get(self.estimator, "ATE"),
            nuisances=nuisances,
            signal=False,
        )

    def fit(
        self,
        Y: Any,
        A: Any,
        images: Any,
        X: Any = None,
        *,
        image: Any = None,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        coords: Any = None,
        covariates: Sequence[str] | None = None,
        run_dir: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> ImageConfoundingResult:
        """Estimate from arrays or frames whose rows belong together, and images.

        Args:
          Y: outcome.
          A: treatment.
          images: taken before the treatment: `jaxcore.data.geo.keyed.KeyedImages`, or an array
            (N, h, w, c), of sequences (N, t, h, w, c), whose images have the keys 0, 1, ...
          X: covariates, (n, p).
          image: key of the image of each unit; None: one image per unit, in the same order.
          weights: observation weights.
          clusters: labels, such as regions; None: the images.
          fold_ids: folds as in `PLR.fit`.
          coords: longitude and latitude of each unit in degrees, (n, 2).
          covariates: names of the columns of ``X``.
          run_dir: receives the trainings, which go on from there after a stop; None keeps nothing.
          reporter: receives the progress of trainings; None is a bar on a terminal.

        Raises:
          UserError: what is wrong with the data.
        """
        n = len(Y)
        found = Images.of(images, image, n)
        if coords is not None:
            coords = check_coordinates(coords, n)
        if clusters is None and self.block_km is not None:
            if coords is None:
                raise UserError("Expected coords for blocks of places (block_km), found none.")
            first = np.unique(found.row, return_index=True)[1]
            clusters = np.zeros(len(found.keyed), np.int64)
            clusters[found.row[first]] = blocks(coords[first], self.block_km)
            clusters = clusters[found.row]
        labels = found.row if clusters is None else clusters
        shared = clusters is not None or len(np.unique(found.row)) < n
        sample = check_sample(
            Y,
            A,
            None,
            np.zeros((n, 0)) if X is None else X,
            weights=weights,
            clusters=labels if shared else None,
            covariates=covariates,
            missing=self.missing,
            binary=("treatment",),
            levels=self.levels,
        )
        found = found.of_units(sample.kept)
        self.check_given(fold_ids)
        model, every, networks = self.model, [], []
        features, learners = self._features(found), {}
        with self.precision():
            parts = partitions(
                self, sample, fold_ids, binary=model.binary, check=check_training(model, sample)
            )
            for r, (ids, k) in enumerate(parts):
                learners = self._learners(model, sample, found, r * k, run_dir, reporter)
                raw, trained = self._raw(model, sample, features[found.row], ids, k, learners)
                every.append(self._estimate(model, sample, raw, ids))
                networks.append(trained)
        notices = [*sample.notices, *found.keyed.notices, *fit_notices(model, sample, every[0])]
        notices += told(model, sample, every[0])
        result = ImageConfoundingResult.build(self, model, sample, every, notices, learners)
        return dataclasses.replace(
            result,
            images=found,
            features=features,
            networks=tuple(networks),
            coords=None if coords is None else coords[sample.kept],
        )

    def _features(self, images: Images) -> Float[np.ndarray, "images f"]:
        """What regressions see of the images: those named, or band statistics beside a network."""
        silent = self.trains and (self.estimator not in AUGMENTED or self.joint)
        if self.backbone == "none" or silent:
            return np.zeros((len(images.keyed), 0))
        filters = None
        if self.backbone == "rcf":
            key = jax.random.key(self.seed)
            filters = gaussian_filters(key, images.bands, self.rcf_features)
        mean, sd = (v.astype(np.float32) for v in (images.mean, images.sd))
        found = []
        with jax.enable_x64(False):
            for batch in images.keyed.batches():
                pixels = standardised(batch, mean, sd)
                if self.backbone == "embeddings":
                    found.append(pixels)
                elif filters is None:
                    found.append(band_stats(pixels))
                else:
                    found.append(random_conv_features(_frames(pixels), filters))
        rows = [np.asarray(part, np.float64).reshape(-1) for part in found]
        return np.concatenate(rows).reshape(len(images.keyed), -1)

    def _learners(
        self,
        model: Model,
        sample: Sample,
        images: Images,
        number: int,
        run_dir: str | Path | None,
        reporter: Reporter | None,
    ) -> dict[str, Any]:
        """The learner of every nuisance."""
        columns, out = columns_of(model, sample), {}
        for name, one in model.nuisances.items():
            if name == "ml_m" and self.trains:
                covariates = standardise_table(sample.X) if sample.X.shape[1] else None
                model_name, network = self._network(images, sample.X.shape[1])
                out[name] = ImageLearner(
                    model_name,
                    network,
                    images.pixels,
                    images.row,
                    mean=images.mean,
                    sd=images.sd,
                    covariates=covariates,
                    training=self.training,
                    seed=self.seed,
                    number=number,
                    run_dir=run_dir,
                    reporter=reporter,
                )
            elif name != "ml_m" and self.joint:
                out[name] = out["ml_m"]
            else:
                chosen = self.ml_m if name == "ml_m" else self.outcome_model
                setting = "ml_m" if name == "ml_m" else "outcome_model"
                out[name] = learner_for(chosen, setting, columns[one.target])
        return out

    def _network(self, images: Images, covariates: int) -> tuple[str, RegressionConfig]:
        """Name and configuration of the network."""
        if not isinstance(self.backbone, str):
            (name,) = [
                name
                for name in registry.networks()
                if registry.network(name).config_class is type(self.backbone)
            ]
            return name, dataclasses.replace(self.backbone, covariates=covariates)
        return default_network(self.backbone, images, covariates)

    def _raw(
        self,
        model: Model,
        sample: Sample,
        features: Float[np.ndarray, "n f"],
        ids: Int[np.ndarray, " n"],
        k: int,
        learners: dict[str, Any],
    ) -> tuple[dict[str, np.ndarray], list[Fits]]:
        """Out-of-fold predictions of every nuisance, and networks that were trained."""
        dtype = np.dtype(jnp.result_type(float))
        columns: dict[str, Any] = {r: v.astype(dtype) for r, v in columns_of(model, sample).items()}
        units, folds = sample.units(dtype), ids.astype(np.int32)
        network = learners["ml_m"]
        if self.joint and model.nuisances.keys() > {"ml_m"}:
            w = None if sample.weights is None else sample.weights.astype(dtype)
            masks = np.asarray(training_masks(jnp.asarray(folds), k, weights=w))
            y = columns[OUTCOME]
            centre, scale = np.mean(y), np.std(y)
            target = np.stack([columns[TREATMENT], (y - centre) / scale], axis=1)
            every = np.moveaxis(network.fit(target, masks, "joint"), -1, 1)
            own = np.asarray(own_fold(jnp.asarray(every), combined(jnp.asarray(folds), k)))
            found = {"ml_m": expit(own[0])}
            found |= {f"ml_g{arm}": centre + scale * own[1 + arm] for arm in (0, 1)}
        else:
            X: Any = np.hstack([sample.X, features]).astype(dtype)
            if not X.shape[1]:
                X = np.zeros((sample.n, 1), dtype)
            key = jax.random.key(self.seed)
            settings = {one.learner: learners[name] for name, one in model.nuisances.items()}
            found, _ = models.predictions(
                model, columns, X, settings, folds, k, units=units, key=key
            )
        if self.trains and self.calibrate:
            found["ml_m"] = _calibrated(found["ml_m"], columns[TREATMENT], folds, k, units)
        raw = {name: np.asarray(v, np.float64) for name, v in found.items()}
        for name, values in raw.items():
            if not np.all(np.isfinite(values)):
                raise UserError(
                    f"Expected finite predictions of {model.nuisances[name].symbol}, found others "
                    f"from {label(learners[name])}: use a penalised learner, fewer steps, or a "
                    "lower learning rate."
                )
        return raw, list(getattr(network, "trained", []))

    def _estimate(
        self, model: Model, sample: Sample, raw: dict[str, np.ndarray], ids: np.ndarray
    ) -> Estimate:
        """The estimate on one partition."""
        e = np.clip(raw["ml_m"], *self.clip)
        held, units = {**raw, "ml_m": e}, sample.units(clustered=self.clustered)
        more: dict[str, Any] = {}
        if self.trim is not None:
            kept = np.asarray(propensity.overlapping(raw["ml_m"], self.trim))
            for arm in (0, 1):
                if not np.any(kept & (sample.A == arm)):
                    raise UserError(
                        f"Expected units of both arms with propensities in ({self.trim:g}, "
                        f"{1 - self.trim:g}), found none with treatment {arm}."
                    )
            weights = kept.astype(float) * (1.0 if sample.weights is None else sample.weights)
            units, more = Units(weights, units.clusters), {"kept": kept}
        y, a = sample.Y, sample.A
        arms = held.get("ml_g0"), held.get("ml_g1")
        if model.signal:
            more["u"] = columns_of_estimator(self.estimator, y, a, e, *arms)[:, 0]
        return effect(
            self.estimator,
            y,
            a,
            e,
            *arms,
            units,
            names=(model.effect,),
            estimator=model.title,
            diagnostics={
                **held,
                **more,
                "raw": {"ml_m": raw["ml_m"]},
                "n_clipped": int(np.sum(e != raw["ml_m"])),
                "fold_ids": ids,
            },
        )


def _frames(images: Array) -> Array:
    """Images of sequences one by one."""
    return images.reshape(-1, *images.shape[-3:])


def _calibrated(
    e: Any, a: Float[np.ndarray, " n"], folds: Int[np.ndarray, " n"], k: int, units: Units
) -> Float[Array, " n"]:
    """Platt's scaling, fitted on the out-of-fold propensities of the other folds."""
    e = jnp.clip(jnp.asarray(e), 1e-6, 1 - 1e-6)
    log_odds = (jnp.log(e) - jnp.log1p(-e))[:, None]
    scaling = Logistic(alpha=1e-6, max_steps=50)
    return crossfit(scaling, log_odds, jnp.asarray(a), folds, k, weights=units.weights)
