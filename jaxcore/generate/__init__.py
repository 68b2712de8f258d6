"""Text from a decoder: knows a step function, parameters and a cache, no model."""

from jaxcore.generate.cache import Cache, bytes_per_token, init_cache, join_rows, repeat_rows

__all__ = ["Cache", "bytes_per_token", "init_cache", "join_rows", "repeat_rows"]
