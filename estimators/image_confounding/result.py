"""What `ImageConfounding` returns: the effect, its propensities, and what the networks look at."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from jaxcore.data.geo.bands import standardise_table
from jaxcore.data.geo.keyed import Rows
from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.double_ml.model import Model
from jaxcore.estimators.double_ml.result import DoubleMLResult
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.image_confounding import balance, diagnostics, salience, spatial
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.networks import Fits
from jaxcore.models.regression import RegressionConfig, RegressionNetwork
from jaxcore.train.tasks.propensity import standardised

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": salience.gradients,
    "integrated": salience.integrated_gradients,
    "smooth": salience.smooth_gradients,
    "occlusion": salience.occlusion,
}
Method: TypeAlias = Literal["gradient", "integrated", "smooth", "occlusion"]
_BLIND = 0.55  # area under the curve out of fold below which images tell next to nothing


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ImageConfoundingResult(DoubleMLResult):
    """Effect, propensities, networks; further analyses are those of `DoubleMLResult`."""

    images: Images | None = None
    features: Float[np.ndarray, "images f"] | None = None
    networks: tuple[list[Fits], ...] = ()  # of each repetition, if they were trained
    coords: Float[np.ndarray, "n 2"] | None = None  # longitude and latitude of the units

    @property
    def propensity(self) -> Float[np.ndarray, " n"]:
        """Probability of treatment of each unit, by networks that have not seen it, clipped."""
        return np.asarray(self.estimate.diagnostics["ml_m"])

    @property
    def rows(self) -> Int[np.ndarray, " n"]:
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
            raise UserError("Expected a fit with its images, found one that was loaded: fit again.")
        return self.images

    @property
    def trained(self) -> list[Fits]:
        """Networks of the first repetition.

        Raises:
          UserError: none were trained.
        """
        if not (self.networks and self.networks[0]):
            raise UserError("Expected networks that were trained, found features or a loaded fit.")
        return self.networks[0]

    def quality(self) -> dict[str, float]:
        """How well the propensities fit, out of fold, and how few units their weights rest on."""
        a, e, name = self.sample.A, self.propensity, weights_of(self.config)
        base = np.full_like(e, a.mean())
        sizes = diagnostics.effective_sizes(name, a, e)
        largest = diagnostics.largest_weights(name, a, e)
        return {
            "auc": float(diagnostics.auc(a, e)),
            "auprc": float(diagnostics.auprc(a, e)),
            "cross_entropy": float(diagnostics.cross_entropy(a, e)),
            "cross_entropy_constant": float(diagnostics.cross_entropy(a, base)),
            "class_error": float(diagnostics.class_error(a, e)),
            "class_error_constant": float(min(a.mean(), 1 - a.mean())),
            "brier": float(diagnostics.brier(a, e)),
            "effective_size_treated": float(sizes.treated),
            "effective_size_control": float(sizes.control),
            "largest_weight_treated": float(largest.treated),
            "largest_weight_control": float(largest.control),
            "clipped": float(self.estimate.diagnostics["n_clipped"]),
        } | self._in_sample()

    def _in_sample(self) -> dict[str, float]:
        if not (self.networks and self.networks[0]):
            return {}
        found = []
        for fits in self.networks[0]:
            masks, a = fits.task.units.masks, fits.task.units.target[:, 0]
            for mask, out in zip(masks, fits.outputs, strict=True):
                rows = mask > 0
                found.append(float(diagnostics.auc(a[rows], expit(out[rows, 0]).astype(float))))
        return {"auc_in_sample": float(np.mean(found))}

    def balance(self) -> dict[str, tuple[float, float]]:
        """Standardised mean differences of columns, before weighting and after.

        Columns are the covariates and the features of the images.

        Beyond 0.1 a column is commonly called unbalanced.
        """
        names, columns = list(self.sample.covariates), self.sample.X
        if self.images is not None and self.features is not None and self.features.shape[1]:
            names += [f"image feature {j + 1}" for j in range(self.features.shape[1])]
            columns = np.hstack([columns, self.features[self.images.row]])
        if not names:
            return {}
        with np.errstate(all="ignore"):
            name = weights_of(self.config)
            found = balance.standardised_differences(name, self.sample.A, self.propensity, columns)
        pairs = zip(found.before, found.after, strict=True)
        return {name: (float(b), float(a)) for name, (b, a) in zip(names, pairs, strict=True)}

    def predict_propensity(self, images: Any, X: Any = None) -> Float[np.ndarray, " n"]:
        """Probability of treatment of other places: log-odds averaged over all networks.

        Args:
          images: one for each unit, in the units of those of the fit.
          X: covariates, one row for each unit, where the fit had some.
        """
        found = []
        for fits in self.trained:
            covariates = None if X is None else self._as_trained(np.asarray(X, float))
            rows = np.arange(len(images), dtype=np.int32)
            units = dataclasses.replace(
                fits.task.units, images=images, image=rows, covariates=covariates
            )
            task = dataclasses.replace(fits.task, units=units)
            with jax.enable_x64(False):
                found.append(task.outputs(fits.params, fits.collections)[..., 0])
        return expit(np.concatenate(found).mean(axis=0).astype(np.float64))

    def _as_trained(self, X: np.ndarray) -> np.ndarray:
        own = self.sample.X
        if X.ndim != 2 or X.shape[1] != own.shape[1]:
            raise UserError(f"Expected {own.shape[1]} covariates, found {X.shape}.")
        return standardise_table(X, own).astype(np.float32)

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
        if method not in METHODS:
            raise UserError(f"Expected a method of {', '.join(METHODS)}, found {method!r}.")
        units = np.atleast_1d(np.asarray(units))
        if units.dtype.kind not in "iu" or np.any((units < 0) | (units >= self.sample.n)):
            raise UserError(f"Expected numbers of units from 0 to {self.sample.n - 1}.")
        options = {k: v for k, v in options.items() if k != "key"} | (
            {"seed": self.config.seed} if method == "smooth" else {}
        )
        return self._of_own_network(units, method, tuple(sorted(options.items())))

    def _of_own_network(
        self, units: np.ndarray, method: str, options: tuple[tuple[str, Any], ...] = ()
    ) -> np.ndarray:
        """Maps of each unit by the network of its fold; one program for all folds."""
        fold = np.asarray(self.estimate.diagnostics["fold_ids"])[units]
        networks = [(fits, i) for fits in self.trained for i in range(len(fits.task.numbers))]
        folds, counts = np.unique(fold, return_counts=True)
        out: dict[int, np.ndarray] = {}
        with jax.enable_x64(False):
            for f in folds:
                (fits, number), places = networks[f], np.flatnonzero(fold == f)
                rows = np.resize(units[places], counts.max())
                data, task = fits.task.units, fits.task
                tree = jax.tree.map(lambda leaf, i=number: leaf[i], (fits.params, fits.collections))
                pixels = standardised(np.asarray(data.images[data.image[rows]]), data.mean, data.sd)
                x = None if data.covariates is None else jnp.asarray(data.covariates[rows])
                found = _maps(tree, pixels, x, task.entry, task.network, method, options)
                out |= dict(zip(places.tolist(), np.asarray(found), strict=False))
        return np.stack([out[i] for i in range(len(units))])

    def table_salience(self, units: Any = None) -> dict[str, float]:
        """Mean slope of the log-odds along every covariate, in its own units.

        Args:
          units: numbers of units; None draws one of each of 25 images.
        """
        if units is None:
            rng = np.random.default_rng(self.config.seed)
            first = np.unique(self.rows, return_index=True)[1]
            units = rng.choice(first, min(25, len(first)), replace=False)
        units, names = np.atleast_1d(np.asarray(units)), self.sample.covariates
        if not names:
            return {}
        scale = 1e-3 + self.sample.X.std(axis=0, ddof=1)
        slopes = self._of_own_network(units, "table").mean(axis=0)
        return dict(zip(names, (slopes / scale).tolist(), strict=True))

    def moran(self, *, neighbours: int = 8) -> spatial.Moran:
        """Moran's I of the influence values, averaged within images: what weighting has left over.

        Raises:
          UserError: the fit had no coordinates.
        """
        values, first = spatial.means_by_image(self.psi, self.rows)
        return spatial.moran(values, self.places[first], neighbours=neighbours)

    def details(self) -> list[str]:
        """Propensities out of fold, effective sizes, spatial correlation."""
        q = self.quality()
        inside = f" ({q['auc_in_sample']:.3f} in sample)" if "auc_in_sample" in q else ""
        lines = [
            f"propensities out of fold: AUC {q['auc']:.3f}{inside}, log-loss "
            f"{q['cross_entropy']:.4g} (constant {q['cross_entropy_constant']:.4g})",
            f"effective sizes {q['effective_size_treated']:.0f} treated, "
            f"{q['effective_size_control']:.0f} others; largest weights "
            f"{100 * q['largest_weight_treated']:.2g}%, {100 * q['largest_weight_control']:.2g}%",
        ]
        if self.coords is not None:
            moran = self.moran()
            lines.append(f"Moran's I of the residuals {moran.value:.3f} (p = {moran.p_value:.3f})")
        return lines + super().details()

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        more = {"quality": self.quality(), "balance": self.balance()}
        return super().to_dict(level) | more


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _maps(
    tree: Any,
    pixels: Any,
    covariates: Any,
    entry: RegressionNetwork[Any],
    cfg: RegressionConfig,
    method: str,
    options: tuple[tuple[str, Any], ...],
) -> Any:
    given = dict(options)
    if "seed" in given:
        given["key"] = jax.random.key(given.pop("seed"))

    def logit(pixels: Any, covariates: Any) -> Any:
        return entry.apply(entry.join(*tree), pixels, covariates, cfg)[:, 0]

    of = salience.covariate_gradients if method == "table" else METHODS[method]
    return of(salience.log_odds(logit), pixels, covariates, **given)


def weights_of(config: Any) -> str:
    """Weights of the arms that diagnostics are to use."""
    return config.estimator if config.estimator in ("ato", "att", "difference") else "hajek"


def told(model: Model, sample: Sample, estimate: Estimate) -> list[str]:
    """What the user must know of propensities from images before the effect is used."""
    d, out = estimate.diagnostics, []
    if "kept" in d:
        kept = np.asarray(d["kept"])
        if not kept.all():
            out.append(f"trimmed {int(np.sum(~kept))} of {sample.n} units for lack of overlap")
    found = float(diagnostics.auc(sample.A, np.asarray(d["raw"]["ml_m"])))
    if found < _BLIND:
        out.append(
            "propensities tell treated from others hardly better than chance out of fold (AUC "
            f"{found:.2f}): either nothing that is seen drives the treatment, or the network has "
            "not found it; weights then adjust for nothing, however good their overlap looks"
        )
    return out
