"""Name -> network, task, estimator; imported on first use.

Networks of your own join those of this library:

>>> from jaxcore.models import adair, base
>>> mine = base.ImageNetwork(
...     name="mine",
...     package="my_package",
...     config_class=adair.AdaIRConfig,
...     draw=adair.NETWORK.draw,
...     apply=adair.apply,
...     channels=lambda cfg: cfg.in_channels,
...     multiple=lambda cfg: 8,
...     tiny=adair.AdaIRConfig.tiny,
... )
>>> register(mine)
>>> network("mine").restores(adair.AdaIRConfig.tiny())
True
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.estimators.did import DID
    from jaxcore.estimators.frames import FitsFrames
    from jaxcore.models.base import Network

# Each of these modules has its network under the name NETWORK.
_NETWORKS = {
    "adair": "jaxcore.models.adair",
    "clip": "jaxcore.models.clip",
    "cnn2023": "jaxcore.models.convnet.cnn2023",
    "convnet": "jaxcore.models.convnet",
    "dea_net": "jaxcore.models.dea_net",
    "llama": "jaxcore.models.llama",
    "llava": "jaxcore.models.llava",
    "qwen2_vl": "jaxcore.models.qwen2_vl",
    "rddm": "jaxcore.models.rddm",
    "sunet": "jaxcore.models.sunet",
    "vit": "jaxcore.models.vit",
}
_registered: "dict[str, Network[Any]]" = {}
_TASKS = {
    "colour_questions": ("jaxcore.train.tasks.colour_questions", "ColourQuestionsTask"),
    "deconvolution": ("jaxcore.train.tasks.deconvolution", "DeconvolutionTask"),
    "diffusion": ("jaxcore.train.tasks.diffusion", "DiffusionTask"),
    "image_clusters": ("jaxcore.estimators.image_confounding.cluster_task", "ClusterTask"),
    "lm": ("jaxcore.train.tasks.lm", "LanguageTask"),
    "lm_dpo": ("jaxcore.train.tasks.preference", "PreferenceTask"),
    "lm_grpo": ("jaxcore.train.tasks.policy_gradient", "PolicyGradientTask"),
    "lm_ipw": ("jaxcore.train.tasks.off_policy", "OffPolicyTask"),
    "lm_reward": ("jaxcore.train.tasks.reward", "RewardTask"),
    "monte_carlo": ("jaxcore.estimators.studies", "MonteCarloTask"),
    "propensity": ("jaxcore.train.tasks.propensity", "PropensityTask"),
    "restoration": ("jaxcore.train.tasks.restoration", "RestorationTask"),
}
# Module and class, and what ``jaxcore estimate --help`` says of it.
_ESTIMATORS = {
    "apos": (
        "jaxcore.estimators.several",
        "APOS",
        "Mean outcomes under each of several treatment levels, and their differences.",
    ),
    "deconfound": (
        "jaxcore.estimators.deconfound",
        "Deconfound",
        "Rewards of texts: outcomes without what recorded confounders did to them.",
    ),
    "did": (
        "jaxcore.estimators.did",
        "DID",
        "Difference in differences: effects on the treated, from changes over time.",
    ),
    "image-confounding": (
        "jaxcore.estimators.image_confounding",
        "ImageConfounding",
        "Effect of a treatment whose confounders show in images of the places.",
    ),
    "image-heterogeneity": (
        "jaxcore.estimators.image_confounding",
        "ImageHeterogeneity",
        "Effects that differ between kinds of places, told from their images.",
    ),
    "iivm": (
        "jaxcore.estimators.double_ml",
        "IIVM",
        "Effect among compliers (LATE) with a valid instrument of two levels.",
    ),
    "irm": (
        "jaxcore.estimators.double_ml",
        "IRM",
        "Average effect of a treatment of two levels, all confounders measured (AIPW).",
    ),
    "lqte": (
        "jaxcore.estimators.several",
        "LQTE",
        "Effects on quantiles among compliers, with a valid instrument of two levels.",
    ),
    "pliv": (
        "jaxcore.estimators.double_ml",
        "PLIV",
        "Constant effect in a partially linear regression with a valid instrument.",
    ),
    "plr": (
        "jaxcore.estimators.double_ml",
        "PLR",
        "Constant effect in a partially linear regression, all confounders measured.",
    ),
    "qte": (
        "jaxcore.estimators.several",
        "QTE",
        "Effects of a treatment of two levels on quantiles, all confounders measured.",
    ),
    "selective-iv": (
        "jaxcore.estimators.selective_iv",
        "SelectiveIV",
        "Average treatment effect with an instrument that may act on the outcome itself.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An estimator the command line can reach by name."""

    name: str
    config_class: "type[FitsFrames[Any]] | type[DID]"  # frozen settings that fit
    module: ModuleType


def _resolve(table: Mapping[str, tuple[str, ...]], kind: str, name: str) -> tuple[ModuleType, Any]:
    if name not in table:
        raise UserError(f"Unknown {kind} {name!r}: expected one of {', '.join(sorted(table))}.")
    module_name, attribute = table[name][:2]
    module = importlib.import_module(module_name)
    return module, getattr(module, attribute)


def networks() -> tuple[str, ...]:
    """Names of all networks."""
    return tuple(sorted(_NETWORKS | _registered))


def network(name: str) -> "Network[Any]":
    """Look a network up.

    Raises:
      UserError: the name is unknown.

    >>> network("adair").config_class.__name__
    'AdaIRConfig'
    """
    if name in _registered:
        return _registered[name]
    if name not in _NETWORKS:
        raise UserError(f"Unknown network {name!r}: expected one of {', '.join(networks())}.")
    return importlib.import_module(_NETWORKS[name]).NETWORK


def register(network: "Network[Any]") -> None:
    """Let commands, trainings and loaders of this process find a network by its name.

    Args:
      network: of whatever package; its configuration class is stored by this name in runs and
        weight files, so whoever reads them must have registered it too.

    Raises:
      UserError: the name belongs to another network.
    """
    if network.name in _NETWORKS or _registered.get(network.name, network) is not network:
        raise UserError(f"Expected a new name for a network, found {network.name!r}, a known one.")
    _registered[network.name] = network


def registered() -> "tuple[Network[Any], ...]":
    """Networks that joined those of this library."""
    return tuple(_registered.values())


def has_task(name: str) -> bool:
    """Whether a training task of the library has the name."""
    return name in _TASKS


def task_class(name: str) -> type[Any]:
    """Look the class of a training task up by name.

    Raises:
      UserError: the name is unknown.
    """
    return _resolve(_TASKS, "task", name)[1]


def task_of(name: str) -> type[Any]:
    """The class of the task that trains and evaluates a network.

    >>> task_of("adair").name
    'restoration'
    """
    return task_class(network(name).task)


def estimators() -> dict[str, str]:
    """Names of all estimators, with a sentence on each."""
    return {name: sentence for name, (_, _, sentence) in sorted(_ESTIMATORS.items())}


def estimator(name: str) -> Estimator:
    """Look an estimator up.

    Raises:
      UserError: the name is unknown.

    >>> estimator("selective-iv").config_class.__name__
    'SelectiveIV'
    """
    module, config_class = _resolve(_ESTIMATORS, "estimator", name)
    return Estimator(name, config_class, module)


def estimator_of(config_class: type[Any]) -> str:
    """The name of the estimator with these settings.

    >>> estimator_of(estimator("plr").config_class)
    'plr'
    """
    known = {attribute: name for name, (_, attribute, _) in _ESTIMATORS.items()}
    if config_class.__name__ not in known:
        raise UserError(f"Expected settings of an estimator, found {config_class.__name__}.")
    return known[config_class.__name__]
