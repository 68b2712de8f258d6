"""How well XLA optimises a program: most of a first call is compilation.

Options for `jax.jit` of functions that are called from outside of any other compiled function.
"""

QUICKLY = {"xla_backend_optimization_level": 0}
"""For what takes little time when it runs: compiled in about half the time."""

ALMOST_FULLY = {"xla_backend_optimization_level": 1}
"""For what runs long: a fifth less to compile, and as fast."""
