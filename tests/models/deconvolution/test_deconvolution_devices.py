"""Images spread over devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxcore.models import deconvolution as d
from jaxcore.ops.starlet import Starlet
from jaxcore.parallel import make_mesh, put_batch
from tests.models.deconvolution.stamps import stamp


def test_each_device_restores_its_own_images_and_nothing_is_exchanged():
    mesh, rows = make_mesh(), PartitionSpec("data")
    y = jnp.stack([stamp(16, seed=seed).noisy for seed in range(2)])
    psf = jnp.broadcast_to(jnp.asarray(d.gaussian_psf((16, 16), 4.0), y.dtype), y.shape)

    def run(y, psf):
        sigma, starlet = jnp.full(y.shape[0], 0.02), Starlet(2, 2)
        x = d.sparse_starlet(y, psf, sigma=sigma, n_iter=10, starlet=starlet)
        return d.debias(x, y, psf, sigma=sigma, dictionary=starlet).image

    spread = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    parts = put_batch((y, psf), mesh)
    program = spread.lower(*parts).compile()
    assert "all-gather" not in program.as_text() and "all-reduce" not in program.as_text()
    out = program(*parts)
    assert [part.data.shape for part in out.addressable_shards] == [(1, 16, 16)] * 2
    np.testing.assert_allclose(out, run(y, psf), atol=1e-5)
