"""Deconvolution of images with a known point spread function; see README.md beside this file."""

from jaxcore.models.deconvolution.chain import chain, chain_points
from jaxcore.models.deconvolution.debias import (
    Debiased,
    debias,
    multiresolution_support,
    noise_scales,
    tikhonov_noise_scales,
)
from jaxcore.models.deconvolution.dictionary import Dictionary
from jaxcore.models.deconvolution.fields import (
    choose_field_lam,
    continued,
    placed_psfs,
    plan_tiles,
    restore_field,
)
from jaxcore.models.deconvolution.frames import tikhonov_frames
from jaxcore.models.deconvolution.masks import fill_missing, noise_by_scale, noise_level
from jaxcore.models.deconvolution.methods import METHODS, Method
from jaxcore.models.deconvolution.prepared import (
    PreparedPsf,
    centroid,
    prepare_psf,
    reach_of,
    shift_psf,
)
from jaxcore.models.deconvolution.psf import (
    centre_psf,
    check_psf,
    gaussian_psf,
    moffat_psf,
    normalise_psf,
    peak_offset,
    place_psf,
)
from jaxcore.models.deconvolution.richardson_lucy import richardson_lucy
from jaxcore.models.deconvolution.sparse import sparse_starlet
from jaxcore.models.deconvolution.tikhonov import (
    choose_lam,
    noise_gain,
    restore_tikhonov,
    tikhonov,
    tikhonov_filter,
)
from jaxcore.models.deconvolution.two_channel import (
    TwoChannels,
    deconvolve_two_channels,
    two_channel,
)
from jaxcore.models.deconvolution.uncertainty import mean_and_spread, propagated_noise
from jaxcore.models.deconvolution.wiener import radial_power, wiener
from jaxcore.ops.grids import factor_between, rebin, replicate, upsample_flux
from jaxcore.ops.spectra import (
    convolve,
    correlate,
    laplacian_tf,
    psf_to_tf,
)

__all__ = [
    "METHODS",
    "Debiased",
    "Dictionary",
    "Method",
    "PreparedPsf",
    "TwoChannels",
    "centre_psf",
    "centroid",
    "chain",
    "chain_points",
    "check_psf",
    "choose_field_lam",
    "choose_lam",
    "continued",
    "convolve",
    "correlate",
    "debias",
    "deconvolve_two_channels",
    "factor_between",
    "fill_missing",
    "gaussian_psf",
    "laplacian_tf",
    "mean_and_spread",
    "moffat_psf",
    "multiresolution_support",
    "noise_by_scale",
    "noise_gain",
    "noise_level",
    "noise_scales",
    "normalise_psf",
    "peak_offset",
    "place_psf",
    "placed_psfs",
    "plan_tiles",
    "prepare_psf",
    "propagated_noise",
    "psf_to_tf",
    "radial_power",
    "reach_of",
    "rebin",
    "replicate",
    "restore_field",
    "restore_tikhonov",
    "richardson_lucy",
    "shift_psf",
    "sparse_starlet",
    "tikhonov",
    "tikhonov_filter",
    "tikhonov_frames",
    "tikhonov_noise_scales",
    "two_channel",
    "upsample_flux",
    "wiener",
]
