"""Steps in a row as one compiled function: a classical method or a network, then debiasing."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.debias import debias as debiasing
from jaxcore.models.deconvolution.fields import Restorer
from jaxcore.models.deconvolution.methods import METHODS
from jaxcore.models.deconvolution.psf import gaussian_psf
from jaxcore.models.deconvolution.two_channel import TwoChannels, deconvolve_two_channels
from jaxcore.models.deconvolution.uncertainty import mean_and_spread
from jaxcore.ops.grids import factor_between, rebin, replicate
from jaxcore.ops.spectra import convolve, image, power, psf_to_tf, spectrum, times
from jaxcore.ops.starlet import Starlet

DEFAULT = "sparse"
"""Of the methods without a trained network, the one with the least error on simulated galaxies:
README.md beside this file has the table."""
FWHM = 2.0
"""Full width at half maximum of the PSF of the result, in its pixels."""
SURE: Mapping[str, Any] = {"background": True, "k": 3.0, "k_first": 4.0}
"""Options of the sparse methods: nothing that noise alone makes, whatever it costs in flux; step 3
gives that back."""
_CLOSE = 1e-6  # share of the target's transfer function below which nothing is divided by it


def chain(
    method: str = DEFAULT,
    *,
    target: float | None = FWHM,
    network: Callable[[Array], Array] | None = None,
    debias: bool = False,
    details: bool = False,
    dictionary: Starlet = Starlet(4),
) -> Restorer:
    """A function of images in units of their noise, PSFs, weights and regularisation.

    Args:
      method: step 1, a name of `METHODS`.
      target: full width at half maximum of the Gaussian that is the PSF of the result; None for
        none, which rings.
      network: step 2, images -> images of the same grid, or those of several networks in a new
        first axis: step 3 is done for each, and the result is their mean.
      debias: step 3.
      details: give every step by its name, such as ``tikhonov``, ``sunet`` and ``debias``, and
        ``active``, the number of active coefficients of every pixel.
      dictionary: wavelet transform of step 3.

    Returns:
      A compiled function for `restore_field`; it gives ``image`` and ``residual``, the observation
      less the blurred image, in units of the noise (each pixel repeated on the finer grid); of
      several networks also ``uncertainty``, the standard deviation of their results.

    Raises:
      UserError: the method is unknown.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> psf = jnp.asarray(moffat_psf((32, 32), 5.0), "float32")[None]
    >>> y = convolve(jnp.zeros((1, 32, 32)).at[0, 16, 16].set(1000.0), psf_to_tf(psf))
    >>> out = chain("tikhonov")(y, psf, None, jnp.full(1, 1e-3))
    >>> bool(out["image"].max() > 2 * y.max()), out["residual"].shape
    (True, (1, 32, 32))
    """
    if method not in METHODS:
        raise UserError(f"Expected a method {', '.join(METHODS)}, found {method!r}.")
    restore = METHODS[method]

    @jax.jit
    def run(y: Array, psf: Array, weights: Array | None, lam: Array) -> Mapping[str, Array]:
        goal = None if target is None else _gaussian(psf, target)
        options: dict[str, Any] = {"lam": lam} if method == "tikhonov" else {}
        if method in ("sparse", "two_channel"):
            options |= SURE
        if method == "two_channel" and goal is None:
            raise UserError("Expected a target for the method two_channel, found none.")
        one = jnp.ones(y.shape[0], y.dtype)
        x = restore(y, psf, sigma=one, weights=weights, target_psf=goal, **options)
        steps = {method.replace("_", "-"): x}
        if network is not None:
            steps["sunet"] = network(x)
        # What makes the observation of an image that has the target's PSF already.
        left = psf if goal is None else _narrow(psf, goal)
        return _finished(steps, y, left, weights, dictionary if debias else None, details)

    return run


def chain_points(
    *,
    target: float = FWHM,
    fit_rounds: int = 6,
    debias: bool = True,
    details: bool = False,
    dictionary: Starlet = Starlet(4),
) -> Callable[[Array, Array, Array | None, Array], tuple[Mapping[str, Array], TwoChannels]]:
    """Two channels with point sources, then debiasing, as one compiled function.

    Args:
      target: see `chain`.
      fit_rounds: see `deconvolve_two_channels`.
      debias: step 3.
      details: see `chain`.
      dictionary: see `chain`.

    Returns:
      A function of images in units of their noise, PSFs, weights and positions. It gives the named
      images of `chain`, with ``extended``, that without point sources, and their fluxes and places.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> psf = jnp.asarray(moffat_psf((32, 32), 5.0), "float32")[None]
    >>> run = chain_points(fit_rounds=0, debias=False)
    >>> jax.eval_shape(run, psf, psf, None, jnp.zeros((1, 2, 2)))[0]["extended"].shape
    (1, 32, 32)
    """

    @jax.jit
    def run(
        y: Array, psf: Array, weights: Array | None, positions: Array
    ) -> tuple[Mapping[str, Array], TwoChannels]:
        goal = _gaussian(psf, target)
        options: dict[str, Any] = {**SURE, "fit_rounds": fit_rounds, "weights": weights}
        one = jnp.ones(y.shape[0], y.dtype)
        out = deconvolve_two_channels(y, psf, positions, sigma=one, target_psf=goal, **options)
        steps = {"two-channel": out.image}
        third = dictionary if debias else None
        found = _finished(steps, y, _narrow(psf, goal), weights, third, details)
        return {**found, "extended": found["image"] - (out.image - out.extended)}, out

    return run


def _finished(
    steps: dict[str, Array],
    y: Array,
    psf: Array,
    weights: Array | None,
    dictionary: Starlet | None,
    details: bool,
) -> dict[str, Array]:
    """Step 3 if there is a dictionary, the mean of several networks, and the residual."""
    x, found = list(steps.values())[-1], {}
    several, factor = x.ndim > y.ndim, factor_between(y.shape, psf.shape)
    if dictionary is not None:
        one = jnp.ones(y.shape[0], y.dtype)

        def third(x: Array) -> tuple[Array, Array]:
            out = debiasing(x, y, psf, sigma=one, weights=weights, dictionary=dictionary)
            return out.image, out.support

        x, support = jax.lax.map(third, x) if several else third(x)
        steps["debias"] = x
        if details:
            active = jnp.sum(support[0] if several else support, axis=-3)
            found["active"] = replicate(active.astype(jnp.uint8), factor)
    if several:
        x, found["uncertainty"] = mean_and_spread(x)
        steps |= {n: jnp.mean(s, axis=0) for n, s in steps.items() if s.ndim > y.ndim}
    residual = y - rebin(convolve(x, psf_to_tf(psf)), factor)
    found |= {"image": x, "residual": replicate(residual, factor)}
    return found | steps if details else found


def _gaussian(psf: Float[Array, "*b h w"], fwhm: float) -> Float[Array, "h w"]:
    return jnp.asarray(gaussian_psf((psf.shape[-2], psf.shape[-1]), fwhm), psf.dtype)


def _narrow(psf: Float[Array, "*b h w"], target: Float[Array, "h w"]) -> Float[Array, "*b h w"]:
    """The PSF that makes ``psf`` of ``target`` (Magain, Courbin, Sohy 1998)."""
    wanted = psf_to_tf(target)
    back = times(jnp.conj(wanted), 1 / (power(wanted) + _CLOSE))
    return image(times(spectrum(psf), back), psf.shape)
