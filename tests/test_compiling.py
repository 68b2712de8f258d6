"""Options of the compiler."""

import jax
import jax.numpy as jnp

from jaxcore.compiling import compiler_options


def test_only_gpus_have_options():
    assert compiler_options("cpu") is None and compiler_options("tpu") is None
    assert compiler_options() is None  # of the processor that tests run on


def test_this_version_of_jax_knows_the_options_for_gpus():
    double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options("gpu"))
    assert double(jnp.ones(())) == 2
