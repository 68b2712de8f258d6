from tests.tiny_weights import call, photo, run, weights  # noqa: F401  # fixtures
