"""How networks are compiled."""

import jax

_GPU = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_experimental_enable_fusion_autotuner": False,
    "xla_disable_hlo_passes": "triton-softmax-rewriter",
}
"""Products by cuBLAS, and no search for tiles of fused norms: the search takes most of the time of
compiling, and the programs are as fast without (benchmarks/README.md)."""


def compiler_options(platform: str | None = None) -> dict[str, bool | str] | None:
    """What networks are compiled with, for ``jax.jit(f, compiler_options=compiler_options())``.

    Training, `Network.restore` and the command line take them by themselves.

    Args:
      platform: "cpu", "gpu" or "tpu"; None: that of the default device.

    Returns:
      None but for GPUs.

    >>> import jax, jax.numpy as jnp
    >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
    >>> float(double(jnp.ones(())))
    2.0
    """
    return dict(_GPU) if (platform or jax.default_backend()) == "gpu" else None
