"""The command line: one module per sub-command, thin."""

import functools
import gc
import importlib
import inspect
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from jaxcore.cli.output import show
from jaxcore.errors import printable

# Command -> what ``jaxcore --help`` says of it; the function stands in the module of its name.
# Only the command that runs is imported, so that help is quick.
COMMANDS = {
    "demo": "Fine-tune a small network on photographs and restore held-out ones.",
    "restore": "Restore pictures with a run or with official weights.",
    "serve": "Restore photographs on a page in the browser, on this machine only.",
    "deconvolve": "Deconvolve FITS images with their PSF.",
    "sample": "Generate pictures, or show how one is restored, step by step.",
    "train": "Train a network by a recipe, or go on with a run.",
    "evaluate": "Measure PSNR and SSIM on degraded and clean images.",
    "models": "List networks, their recipes and weights, and where official weights are found.",
    "info": "Say which network weights are of, its size and its settings.",
    "convert": "Check weights and rewrite them under the official names.",
    "data": "Pack a folder of pairs as a TFDS data set (array_record format).",
    "ask": "Answer questions with a language model on this machine.",
    "estimate": "Estimate a causal effect from a table; write a report.",
}


_DESCRIPTION = """Image restoration and causal inference in JAX.

Before a command: --version; --compilation-cache FOLDER, where compiled programs are kept for the
next call, or off (JAX_COMPILATION_CACHE_DIR does the same)."""


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
    if argv[:1] in (["train"], ["estimate"]):  # these have commands of their own
        name, *argv = argv
        if name == "train":  # recipes are found with either mark between words
            argv[:1] = [word.replace("-", "_") if word[:1] != "-" else word for word in argv[:1]]
        return understand(_module(name).commands(argv), argv, name, COMMANDS[name])
    commands = {
        name: vars(_module(name))[name] if argv[:1] == [name] else placeholder(summary)
        for name, summary in COMMANDS.items()
    }
    return understand(commands, argv, "", _DESCRIPTION)


def understand(
    commands: dict[str, Callable[..., None]], argv: Sequence[str], above: str, description: str
) -> Callable[[], None]:
    """The one of some commands that words ask for, with its options, not done yet.

    Args:
      commands: name -> function, whose arguments are the options.
      argv: the words, name first.
      above: the command whose commands these are, if they are not those of ``jaxcore`` itself.
      description: of all commands, for help.

    Raises:
      SystemExit: help was asked for, or the words are not understood.
    """
    import tyro

    from jaxcore.cli.kinds import COMMON
    from jaxcore.cli.paths import registry
    from jaxcore.cli.shell import command

    whole = "--help-all"
    brief = whole not in argv and not {"-h", "--help"}.isdisjoint(argv)
    return tyro.extras.subcommand_cli_from_dict(
        {name: _later(made) for name, made in commands.items()},
        args=["--help" if word == whole else word for word in argv],
        prog=command(*above.split()),
        description=description,
        registry=registry(COMMON if brief else None),
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
    """All wrong options in one sentence, named as they are typed."""
    from jaxcore.errors import UserError

    def typed(problem: str) -> str:
        path, _, rest = problem.partition(" ")
        if not path.startswith("."):
            return problem.removeprefix(": ")
        return f"--{path[1:].replace('_', '-')} {rest}"

    raise UserError("; ".join(map(typed, problems)) + ".")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``jaxcore``; a user's mistake ends in one sentence and exit code 2."""
    from jaxcore.cli.kinds import Refused
    from jaxcore.errors import UserError

    own_process = argv is None
    try:
        words, cache = _before_command(list(sys.argv[1:] if argv is None else argv))
        if own_process:
            _settle(cache)
        parse(words)()
    except (UserError, Refused) as error:
        show(f"jaxcore: {error}", file=sys.stderr)
        _leave(2, own_process)
    except KeyboardInterrupt:
        _leave(130, own_process)
    except BrokenPipeError:  # whoever read our output, such as ``head``, has seen enough
        if own_process:
            os._exit(141)
        raise


def _before_command(words: list[str]) -> tuple[list[str], str | None]:
    """The words without the options that stand before the command, and the cache they name."""
    from jaxcore.errors import UserError

    cache = None
    while words:
        name, equals, value = words[0].partition("=")
        if name == "--version":
            show(_versions())
            sys.exit(0)
        if name != "--compilation-cache":
            break
        if not equals and len(words) > 1:
            value, words = words[1], words[1:]
        if not value:
            raise UserError("Expected --compilation-cache FOLDER, or off, found no folder.")
        cache, words = value, words[1:]
    return words, cache


def _versions() -> str:
    """What a report of a mistake should say; nothing is imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    import jaxcore

    found = [f"jaxcore {jaxcore.__version__}"]
    for name in ("jax", "jaxlib", "flax"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return f"{', '.join(found)}, Python {platform.python_version()}"


def _settle(cache: str | None) -> None:
    """Settings of a process that is ours, before JAX is imported."""
    from jaxcore.cli.compiled import keep_compiled

    warnings.formatwarning = _sentence
    # XLA's own lines, such as those on slow compilations, help nobody; its errors are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Tracing makes a million objects that stay: to look for garbage among them takes a sixth of it.
    gc.set_threshold(100_000, 20, 10)
    keep_compiled(cache)


def _sentence(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the line of our source that found the reason for it."""
    return f"warning: {printable(str(message))}\n"


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
