"""Commands that are printed work where they are printed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcore.cli.shell import command

ROOT = Path(__file__).parent.parent.parent
SAYS = "import sys; sys.argv[0] = {!r}; from jaxcore.cli.shell import command; print(command({!r}))"


def environment(folder, **other):
    """A program ``jaxcore`` in a folder of its own, as pip makes it; nothing else on the path."""
    folder.mkdir(parents=True)
    script = folder / "jaxcore"
    script.write_text(f"#!{sys.executable}\nfrom jaxcore.cli import main\nmain()\n")
    script.chmod(0o755)
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **other}


def said(script, cwd, env):
    """What a program called as ``script`` would print."""
    code = SAYS.format(str(script), "--version")
    out = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True)
    return out.stdout.decode().strip()


@pytest.mark.parametrize("where", [".venv/bin", "a b/bin"])
def test_a_program_that_is_not_on_the_path_is_named_by_where_it_is(tmp_path, where):
    env = environment(tmp_path / where)
    line = said(f"{where}/jaxcore", tmp_path, env)
    assert line == shlex.join([f"{where}/jaxcore", "--version"])
    found = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True)
    assert found.stdout.startswith(b"jaxcore ")
    elsewhere = said(tmp_path / where / "jaxcore", ROOT, env)
    assert elsewhere == shlex.join([str(tmp_path / where / "jaxcore"), "--version"])


def test_a_program_on_the_path_is_named_by_its_name(tmp_path):
    env = environment(tmp_path / "bin")
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    assert said(tmp_path / "bin" / "jaxcore", ROOT, env) == "jaxcore --version"


def test_a_module_is_called_by_the_python_that_runs_it(tmp_path):
    env = environment(tmp_path / "bin")
    line = said(ROOT / "jaxcore" / "__main__.py", tmp_path, env)
    assert line.endswith("-m jaxcore --version")
    found = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True)
    assert found.stdout.startswith(b"jaxcore ")


def test_names_with_spaces_are_quoted():
    assert command("restore", Path("my cat.png"), "-o", "$x").endswith(
        "restore 'my cat.png' -o '$x'"
    )


def test_messages_say_where_help_is_as_it_can_be_typed(call):
    for argv in (["restore"], ["train", "adair"]):
        code, _, err = call(*argv)
        assert code == 2 and command(*argv, "--help") in " ".join(err.replace("│", "").split())
