"""STARRED as a rival: sparse deconvolution of one stamp to a Gaussian of two pixels.

The settings are those under which its error is quoted for simulated galaxies: weights of 1 for the
starlet coefficients and 10 for negative pixels, 1000 steps of AdaBelief, no point source.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

STEPS = 1000
_FIRST = 2  # steps of the run that pays for the compilation


class Found(NamedTuple):
    """What STARRED returned, and what it took."""

    image: Float[np.ndarray, "h w"]
    seconds: float  # without compilation
    compile_seconds: float
    noise_seconds: float  # propagation of the noise to the coefficients, within neither


def narrow(psf: Float[np.ndarray, "h w"], target_psf: Float[np.ndarray, "h w"]) -> np.ndarray:
    """What the target PSF has to be convolved with to give the PSF."""
    spectra = [np.fft.rfft2(np.fft.ifftshift(a)) for a in (psf, target_psf)]
    out = np.fft.irfft2(spectra[0] / spectra[1], s=psf.shape)
    return np.fft.fftshift(out)


def restore(
    y: Float[np.ndarray, "h w"],
    psf: Float[np.ndarray, "h w"],
    target_psf: Float[np.ndarray, "h w"],
    sigma: float,
    steps: int = STEPS,
) -> Found:
    """Deconvolve one stamp whose pixels are those of the PSF.

    Args:
      y: the observation.
      psf: of it.
      target_psf: of the result, a Gaussian of two pixels.
      sigma: standard deviation of the noise in a pixel.
      steps: of the optimiser.

    Raises:
      ImportError: STARRED is not installed.
    """
    from starred.deconvolution.deconvolution import setup_model
    from starred.deconvolution.loss import Loss
    from starred.deconvolution.parameters import ParametersDeconv
    from starred.optim.optimization import Optimizer
    from starred.utils.noise_utils import propagate_noise

    scale = float(y.max())
    data, variance = (y / scale)[None], np.full_like(y, (sigma / scale) ** 2)[None]
    # Its convolution has its middle between pixels: the result comes out one pixel off.
    kernel = narrow(psf, target_psf)[None]
    model, first, above, below, fixed = setup_model(
        data, variance, kernel, [], [], 1, initial_a=[], convolution_method="fft"
    )
    fixed["kwargs_analytic"] = dict(first["kwargs_analytic"])
    fixed["kwargs_sersic"] = dict(first["kwargs_sersic"])
    fixed["kwargs_background"] = {"mean": first["kwargs_background"]["mean"]}
    start = time.perf_counter()
    weights = propagate_noise(
        model,
        np.sqrt(variance),
        first,
        wavelet_type_list=["starlet"],
        method="MC",
        num_samples=100,
        seed=0,
        likelihood_type="chi2",
        verbose=False,
        upsampling_factor=1,
    )[0]
    noise_seconds = time.perf_counter() - start
    parameters = ParametersDeconv(first, fixed, kwargs_up=above, kwargs_down=below)
    loss = Loss(
        data,
        model,
        parameters,
        variance,
        regularization_terms="l1_starlet",
        regularization_strength_scales=1.0,
        regularization_strength_hf=1.0,
        regularization_strength_positivity=10.0,
        W=weights,
    )
    optimiser = Optimizer(loss, parameters, method="adabelief")
    options: dict[str, Any] = {
        "init_learning_rate": 1e-2,
        "schedule_learning_rate": True,
        "progress_bar": False,
    }
    seconds = []
    for count in (_FIRST, steps):  # each call compiles its step anew
        start = time.perf_counter()
        optimiser.minimize(max_iterations=count, restart_from_init=True, **options)
        seconds.append(time.perf_counter() - start)
    found = parameters.best_fit_values(as_kwargs=True)
    image = np.asarray(found["kwargs_background"]["h"]).reshape(y.shape) * scale
    moved = np.roll(image, (-1, -1), (0, 1))
    return Found(moved, seconds[1] - seconds[0], seconds[0], noise_seconds)
