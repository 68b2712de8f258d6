"""``jaxcore --help`` and what every command says of itself."""

import importlib
import inspect
import subprocess
import sys

import jax
import pytest
from PIL import Image

import jaxcore
from jaxcore.cli import COMMANDS

pytestmark = pytest.mark.newest


def test_help_shows_every_command_with_its_line(call):
    code, out, _ = call("--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_is_that_of_the_command(name):
    command = getattr(importlib.import_module(f"jaxcore.cli.{name}"), name)
    assert inspect.getdoc(command).splitlines()[0] == COMMANDS[name]


def test_a_setting_that_cannot_be_is_named(call):
    code, out, err = call("train", "demo", "-o", "gone", "--train.steps", "0")
    assert code == 2 and not out
    assert err == "jaxcore: --train.steps must be a whole number of at least 1, found 0.\n"


def test_all_settings_that_cannot_be_are_named_at_once(call):
    wrong = {
        "--train.optim.learning-rate": "inf",
        "--train.optim.betas": "2 -1",
        "--train.optim.eps": "-1",
        "--train.optim.weight-decay": "nan",
        "--train.optim.schedule.floor": "-1",
        "--train.optim.groups": "bias:rate=1",
        "--train.log-every": "-1",
        "--eval-images": "-1",
        "--network.dim": "0",
    }
    argv = [word for option, value in wrong.items() for word in (option, *value.split())]
    code, out, err = call("train", "adair", "-o", "gone", *argv)
    assert code == 2 and not out and len(err.splitlines()) == 1
    for option in wrong:
        said = (f"{option} must be ", f"{option}: Expected an optimiser group")
        assert any(sentence in err for sentence in said), option


def test_the_list_of_recipes_imports_no_network():
    code = """
import atexit, sys
from jaxcore.cli import main
atexit.register(lambda: print("heavy:", {"jax", "flax", "numpy"} & set(sys.modules)))
main(["train", "--help"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    text = " ".join(result.stdout.replace("│", " ").split())
    assert "adair AdaIR of half the width on your own images" in text
    assert text.endswith("heavy: set()"), text + result.stderr


@pytest.mark.parametrize("argv", [["--bogus"], ["train", "demo", "--bogus"], ["resotre"], []])
def test_an_unknown_word_ends_with_code_2(call, argv):
    code, out, err = call(*argv)
    assert code == 2 and "Traceback" not in out + err


def test_a_reader_that_has_seen_enough_gets_no_stack_trace():
    argv = [sys.executable, "-m", "jaxcore", "train", "demo", "--help"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_warnings_are_sentences(tmp_path):
    (tmp_path / "Train" / "Denoise").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "Train" / "Denoise" / "one.png")
    argv = ["train", "adair_denoise", "--data.root", tmp_path, "-o", tmp_path / "run"]
    code = [sys.executable, "-m", "jaxcore", *argv, "--data.tasks", "denoise_15"]
    result = subprocess.run(code, capture_output=True, text=True)
    assert result.returncode == 2  # there is nothing to evaluate on
    warning, error = result.stderr.splitlines()
    assert warning.startswith("warning: Expected the published numbers of images")
    assert error.startswith("jaxcore: Expected ")


def test_the_version_is_told_with_those_of_what_it_stands_on(call):
    code, out, _ = call("--version")
    assert code == 0 and len(out.splitlines()) == 1
    assert out.startswith(f"jaxcore {jaxcore.__version__}, jax {jax.__version__}, ")


def test_the_help_of_a_recipe_is_one_screen_and_all_options_are_there_when_asked_for(call):
    code, short, _ = call("train", "adair", "--help")
    assert code == 0 and len(short.splitlines()) <= 80
    for option in (
        "--out",
        "--init",
        "--data.root",
        "--train.steps",
        "learning-rate",
        "--help-all",
    ):
        assert option in short
    for rare in ("--network", "--contrast", "--train.optim.eps"):
        assert rare not in short
    code, whole, _ = call("train", "adair", "--help-all")
    assert code == 0 and all(f"--{name}" in whole for name in ("network.dim", "eval-side", "vgg"))
    for text in (short, whole):
        assert ">>>" not in text and "tyro" not in text


@pytest.mark.parametrize(
    "argv",
    ["train adair", "train adair -o x --data.kind foo", "restore a -o b --tile x", "data frob a b"],
)
def test_messages_name_what_the_user_typed(call, argv):
    code, out, err = call(*argv.split())
    assert code == 2 and "tyro" not in out + err
