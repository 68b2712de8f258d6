"""One process of a job that does no more than add up together, again and again."""

import time

from jaxcore import parallel

if __name__ == "__main__":
    parallel.initialise()

    import jax
    import jax.numpy as jnp

    mesh = parallel.make_mesh()
    add = jax.jit(jnp.sum, out_shardings=parallel.replicated(mesh))
    ones = parallel.put_batch(jnp.ones(1), mesh)
    with parallel.explained():
        for step in range(10_000):
            add(ones).block_until_ready()
            print(f"STEP {step}", flush=True)
            time.sleep(0.02)
