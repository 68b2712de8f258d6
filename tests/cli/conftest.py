from tests.cli.reader import begun, folder  # noqa: F401  # fixtures
from tests.tiny_weights import call, photo, run, weights  # noqa: F401  # fixtures
