"""Folders that appear whole or not at all."""

import pytest

from jaxcore.atomic import whole_folder
from jaxcore.errors import UserError


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("options", [{"overwrite": True}, {"among": True}])
def test_a_failure_leaves_what_was_there(old, tmp_path, options):
    with pytest.raises(UserError, match="old cannot be written: No space left"):
        with whole_folder(old, **options) as temporary:
            (temporary / "half.txt").write_text("half")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt):
        with whole_folder(tmp_path / "new", **options) as temporary:
            raise KeyboardInterrupt
    assert tree(tmp_path) == ["old", "old/mine.txt"]


def test_an_older_folder_is_replaced_or_joined_as_asked(old, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        with whole_folder(old):
            pass
    with whole_folder(old, among=True) as temporary:
        (temporary / "other.txt").write_text("")
    assert tree(tmp_path) == ["old", "old/mine.txt", "old/other.txt"]
    with whole_folder(old, overwrite=True) as temporary:
        (temporary / "new.txt").write_text("")
    assert tree(tmp_path) == ["old", "old/new.txt"]
