"""Settings of `ImageConfounding`, checked when they are made."""

import dataclasses
from typing import Literal

from jaxcore.errors import UserError
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.model import Model
from jaxcore.estimators.image_confounding.networks import Training
from jaxcore.estimators.image_confounding.weighting import AUGMENTED, ESTIMATORS
from jaxcore.estimators.nuisance.candidates import Candidate
from jaxcore.estimators.settings import CrossFitting
from jaxcore.models.regression import RegressionConfig

NETWORKS = ("vit", "cnn", "cnn2023")
FEATURES = ("band_stats", "rcf", "embeddings")
BACKBONES = (*NETWORKS, *FEATURES, "none")
"""Networks that are trained, features that are not, and no look at the images.

"band_stats" are means, deviations and quantiles of bands, "rcf" random convolutional features, and
"embeddings" what is given instead of images: an array (N, d) of whatever encoder."""

_ERRORS = ("cluster", "iid", "bootstrap")
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
class ImageSettings(CrossFitting):
    """What is seen of images, how propensities become an effect, and how networks are trained."""

    backbone: str | RegressionConfig = "vit"  # one of `BACKBONES`, or a network's configuration
    estimator: str = "aipw"  # one of `weighting.ESTIMATORS`
    # Of the outcome, for doubly robust estimators: a learner (see `PLR`) on covariates and features
    # of the images, or "network": one network for treatment and outcome.
    outcome_model: Candidate | Literal["network"] = "ridge"
    rcf_features: int = 256
    ml_m: Candidate = "lasso"  # of the treatment, on features of images that are not trained
    # Rescale the log-odds of a network by a logistic regression on the units that it has not seen:
    # networks trained for too long are too sure of themselves.
    calibrate: bool = True
    clip: tuple[float, float] = (1e-3, 1 - 1e-3)
    trim: float | None = None  # leave out units with propensities outside (trim, 1 - trim)
    # "bootstrap" draws images (or other clusters) whole, with the networks as they are
    se: Literal["cluster", "iid", "bootstrap"] = "cluster"
    n_boot: int = 1000  # replicates of "bootstrap"
    block_km: float | None = None  # clusters and folds of squares of this size, not of images
    # "causalimages": Hajek's estimate in each fold, their mean and the error of the published
    # package, for comparison with its output; see `compat`
    compat: Literal["causalimages"] | None = None
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
        if self.se not in _ERRORS:
            raise UserError(f"Expected se of {', '.join(_ERRORS)}, found {self.se!r}.")
        if not isinstance(self.n_boot, int) or self.n_boot < 2:
            raise UserError(f"Expected n_boot of at least 2, found {self.n_boot!r}.")
        if self.compat not in (None, "causalimages"):
            raise UserError(f"Expected compat of None or 'causalimages', found {self.compat!r}.")
        if self.compat and (self.estimator != "hajek" or self.trim or self.se == "bootstrap"):
            raise UserError(
                "Expected estimator='hajek' without trimming and bootstrap for "
                "compat='causalimages', found others."
            )
        if self.training.targeting and not self.joint:
            raise UserError(
                "Expected outcome_model='network' for targeted regularisation, found "
                f"{self.outcome_model!r}."
            )
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
        return self.se != "iid" and self.compat is None

    @property
    def model(self) -> Model:
        """What is estimated, for tables."""
        if self.estimator == "aipw":
            return models.IRM
        nuisances = models.IRM.nuisances
        if self.estimator not in AUGMENTED:
            nuisances = {"ml_m": nuisances["ml_m"]}
        title = _TITLES[self.estimator]
        return dataclasses.replace(
            models.IRM,
            title=f"{title}, mean over folds as causalimages" if self.compat else title,
            effect=_TARGETS.get(self.estimator, "ATE"),
            nuisances=nuisances,
            signal=False,
        )
