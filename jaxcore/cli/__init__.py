"""The command line: one module per sub-command, thin."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``jaxcore``; a user's mistake ends in one sentence and exit code 2."""
    import tyro

    from jaxcore.cli.convert import convert
    from jaxcore.cli.demo import demo
    from jaxcore.cli.restore import restore
    from jaxcore.errors import UserError

    commands = {"convert": convert, "demo": demo, "restore": restore}
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, args=argv, prog="jaxcore", description="Restore images with AdaIR."
        )
    except UserError as error:
        print(f"jaxcore: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
