"""What `ImageHeterogeneity` returns: clusters of images, their effects, and evidence for them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError
from jaxcore.estimators import saved
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.image_confounding import kept
from jaxcore.estimators.image_confounding.cluster_task import CLUSTERS
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.inputs import as_trained
from jaxcore.estimators.image_confounding.maps import Method, check_request, own_maps
from jaxcore.estimators.image_confounding.networks import Fits
from jaxcore.estimators.image_confounding.weighting import columns_of, effect
from jaxcore.estimators.projection import group_effects
from jaxcore.estimators.units import Units

_UNEVEN = 3.0  # t of treatment less propensity in a group, above which a notice tells it


@dataclasses.dataclass(frozen=True, eq=False)
class Repetition:
    """Networks of one partition; clusters of each in the order of their effects there."""

    networks: tuple[Fits, ...]
    fold_ids: Int[np.ndarray, " n"]
    order: Int[np.ndarray, "k c"]  # cluster of the network that stands at each place
    means: Float[np.ndarray, "k c"]  # effects, in standard deviations of the outcome
    outputs: Float[np.ndarray, "k n c"]  # of the networks, as they are

    @classmethod
    def of(cls, networks: Sequence[Fits], fold_ids: Int[np.ndarray, " n"]) -> "Repetition":
        """From what was trained."""
        means = np.concatenate([fits.params[CLUSTERS]["mean"] for fits in networks])
        order = np.argsort(means, axis=1, kind="stable")
        outputs = np.concatenate([fits.outputs for fits in networks]).astype(np.float64)
        means = np.take_along_axis(means.astype(np.float64), order, axis=1)
        return cls(tuple(networks), fold_ids, order, means, outputs)

    def probabilities(self, outputs: Float[np.ndarray, "k m c"]) -> Float[np.ndarray, "k m c"]:
        """Of the clusters, from outputs of these networks."""
        logits = np.concatenate([np.zeros_like(outputs[..., :1]), outputs[..., 1:]], axis=-1)
        return np.take_along_axis(softmax(logits, axis=-1), self.order[:, None], axis=-1)

    def own(self, every: Float[np.ndarray, "k n *c"]) -> Float[np.ndarray, "n *c"]:
        """What the network says of each unit that has not seen it."""
        return every[self.fold_ids, np.arange(len(self.fold_ids))]


class Transported(NamedTuple):
    """What the networks say of images of other places, on average and how far they differ."""

    probabilities: Float[np.ndarray, "m c"]  # of the clusters
    variances: Float[np.ndarray, "m c"]  # of these, between networks
    effects: Float[np.ndarray, " m"]  # expected effect, in units of the outcome
    deviations: Float[np.ndarray, " m"]  # of it, between networks

    @property
    def shares(self) -> Float[np.ndarray, " c"]:
        """Mean probability of each cluster."""
        return self.probabilities.mean(axis=0)

    @property
    def spread(self) -> Float[np.ndarray, " c"]:
        """Variance of the probability of each cluster between places."""
        return self.probabilities.var(axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageHeterogeneityResult:
    """Clusters, from that of the lowest effect on, and their effects in units of the outcome."""

    config: Any
    sample: Sample
    images: Images
    propensity: Float[np.ndarray, " n"]
    repetitions: tuple[Repetition, ...]
    cluster_probs: Float[np.ndarray, "n c"]  # of the image of each unit, out of fold
    cate: Float[np.ndarray, " n"]  # expected effect on each unit, out of fold
    effects: Float[np.ndarray, " c"]  # learned, mean over all networks
    effects_sd: Float[np.ndarray, " c"]  # standard deviation between networks
    ate: Estimate  # by augmented inverse propensity weights
    groups: Estimate  # the same among the units of each most probable cluster
    difference: Estimate | None  # of the last and the first of these; None with one group
    notices: tuple[str, ...]
    coords: Float[np.ndarray, "n 2"] | None = None  # longitude and latitude of the units

    @classmethod
    def build(
        cls,
        config: Any,
        sample: Sample,
        images: Images,
        e: Float[np.ndarray, " n"],
        repetitions: tuple[Repetition, ...],
        notices: tuple[str, ...],
    ) -> "ImageHeterogeneityResult":
        """Average over the repetitions, and estimate effects of groups."""
        scale = sample.Y.std()
        probs, cates, untreated = [], [], []
        for one in repetitions:
            every = one.probabilities(one.outputs)
            probs.append(one.own(every))
            cates.append(one.own(np.einsum("knc,kc->kn", every, one.means)))
            untreated.append(one.own(one.outputs[..., 0]))
        probabilities, cate = np.mean(probs, axis=0), scale * np.mean(cates, axis=0)
        m0 = sample.Y.mean() + scale * np.mean(untreated, axis=0)
        means = scale * np.concatenate([one.means for one in repetitions])
        ate, groups, difference, words = _evidence(sample, e, m0, cate, probabilities)
        return cls(
            config=config,
            sample=sample,
            images=images,
            propensity=e,
            repetitions=repetitions,
            cluster_probs=probabilities,
            cate=cate,
            effects=means.mean(axis=0),
            effects_sd=means.std(axis=0, ddof=1),
            ate=ate,
            groups=groups,
            difference=difference,
            notices=(*notices, *(text for text in words if text not in notices)),
        )

    @property
    def implied_ate(self) -> float:
        """Mean of the expected effects, which the clusters imply."""
        return float(self.cate.mean())

    @property
    def shares(self) -> Float[np.ndarray, " c"]:
        """Mean probability of each cluster over the units."""
        return self.cluster_probs.mean(axis=0)

    def save(self, path: str | Path) -> None:
        """Write everything into a new folder, from which `load` restores the fit.

        Pixels are saved where they are an array in memory; see `with_images`.

        Raises:
          UserError: the folder exists, the disk is full or may not be written.
        """
        more, arrays = kept.of_images(self.images)
        parts = {str(r): one for r, one in enumerate(self.repetitions)}
        saved.save_fit(
            path,
            _Whole(self.config, self.sample, (self.ate,), self.notices),
            {"images": more},
            {
                "images": arrays,
                "coords": self.coords,
                "propensity": self.propensity,
                "fold_ids": {r: one.fold_ids for r, one in parts.items()},
                "networks": {r: kept.of_networks(one.networks) for r, one in parts.items()},
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> "ImageHeterogeneityResult":
        """Restore a fit that `save` wrote.

        Raises:
          UserError: no such folder, another kind of folder, or damaged files.
        """
        return saved.load_result(cls, path)

    def with_images(self, images: Any) -> "ImageHeterogeneityResult":
        """The same fit with its images, where it was saved without them.

        Args:
          images: those of the fit: `KeyedImages`, or an array in their order.

        Raises:
          UserError: other images.
        """
        found = kept.given_again(self.images, images)
        repetitions = tuple(
            dataclasses.replace(one, networks=tuple(kept.seeing(one.networks, found.pixels)))
            for one in self.repetitions
        )
        return dataclasses.replace(self, images=found, repetitions=repetitions)

    def transport(self, images: Any, X: Any = None) -> Transported:
        """Clusters of other places, by all networks.

        Effects are those of the experiment: they hold there if what the images show of a place is
        all that its effect depends on.

        Args:
          images: `KeyedImages` or an array, in the units, size and bands of those of the fit.
          X: covariates, one row for each image, where the fit had some.

        Raises:
          UserError: images of another shape, or with missing pixels; other covariates.
        """
        pixels = images.images if isinstance(images, KeyedImages) else images
        shape, wanted = np.shape(pixels), tuple(self.images.pixels.shape[1:])
        if len(shape) != len(wanted) + 1 or tuple(shape[1:]) != wanted or not shape[0]:
            sizes = ", ".join(map(str, wanted))
            raise UserError(f"Expected images of shape (n, {sizes}), as in the fit, found {shape}.")
        pixels = pixels if hasattr(pixels, "shape") else np.asarray(pixels)
        columns = as_trained(self.sample, X, shape[0])
        probabilities, effects = [], []
        for one in self.repetitions:
            found = one.probabilities(_asked(one.networks, pixels, columns))
            probabilities.append(found)
            effects.append(np.einsum("kmc,kc->km", found, one.means))
        every, each = np.concatenate(probabilities), np.concatenate(effects)
        each = self.sample.Y.std() * each
        return Transported(
            every.mean(axis=0), every.var(axis=0, ddof=1), each.mean(axis=0), each.std(0, ddof=1)
        )

    def salience(
        self, units: Any, method: Method = "gradient", *, cluster: int = 0, **options: Any
    ) -> Float[np.ndarray, "b *t h w c"]:
        """How the log-probability of a cluster depends on the pixels of the images of some units.

        Each image is looked at with the network of the first repetition that has not seen it.

        Args:
          units: numbers of units, counted from 0 among those in use.
          method: as in `ImageConfoundingResult.salience`.
          cluster: counted from 0, that of the lowest effect.
          **options: of the method.

        Raises:
          UserError: an unknown method, units or a cluster that are not there.
        """
        units, given = check_request(units, self.sample.n, method, options, self.config.seed)
        if not 0 <= cluster < len(self.effects):
            raise UserError(
                f"Expected a cluster from 0 to {len(self.effects) - 1}, found {cluster}."
            )
        one = self.repetitions[0]
        fold = one.fold_ids[units]
        return own_maps(one.networks, fold, units, method, given, one.order[:, cluster])

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """A row for each cluster: what was learned, and the estimate among its units."""
        found = {row["name"]: row for row in self.groups.rows(level)}
        hard = np.argmax(self.cluster_probs, axis=1)
        rows = []
        for c, name in enumerate(_names(len(self.effects))):
            group = found.get(name, {})
            rows.append(
                {
                    "cluster": name,
                    "share": float(self.shares[c]),
                    "learned": float(self.effects[c]),
                    "sd_between_networks": float(self.effects_sd[c]),
                    "units": int(np.sum(hard == c)),
                    **{f"group_{k}": v for k, v in group.items() if k != "name"},
                }
            )
        return rows

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return {
            "clusters": self.rows(level),
            "average": self.ate.rows(level)[0],
            "difference": None if self.difference is None else self.difference.rows(level)[0],
            "implied_average": self.implied_ate,
            "level": level,
            "n": self.sample.n,
            "covariates": list(self.sample.covariates),
            "notices": list(self.notices),
        }

    def summary(self, level: float = 0.95) -> str:
        """Effects that were learned, those of groups with intervals, and notices, as text."""
        lines = [f"{len(self.effects)} clusters of images, by effect"]
        for c, name in enumerate(_names(len(self.effects))):
            lines.append(
                f"  {name}: share {self.shares[c]:.3f}, learned effect {self.effects[c]:.4g} "
                f"(sd between networks {self.effects_sd[c]:.2g})"
            )
        lines += [f"implied average effect {self.implied_ate:.4g}", ""]
        lines += [self.ate.summary(level), self.groups.summary(level)]
        if self.difference is not None:
            lines.append(self.difference.summary(level))
        return "\n".join([*lines, *self.notices])


class _Whole(NamedTuple):
    """What `saved.save_fit` asks for."""

    config: Any
    sample: Sample
    repetitions: tuple[Estimate, ...]
    notices: tuple[str, ...]


def _asked(
    networks: Sequence[Fits], pixels: Any, covariates: Float[np.ndarray, "m p"] | None
) -> Float[np.ndarray, "k m c"]:
    """Outputs of networks for other images."""
    found = []
    with jax.enable_x64(False):
        for fits in networks:
            image = np.arange(len(pixels), dtype=np.int32)
            units = dataclasses.replace(
                fits.task.units, images=pixels, image=image, covariates=covariates
            )
            task = dataclasses.replace(fits.task, units=units)
            found.append(task.outputs(fits.params, fits.collections))
    outputs = np.concatenate(found).astype(np.float64)
    if not np.all(np.isfinite(outputs)):
        raise UserError(
            "Expected finite pixels, found missing or infinite ones: fill or leave out."
        )
    return outputs


def _uneven(more: Estimate) -> list[str]:
    """A notice if a group has more or fewer treated units than a lottery gives it.

    Args:
      more: mean of treatment less propensity, in each group.
    """
    theta, se = np.asarray(more.theta), np.asarray(more.se)
    t = np.divide(theta, se, out=np.zeros_like(theta), where=se > 0)
    worst = int(np.argmax(np.abs(t)))
    if abs(t[worst]) < _UNEVEN:
        return []
    points, which = 100 * abs(theta[worst]), "more" if theta[worst] > 0 else "less"
    return [
        f"treatment is {points:.3g} points {which} frequent in {more.names[worst]} than its "
        f"propensities say (t = {t[worst]:.1f}): it was not drawn by lot alike everywhere, and "
        "effects are confounded; give the right propensities, or adjust for the images "
        "(ImageConfounding)"
    ]


def _names(clusters: int) -> list[str]:
    return [f"cluster {c + 1}" for c in range(clusters)]


def _evidence(
    sample: Sample,
    e: Any,
    m0: Any,
    cate: Any,
    probabilities: Float[np.ndarray, "n c"],
) -> tuple[Estimate, Estimate, Estimate | None, list[str]]:
    """Effects of all and of groups, of the last group less the first, and notices."""
    y: Any = sample.Y
    a: Any = sample.A
    units, m1 = sample.units(), m0 + cate
    title = "average effect (AIPW)"
    ate = effect("aipw", y, a, e, m0, m1, units, names=("ATE",), estimator=title)
    with jax.enable_x64(True):
        u = np.asarray(columns_of("aipw", y, a, e, m0, m1))[:, 0]
    names, hard = np.array(_names(probabilities.shape[1])), np.argmax(probabilities, axis=1)
    count = np.bincount(hard, minlength=len(names))
    words = [
        f"{name} is the most probable one of {size} units: no effect is estimated there"
        for name, size in zip(names, count, strict=True)
        if size < 2
    ]
    kept = count[hard] >= 2
    clusters: Any = None if units.clusters is None else np.asarray(units.clusters)[kept]
    if clusters is not None and not kept.all():
        clusters = np.unique(clusters, return_inverse=True)[1]
    groups = group_effects(u[kept], names[hard[kept]], Units(None, clusters))
    words += _uneven(group_effects((a - e)[kept], names[hard[kept]], Units(None, clusters)))
    difference = None
    if len(groups.names) > 1:
        with jax.enable_x64(True):
            theta, psi = np.asarray(groups.theta), np.asarray(groups.psi)
            between: Any = theta[-1:] - theta[:1]
            rows: Any = psi[:, -1:] - psi[:, :1]
            difference = Estimate.from_psi(
                between,
                rows,
                Units(None, clusters),
                names=(f"{groups.names[-1]} less {groups.names[0]}",),
                estimator="difference of groups",
            )
    return ate, groups, difference, words
