"""The 401(k) data: eligibility, participation and financial assets."""

import importlib.resources
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COVARIATES = ("inc", "age", "fsize", "marr")


class K401(NamedTuple):
    """Outcome, treatment, instrument, covariates."""

    Y: Float[Array, " n"]  # net total financial assets, 1000 USD
    A: Float[Array, " n"]  # participates in a 401(k)
    Z: Float[Array, " n"]  # is eligible for one
    X: Float[Array, "n 4"]  # income (1000 USD), age (years), family size, married


def load_401k_columns() -> dict[str, np.ndarray]:
    """All columns by name, float64; see ``data/README.md`` for meanings, source and licence.

    >>> load_401k_columns()["nettfa"].shape
    (9275,)
    """
    file = importlib.resources.files("jaxcore.estimators.datasets") / "data" / "401ksubs.npz"
    with file.open("rb") as handle, np.load(handle) as arrays:
        return {name: arrays[name].astype(np.float64) for name in arrays.files}


def load_401k() -> K401:
    """Abadie's (2003) extract of the 1991 Survey of Income and Program Participation.

    9,275 households. Non-compliance is one-sided: nobody who is not eligible participates.

    >>> [x.shape for x in load_401k()]
    [(9275,), (9275,), (9275,), (9275, 4)]
    """
    columns = load_401k_columns()
    X = np.stack([columns[name] for name in COVARIATES], axis=1)
    arrays = (columns["nettfa"], columns["p401k"], columns["e401k"], X)
    return K401(*(jnp.asarray(a, float) for a in arrays))
