"""What programs have to do, counted without running them."""

import jax
import jax.numpy as jnp

from jaxcore.ops import depthwise_conv
from jaxcore.work import work_of


def counted(fn, *args):
    work = work_of(jax.make_jaxpr(fn)(*args).jaxpr)
    return work.maps, work.flops


def test_loops_count_as_often_as_they_run_and_functions_with_written_gradients_once():
    x, w = jnp.ones((4, 8)), jnp.ones((3, 8, 8))

    def layers(w, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    assert counted(layers, w, x) == (3 * 4 * 4 * 8, 3 * 2 * 4 * 8 * 8)
    image, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 1, 2))

    def filtered(x, kernel):
        return depthwise_conv(x, kernel, form="grouped")

    assert counted(jax.jit(filtered), image, kernel) == (4 * 5 * 5 * 2, 2 * 5 * 5 * 2 * 9)
