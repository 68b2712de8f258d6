"""`ImageConfounding`: the effect of a treatment whose assignment shows in images of the places."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit

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
from jaxcore.estimators.image_confounding.inputs import check_inputs
from jaxcore.estimators.image_confounding.networks import (
    Fits,
    ImageLearner,
    network_for,
)
from jaxcore.estimators.image_confounding.representations import (
    band_stats,
    gaussian_filters,
    random_conv_features,
)
from jaxcore.estimators.image_confounding.result import ImageConfoundingResult
from jaxcore.estimators.image_confounding.settings import ImageSettings
from jaxcore.estimators.image_confounding.spatial import blocks, check_coordinates
from jaxcore.estimators.image_confounding.weighting import (
    AUGMENTED,
    effect,
)
from jaxcore.estimators.image_confounding.weighting import (
    columns_of as columns_of_estimator,
)
from jaxcore.estimators.nuisance import Logistic, label
from jaxcore.estimators.nuisance.candidates import learner_for
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.units import Units
from jaxcore.train.logging import Reporter
from jaxcore.train.tasks.image_fits import standardised


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfounding(ImageSettings):
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
        acquired: Any = None,
        treated_on: Any = None,
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
          acquired: date of each image, in their order; images taken after the treatment show what
            it did, and are refused.
          treated_on: date of the treatment, where ``acquired`` is given.
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
        checked = check_inputs(
            found.keyed,
            sample.A,
            sample.Y,
            sample.X if sample.X.shape[1] else None,
            found.keys,
            acquired=acquired,
            treated_on=treated_on,
            covariate_names=sample.covariates,
            pixels=self.backbone != "embeddings",
        ).notices
        self.check_given(fold_ids)
        model, every, networks = self.model, [], []
        (features, named), learners = self._features(found), {}
        with self.precision():
            parts = partitions(
                self, sample, fold_ids, binary=model.binary, check=check_training(model, sample)
            )
            for r, (ids, k) in enumerate(parts):
                learners = self._learners(model, sample, found, r * k, run_dir, reporter)
                raw, trained = self._raw(model, sample, features[found.row], ids, k, learners)
                every.append(self._estimate(model, sample, raw, ids))
                networks.append(trained)
        notices = [*sample.notices, *checked, *fit_notices(model, sample, every[0])]
        built: Any = ImageConfoundingResult.build(self, model, sample, every, notices, learners)
        result: ImageConfoundingResult = dataclasses.replace(
            built,
            images=found,
            features=features,
            feature_names=named,
            networks=tuple(networks),
            coords=None if coords is None else coords[sample.kept],
        )
        notices += [text for text in result.overlap().notices if text not in notices]
        return dataclasses.replace(
            result, estimate=dataclasses.replace(result.estimate, notices=tuple(notices))
        )

    def _features(self, images: Images) -> tuple[Float[np.ndarray, "images f"], tuple[str, ...]]:
        """What regressions see of the images, and their names; band statistics beside a network."""
        silent = self.trains and (self.estimator not in AUGMENTED or self.joint)
        if self.backbone == "none" or silent:
            return np.zeros((len(images.keyed), 0)), ()
        filters = None
        if self.backbone == "rcf":
            key = jax.random.key(self.seed)
            filters = gaussian_filters(key, images.bands, self.rcf_features)
        scale: Any = [v.astype(np.float32) for v in (images.mean, images.sd)]
        found = []
        with jax.enable_x64(False):
            for batch in images.keyed.batches():
                pixels = standardised(jnp.asarray(batch), *scale)
                if self.backbone == "embeddings":
                    found.append(pixels)
                elif filters is None:
                    found.append(band_stats(pixels))
                else:
                    found.append(random_conv_features(_frames(pixels), filters))
        rows = [np.asarray(part, np.float64).reshape(-1) for part in found]
        every = np.concatenate(rows).reshape(len(images.keyed), -1)
        # Far-off images would decide: within four standard deviations, as networks see covariates.
        # Rounding alone, as in means of images without a mean, would be scaled up to a feature.
        rounding = 0.0 if self.backbone == "embeddings" else 1e-5
        varies = np.ptp(every, axis=0) > rounding
        statistics = self.backbone not in ("rcf", "embeddings")
        names = images.statistics() if statistics else ()
        if len(names) != len(varies):
            names = tuple(f"image feature {j + 1}" for j in range(len(varies)))
        kept = tuple(name for name, v in zip(names, varies, strict=True) if v)
        return standardise_table(every[:, varies]), kept

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
                model_name, network = network_for(self.backbone, images, sample.X.shape[1])
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
        units = sample.units(dtype)
        folds: Any = ids.astype(np.int32)
        network = learners["ml_m"]
        if self.joint and model.nuisances.keys() > {"ml_m"}:
            w: Any = None if sample.weights is None else sample.weights.astype(dtype)
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
        held_raw: Any = raw["ml_m"]
        e: Any = np.clip(held_raw, *self.clip)
        held: dict[str, Any] = {**raw, "ml_m": e}
        units = sample.units(clustered=self.clustered)
        more: dict[str, Any] = {}
        if self.trim is not None:
            kept = np.asarray(propensity.overlapping(held_raw, self.trim))
            for arm in (0, 1):
                if not np.any(kept & (sample.A == arm)):
                    raise UserError(
                        f"Expected units of both arms with propensities in ({self.trim:g}, "
                        f"{1 - self.trim:g}), found none with treatment {arm}."
                    )
            weights: Any = kept.astype(float) * (1.0 if sample.weights is None else sample.weights)
            units, more["kept"] = Units(weights, units.clusters), kept
        y: Any = sample.Y
        a: Any = sample.A
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
    e: Any, a: Float[Array, " n"], folds: Int[Array, " n"], k: int, units: Units
) -> Float[Array, " n"]:
    """Platt's scaling, fitted on the out-of-fold propensities of the other folds."""
    e = jnp.clip(jnp.asarray(e), 1e-6, 1 - 1e-6)
    log_odds = (jnp.log(e) - jnp.log1p(-e))[:, None]
    scaling = Logistic(alpha=1e-6, max_steps=50)
    return crossfit(scaling, log_odds, jnp.asarray(a), folds, k, weights=units.weights)
