"""What `ImageConfounding` returns: the effect, its propensities, and what the networks look at."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from jaxcore.data.geo.keyed import Rows
from jaxcore.errors import UserError
from jaxcore.estimators.balance import Arm, arms_of, differences
from jaxcore.estimators.double_ml.result import DoubleMLResult
from jaxcore.estimators.estimate import frame_from_rows
from jaxcore.estimators.image_confounding import diagnostics, kept
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.inputs import as_trained
from jaxcore.estimators.image_confounding.maps import Method, check_request, own_maps
from jaxcore.estimators.image_confounding.networks import Fits
from jaxcore.estimators.image_confounding.overlap_report import OverlapReport, overlap_report
from jaxcore.estimators.units import Units


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ImageConfoundingResult(DoubleMLResult):
    """Effect, propensities, networks; further analyses are those of `DoubleMLResult`."""

    images: Images | None = None
    features: Float[np.ndarray, "images f"] | None = None
    feature_names: tuple[str, ...] = ()
    networks: tuple[list[Fits], ...] = ()  # of each repetition, if they were trained
    coords: Float[np.ndarray, "n 2"] | None = None  # longitude and latitude of the units

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Images, their features, and networks; see `kept` for pixels that are not in memory."""
        more, arrays = kept.of_images(self._images)
        networks = {str(r): kept.of_networks(every) for r, every in enumerate(self.networks)}
        return {"images": more, "feature_names": list(self.feature_names)}, {
            "images": arrays,
            "features": self.features,
            "networks": networks,
            "coords": self.coords,
        }

    def with_images(self, images: Any) -> Self:
        """The same fit with its images, where it was saved without them.

        Args:
          images: those of the fit: `data.geo.keyed.KeyedImages`, or an array in their order.

        Raises:
          UserError: other images.
        """
        found = kept.given_again(self._images, images)
        networks = tuple(kept.seeing(every, found.pixels) for every in self.networks)
        return dataclasses.replace(self, images=found, networks=networks)

    @property
    def units(self) -> Units:
        """Weights and clusters of the units: those of trimmed ones count for nothing."""
        kept, own = self.estimate.diagnostics.get("kept"), super().units
        if kept is None:
            return own
        weights: Any = np.asarray(kept, float) * (1.0 if own.weights is None else own.weights)
        return Units(weights, own.clusters).closed_up()

    @property
    def propensity(self) -> Float[np.ndarray, " n"]:
        """Probability of treatment of each unit, by networks that have not seen it, clipped."""
        return np.asarray(self.estimate.diagnostics["ml_m"])

    @property
    def image_rows(self) -> Int[np.ndarray, " n"]:
        """Row of the image of each unit."""
        return self._images.row

    @property
    def pixels(self) -> Rows:
        """The images, by rows."""
        return self._images.pixels

    @property
    def places(self) -> Float[np.ndarray, "n 2"]:
        """Longitude and latitude of the units.

        Raises:
          UserError: the fit had no coordinates.
        """
        if self.coords is None:
            raise UserError("Expected a fit with coordinates, found one without.")
        return self.coords

    @property
    def _images(self) -> Images:
        if self.images is None:
            raise UserError("Expected a fit with its images, found one without.")
        return self.images

    @property
    def trained(self) -> list[Fits]:
        """Networks of the first repetition.

        Raises:
          UserError: none were trained.
        """
        if not (self.networks and self.networks[0]):
            raise UserError("Expected networks that were trained, found features of images.")
        return self.networks[0]

    def overlap(self) -> OverlapReport:
        """Fit, overlap, balance and spatial correlation of the propensities, out of fold.

        Balance is that of covariates and of features of the images, if there are some.
        """
        config: Any = self.config
        d = self.estimate.diagnostics
        names, columns = self._columns()
        residuals = None
        if "ml_g0" in d:
            residuals = self.sample.Y - np.where(self.sample.A > 0.5, d["ml_g1"], d["ml_g0"])
        elif self.coords is not None:
            residuals = self.sample.Y - self.sample.Y.mean()
        return overlap_report(
            self.sample.A,
            np.clip(d["raw"]["ml_m"], 1e-12, 1 - 1e-12),
            weights=weights_of(config),
            X=columns if names else None,
            names=names or None,
            images=None if self.images is None else self.images.row,
            coords=self.coords,
            residuals=residuals,
            clip=config.clip[0],
            trim=config.trim or 0.0,
        )

    def arms(self) -> tuple[Arm, ...]:
        """Units by treatment with the weights of the estimator (first repetition)."""
        a, p = self.sample.A, self.propensity
        config: Any = self.config
        target = {"att": p, "ato": p * (1 - p)}.get(config.estimator)
        return arms_of(self.sample, a, ("A = 0", "A = 1"), np.where(a > 0.5, p, 1 - p), target)

    def balance(self, *, library: str | None = None, frame: bool = False) -> Any:
        """Differences of covariates and features of the images, before weighting and after."""
        names, columns = self._columns()
        rows = differences(columns, names, self.arms())
        return frame_from_rows(rows, library) if frame else rows

    def _columns(self) -> tuple[tuple[str, ...], np.ndarray]:
        names, columns = self.sample.covariates, self.sample.X
        if self.images is not None and self.features is not None and self.features.shape[1]:
            names += self.feature_names
            columns = np.hstack([columns, self.features[self.images.row]])
        return names, columns

    def _auc_in_sample(self) -> float | None:
        """Mean over the folds on the units that trained their network; None without networks."""
        if not (self.networks and self.networks[0]):
            return None
        found = []
        for fits in self.networks[0]:
            masks, a = fits.task.units.masks, jnp.asarray(fits.task.units.target[:, 0])
            for mask, out in zip(masks, fits.outputs, strict=True):
                rows = mask > 0
                found.append(float(diagnostics.auc(a[rows], expit(out[rows, 0]).astype(float))))
        return float(np.mean(found))

    def predict_propensity(self, images: Any, X: Any = None) -> Float[np.ndarray, " n"]:
        """Probability of treatment of other places: log-odds averaged over all networks.

        Args:
          images: one for each unit, in the units of those of the fit.
          X: covariates, one row for each unit, where the fit had some.
        """
        found = []
        for fits in self.trained:
            covariates = as_trained(self.sample, X, len(images))
            rows = np.arange(len(images), dtype=np.int32)
            units = dataclasses.replace(
                fits.task.units, images=images, image=rows, covariates=covariates
            )
            task = dataclasses.replace(fits.task, units=units)
            with jax.enable_x64(False):
                found.append(task.outputs(fits.params, fits.collections)[..., 0])
        return expit(np.concatenate(found).mean(axis=0).astype(np.float64))

    def salience(
        self, units: Any, method: Method = "gradient", **options: Any
    ) -> Float[np.ndarray, "b *t h w c"]:
        """How the log-odds of treatment depend on the pixels of the images of some units.

        Each image is looked at with the network that has not seen it in training.

        Args:
          units: numbers of units, counted from 0 among those in use.
          method: "gradient", "integrated", "smooth" (`salience.gradients` and the like), or
            "occlusion", which has no bands and a place for each window.
          **options: of the method.

        Returns:
          Maps in the order of ``units``; `salience.magnitude` and `salience.direction` draw bands
          together.

        Raises:
          UserError: no network was trained, an unknown method, or units that are not there.
        """
        units, given = check_request(units, self.sample.n, method, options, self.config.seed)
        return self._of_own_network(units, method, given)

    def _of_own_network(
        self, units: np.ndarray, method: str, options: tuple[tuple[str, Any], ...] = ()
    ) -> np.ndarray:
        """Maps of each unit by the network of its fold."""
        fold = np.asarray(self.estimate.diagnostics["fold_ids"])[units]
        return own_maps(self.trained, fold, units, method, options)

    def table_salience(self, units: Any = None) -> dict[str, float]:
        """Mean slope of the log-odds along every covariate, in its own units.

        Args:
          units: numbers of units; None draws one of each of 25 images.
        """
        if units is None:
            rng = np.random.default_rng(self.config.seed)
            first = np.unique(self.image_rows, return_index=True)[1]
            units = rng.choice(first, min(25, len(first)), replace=False)
        units, names = np.atleast_1d(np.asarray(units)), self.sample.covariates
        if not names:
            return {}
        scale = 1e-3 + self.sample.X.std(axis=0, ddof=1)
        slopes = self._of_own_network(units, "table").mean(axis=0)
        return dict(zip(names, (slopes / scale).tolist(), strict=True))

    def details(self) -> list[str]:
        """Propensities out of fold, effective sizes, spatial correlation."""
        found, inside = self.overlap(), self._auc_in_sample()
        told = "" if inside is None else f" ({inside:.3f} in sample)"
        sizes, largest = found.effective_size, found.largest_weight
        lines = [
            f"propensities out of fold: AUC {found.auc:.3f}{told}, log-loss "
            f"{found.cross_entropy:.4g} (constant {found.cross_entropy_constant:.4g})",
            f"effective sizes {sizes['treated']:.0f} treated, {sizes['control']:.0f} others; "
            f"largest weights {100 * largest['treated']:.2g}%, {100 * largest['control']:.2g}%",
        ]
        if found.moran is not None:
            value, p = found.moran["value"], found.moran["p_value"]
            lines.append(f"Moran's I of the weighted residuals {value:.3f} (p = {p:.3f})")
        return lines + super().details()

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return super().to_dict(level) | {"overlap": self.overlap().to_dict()}


def weights_of(config: Any) -> str:
    """Weights of the arms that diagnostics are to use."""
    return config.estimator if config.estimator in ("ato", "att", "difference") else "hajek"
