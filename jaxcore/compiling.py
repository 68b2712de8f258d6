"""How networks are compiled."""

import jax

_GPU = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_experimental_enable_fusion_autotuner": False,
    "xla_disable_hlo_passes": "triton-softmax-rewriter",
}
"""Products by cuBLAS alone, and no trying out of tiles: what costs most compilers' time and, for
networks with norms over the channels of large maps, brings nothing (benchmarks/README.md)."""


def compiler_options() -> dict[str, bool | int | str] | None:
    """What networks are compiled with on the default device, for ``jax.jit(compiler_options=)``.

    None but on GPUs, where a training step of the restoration networks compiles several times
    faster with them and runs no slower.

    >>> import jax, jax.numpy as jnp
    >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
    >>> float(double(jnp.ones(())))
    2.0
    """
    return dict(_GPU) if jax.default_backend() == "gpu" else None
