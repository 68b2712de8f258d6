"""``python -m jaxcore.cli``."""

from jaxcore.cli import main

main()
