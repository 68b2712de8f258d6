"""Maps of images by the networks that have not seen them: what is asked for, and one program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding import heterogeneity, salience
from jaxcore.estimators.image_confounding.networks import Fits
from jaxcore.models.regression import RegressionConfig, RegressionNetwork
from jaxcore.train.tasks.image_fits import standardised

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": salience.gradients,
    "integrated": salience.integrated_gradients,
    "smooth": salience.smooth_gradients,
    "occlusion": salience.occlusion,
}
Method: TypeAlias = Literal["gradient", "integrated", "smooth", "occlusion"]
Options: TypeAlias = tuple[tuple[str, Any], ...]


def check_request(
    units: Any, n: int, method: str, options: dict[str, Any], seed: int
) -> tuple[Int[np.ndarray, " u"], Options]:
    """Numbers of units as an array, and the options of a method in an order.

    Raises:
      UserError: an unknown method, or units that are not there.

    >>> check_request(3, 5, "gradient", {}, 0)
    (array([3]), ())
    """
    if method not in METHODS:
        raise UserError(f"Expected a method of {', '.join(METHODS)}, found {method!r}.")
    units = np.atleast_1d(np.asarray(units))
    if units.dtype.kind not in "iu" or np.any((units < 0) | (units >= n)):
        raise UserError(f"Expected numbers of units from 0 to {n - 1}.")
    options = {k: v for k, v in options.items() if k != "key"}
    if method == "smooth":
        options |= {"seed": seed}
    return units, tuple(sorted(options.items()))


def own_maps(
    trained: Sequence[Fits],
    fold: Int[np.ndarray, " u"],
    units: Int[np.ndarray, " u"],
    method: str,
    options: Options = (),
    cluster: Int[np.ndarray, " k"] | None = None,
) -> Float[np.ndarray, "u ..."]:
    """Maps of each unit by the network of its fold; one program for all folds.

    Args:
      trained: networks of a repetition, in the order of the folds.
      fold: of each of these units.
      units: their numbers.
      method: one of `METHODS`, or "table": slopes along covariates.
      options: of the method.
      cluster: whose `heterogeneity.score_of` is looked at, in each fold; None takes the log-odds of
        treatment.
    """
    networks = [(fits, i) for fits in trained for i in range(len(fits.task.numbers))]
    folds, counts = np.unique(fold, return_counts=True)
    out: dict[int, np.ndarray] = {}
    with jax.enable_x64(False):
        for f in folds:
            (fits, number), places = networks[f], np.flatnonzero(fold == f)
            rows = np.resize(units[places], counts.max())
            data, task = fits.task.units, fits.task
            trees = task.of_network(fits.params), fits.collections
            tree = jax.tree.map(lambda leaf, i=number: leaf[i], trees)
            seen = jnp.asarray(data.images[data.image[rows]])
            pixels = standardised(seen, jnp.asarray(data.mean), jnp.asarray(data.sd))
            x = None if data.covariates is None else jnp.asarray(data.covariates[rows])
            which = None if cluster is None else jnp.int32(cluster[f])
            found = _maps(tree, which, pixels, x, task.entry, task.network, method, options)
            out |= dict(zip(places.tolist(), np.asarray(found), strict=False))
    return np.stack([out[i] for i in range(len(units))])


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _maps(
    tree: Any,
    which: Any,
    pixels: Any,
    covariates: Any,
    entry: RegressionNetwork[Any],
    cfg: RegressionConfig,
    method: str,
    options: Options,
) -> Any:
    given = dict(options)
    if "seed" in given:
        given["key"] = jax.random.key(given.pop("seed"))

    def numbers(pixels: Any, covariates: Any) -> Any:
        return entry.apply(entry.join(*tree), pixels, covariates, cfg)

    def membership(pixels: Any, covariates: Any) -> Any:
        logits = heterogeneity.against_first(numbers(pixels, covariates)[:, 1:])
        return heterogeneity.score_of(jax.nn.softmax(logits)[:, which])

    score = membership
    if which is None:
        score = salience.log_odds(lambda pixels, x: numbers(pixels, x)[:, 0])
    of = salience.covariate_gradients if method == "table" else METHODS[method]
    return of(score, pixels, covariates, **given)
