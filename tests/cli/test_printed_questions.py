"""What the pages print of `jaxcore ask` is answered, by small random models of the same names."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.reader import printed
from tests.seeing_folders import write_llava, write_qwen2_vl
from tests.tiny_language import write_folder, write_gguf_model


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The reader's folder with pictures and models."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "one.jpg", "two.jpg"):
        Image.new("RGB", (20, 16), (90, 80, 70)).save(name)
    small = write_gguf_model(tmp_path / "model.Q4_0.gguf")
    monkeypatch.setenv("JAXCORE_SMOLLM2_GGUF", str(small))
    write_folder(Path("Llama-3.2-1B-Instruct"))
    write_llava(Path("llava-1.5-7b-hf"))
    write_qwen2_vl(Path("Qwen2-VL-2B-Instruct"))
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/ask.md"])
def test_questions_that_are_printed_are_answered(models, call, monkeypatch, page):
    for argv in printed(page, "jaxcore ask"):
        if "<" in argv:
            argv = argv[: argv.index("<")]  # the shell's own
            monkeypatch.setattr("sys.stdin", io.StringIO("Why?"))
        code, out, err = call(*argv, "--max-new-tokens", 2)
        assert code == 0, (argv, err)
        if "--json-lines" in argv:
            assert json.loads(out)["question"] == "Why?"
