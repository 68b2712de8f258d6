"""The command line: one module per sub-command, thin."""

import functools
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

# Command -> what ``jaxcore --help`` says of it; the function stands in the module of its name.
# Only the command that runs is imported, so that help is quick.
COMMANDS = {
    "demo": "Train a small network on photographs and restore held-out ones.",
    "restore": "Restore pictures with a run or with official weights.",
    "sample": "Generate pictures, or show how one is restored, step by step.",
    "train": "Train a network by a recipe, or go on with a run.",
    "evaluate": "Measure PSNR and SSIM on degraded and clean images.",
    "convert": "Check weights and rewrite them under the official names.",
    "data": "Pack a folder of pairs as a TFDS data set (array_record format).",
    "estimate": "Estimate a causal effect from a table; write a report.",
}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"jaxcore.cli.{name}")


def placeholder(summary: str) -> Callable[[], None]:
    """A command that is listed, but not the one that runs."""

    def command() -> None:
        raise AssertionError("the chosen command is always the real one")

    command.__doc__ = summary
    return command


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """What the words after ``jaxcore`` ask for, not done yet.

    Raises:
      SystemExit: help was asked for, or the words are not understood.
    """
    import tyro

    from jaxcore.cli.kinds import REGISTRY

    if argv[:1] in (["train"], ["estimate"]):  # these have commands of their own
        name, *argv = argv
        prog, description = f"jaxcore {name}", COMMANDS[name]
        commands = _module(name).commands(argv)
    else:
        prog, description = "jaxcore", "Image restoration and causal inference in JAX."
        commands = {
            name: vars(_module(name))[name] if argv[:1] == [name] else placeholder(summary)
            for name, summary in COMMANDS.items()
        }
    return tyro.extras.subcommand_cli_from_dict(
        {name: _later(command) for name, command in commands.items()},
        args=argv,
        prog=prog,
        description=description,
        registry=REGISTRY,
    )


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    from jaxcore.cli.kinds import faults

    hints = inspect.get_annotations(command)
    unnamed = {
        name
        for name, hint in hints.items()
        if any(getattr(mark, "name", None) == "" for mark in getattr(hint, "__metadata__", ()))
    }

    @functools.wraps(command)
    def understood(*args: Any, **kwargs: Any) -> Callable[[], None]:
        problems = faults(kwargs, unnamed)
        if problems:
            return functools.partial(_refuse, problems)
        return functools.partial(command, *args, **kwargs)

    return understood


def _refuse(problems: Sequence[str]) -> NoReturn:
    """All wrong options in one sentence."""
    from jaxcore.errors import UserError

    raise UserError("; ".join(p.removeprefix(".").removeprefix(": ") for p in problems) + ".")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``jaxcore``; a user's mistake ends in one sentence and exit code 2."""
    from jaxcore.cli.kinds import Refused
    from jaxcore.errors import UserError

    own_process = argv is None
    if own_process:
        warnings.formatwarning = _sentence
    try:
        parse(list(sys.argv[1:] if argv is None else argv))()
    except (UserError, Refused) as error:
        print(f"jaxcore: {error}", file=sys.stderr)
        _leave(2, own_process)
    except KeyboardInterrupt:
        _leave(130, own_process)
    except BrokenPipeError:  # whoever read our output, such as ``head``, has seen enough
        if own_process:
            os._exit(141)
        raise


def _sentence(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the line of our source that found the reason for it."""
    return f"warning: {message}\n"


def _leave(code: int, own_process: bool) -> NoReturn:
    """End after a failure, when everything is cleaned up.

    To end in the ordinary way can crash the interpreter while XLA's threads still compute what
    was interrupted, and lets the readers of a damaged checkpoint that were given up print theirs.
    """
    if own_process:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
