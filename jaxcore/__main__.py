"""``python -m jaxcore``."""

from jaxcore.cli import main

main()
