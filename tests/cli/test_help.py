"""``jaxcore --help`` and what every command says of itself."""

import importlib
import inspect

import pytest

from jaxcore.cli import COMMANDS


def test_help_shows_every_command_with_its_line(call):
    code, out, _ = call("--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    for name, (_, _, summary) in COMMANDS.items():
        assert f"{name} {summary}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_is_that_of_the_command(name):
    module, function, summary = COMMANDS[name]
    command = getattr(importlib.import_module(f"jaxcore.cli.{module}"), function)
    assert inspect.getdoc(command).splitlines()[0] == summary


def test_a_setting_that_cannot_be_is_named(call):
    code, out, err = call("train", "demo", "-o", "gone", "--train.steps", "0")
    assert code == 2 and "steps must be at least 1, found 0" in " ".join((out + err).split())


@pytest.mark.parametrize("argv", [["--bogus"], ["train", "demo", "--bogus"], ["resotre"], []])
def test_an_unknown_word_ends_with_code_2(call, argv):
    code, out, err = call(*argv)
    assert code == 2 and "Traceback" not in out + err
