"""One process of a job that does no more than add up together, again and again."""

import ctypes
import os
import threading
import time

from jaxcore import parallel

_ABORT_AT = int(os.environ.get("ABORT_AT", -1))  # the second process, in the midst of C code

if __name__ == "__main__":
    parallel.initialise()

    import jax
    import jax.numpy as jnp

    mesh = parallel.make_mesh()
    add = jax.jit(jnp.sum, out_shardings=parallel.replicated(mesh))
    ones = parallel.put_batch(jnp.ones(1), mesh)
    with parallel.explained():
        for step in range(10_000):
            if step == _ABORT_AT and jax.process_index() == 1:
                threading.Thread(target=ctypes.CDLL(None).abort).start()
            add(ones).block_until_ready()
            print(f"STEP {step}", flush=True)
            time.sleep(0.02)
