"""`ImageConfounding`: the effect of a treatment whose assignment shows in images of the places."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
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
from jaxcore.estimators.image_confounding import kept, propensity
from jaxcore.estimators.image_confounding.compat import over_folds
from jaxcore.estimators.image_confounding.features import features_of
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.inputs import check_inputs
from jaxcore.estimators.image_confounding.networks import (
    Fits,
    ImageLearner,
    network_for,
)
from jaxcore.estimators.image_confounding.resampling import bootstrap_draws, with_drawn_error
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
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.units import Units
from jaxcore.train.logging import Reporter
from jaxcore.train.tasks.propensity import Kind


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
        mesh: Mesh | None = None,
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
          mesh: devices that the images of a batch are split over; None: the default device.

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
                learners = self._learners(model, sample, found, r * k, run_dir, reporter, mesh)
                raw, trained = self._raw(model, sample, features[found.row], ids, k, learners)
                every.append(self._estimate(model, sample, raw, ids))
                networks.append(trained)
        told = fit_notices(model, sample, every[0])
        notices = [*sample.notices, *checked, *every[0].notices, *told]
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
        kind = self.backbone if isinstance(self.backbone, str) else "band_stats"
        return features_of(images, kind, rcf_features=self.rcf_features, seed=self.seed)

    def _learners(
        self,
        model: Model,
        sample: Sample,
        images: Images,
        number: int,
        run_dir: str | Path | None,
        reporter: Reporter | None,
        mesh: Mesh | None = None,
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
                    mesh=mesh,
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
        target, masks, kind = self._taught(model, sample, ids, k)
        if kind == "joint":
            y = columns[OUTCOME]
            centre, scale = np.mean(y), np.std(y)
            every = np.moveaxis(network.fit(target, masks, kind), -1, 1)
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

    def _taught(
        self, model: Model, sample: Sample, ids: Int[np.ndarray, " n"], k: int
    ) -> tuple[Float[np.ndarray, "n o"], Float[np.ndarray, "k n"], Kind]:
        """What networks learn: targets, weights of the units in each fold, and the kind."""
        dtype = np.dtype(jnp.result_type(float))
        w: Any = None if sample.weights is None else sample.weights.astype(dtype)
        masks = np.asarray(training_masks(jnp.asarray(ids, jnp.int32), k, weights=w))
        y, a = (v.astype(dtype) for v in (sample.Y, sample.A))
        if self.joint and model.nuisances.keys() > {"ml_m"}:
            return np.stack([a, (y - np.mean(y)) / np.std(y)], axis=1), masks, "joint"
        return a[:, None], masks, "propensity"

    def restored(self, parts: Restored) -> ImageConfoundingResult:
        """The result of a fit that was saved."""
        model, sample, arrays = self.model, parts.sample, parts.arrays
        images = kept.images_from(parts.more["images"], arrays["images"])
        networks, learners = [], {}
        with self.precision():
            for r, one in enumerate(parts.repetitions):
                ids = np.asarray(one.diagnostics["fold_ids"])
                k = int(ids.max()) + 1
                learners = self._learners(model, sample, images, r * k, None, None)
                tasks = []
                if self.trains:
                    tasks = learners["ml_m"].tasks(*self._taught(model, sample, ids, k))
                networks.append(kept.networks_from(arrays["networks"].get(str(r), {}), tasks))
        built: Any = ImageConfoundingResult.build(
            self, model, sample, parts.repetitions, parts.notices, learners
        )
        return dataclasses.replace(
            built,
            images=images,
            features=arrays.get("features", np.zeros((len(images.keyed), 0))),
            feature_names=tuple(parts.more["feature_names"]),
            networks=tuple(networks),
            coords=arrays.get("coords"),
        )

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
            units, more["kept"] = Units(weights, units.clusters).closed_up(), kept
        y: Any = sample.Y
        a: Any = sample.A
        arms = held.get("ml_g0"), held.get("ml_g1")
        if model.signal:
            more["u"] = columns_of_estimator(self.estimator, y, a, e, *arms)[:, 0]
        found = effect(
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
        if self.compat is not None:
            return over_folds(found, y, a, e, ids)
        if self.se != "bootstrap":
            return found
        key = jax.random.key(self.seed)
        drawn = bootstrap_draws(key, self.n_boot, self.estimator, y, a, e, *arms, units=units)
        return with_drawn_error(found, drawn)


def _calibrated(
    e: Any, a: Float[Array, " n"], folds: Int[Array, " n"], k: int, units: Units
) -> Float[Array, " n"]:
    """Platt's scaling, fitted on the out-of-fold propensities of the other folds."""
    e = jnp.clip(jnp.asarray(e), 1e-6, 1 - 1e-6)
    log_odds = (jnp.log(e) - jnp.log1p(-e))[:, None]
    scaling = Logistic(alpha=1e-6, max_steps=50)
    return crossfit(scaling, log_odds, jnp.asarray(a), folds, k, weights=units.weights)
