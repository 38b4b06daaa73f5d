"""Files that are there whole or not at all."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from d3fast.io.files import (
    atomic_write,
    files_digest,
    make_folder,
    sha256,
    weights_digest,
    written_together,
)


@pytest.fixture
def umask():
    """Sets the umask for the length of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_the_block_writes_is_there_afterwards(tmp_path):
    with atomic_write(tmp_path / "out.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "out.json").read_text() == "new"
    assert _names(tmp_path) == ["out.json"]


def test_an_old_file_is_replaced_whole_at_the_end(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("a long old text")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "a long old text"
    assert path.read_text() == "new"


def test_a_reader_that_has_the_old_file_open_keeps_it(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    with open(path) as reader:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_interrupted_block_leaves_the_old_file_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "out.json"
    if old is not None:
        path.write_text(old)

    def interrupted():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert _names(tmp_path) == ([] if old is None else ["out.json"])
    assert old is None or path.read_text() == old


def test_a_block_that_removes_its_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")

    def removing():
        with atomic_write(path) as temporary:
            temporary.unlink()

    with pytest.raises(FileNotFoundError):
        removing()
    assert path.read_text() == "old"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mask, mode):
    umask(mask)
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode
    assert umask(mask) == mask


def test_the_suffix_is_kept_for_writers_that_look_at_it(tmp_path):
    with atomic_write(tmp_path / "plot.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "nowhere" / "out.json"
    with (
        pytest.raises(ValueError, match=f"cannot write {path}: there is no folder {path.parent}"),
        atomic_write(path),
    ):
        pytest.fail("the block ran")


def test_a_folder_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="it is a folder"), atomic_write(tmp_path / "out"):
        pytest.fail("the block ran")
    assert _names(tmp_path) == ["out"]


def test_pipes_and_devices_are_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(ValueError, match="it is not a regular file"),
        atomic_write(tmp_path / "pipe"),
    ):
        pytest.fail("the block ran")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_no_file_is_left_open(tmp_path):
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("no /proc to count open files in")
    before = len(list(open_files.iterdir()))
    for _ in range(5):
        with atomic_write(tmp_path / "out") as temporary:
            temporary.write_text("new")
    assert len(list(open_files.iterdir())) == before


def test_a_path_may_be_text(tmp_path):
    with atomic_write(str(tmp_path / "out")) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "out").read_text() == "new"


def test_a_folder_is_made_with_those_above_it_or_taken_as_it_is(tmp_path):
    for _ in range(2):
        assert make_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
        assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match=f"cannot make folder {tmp_path / path}: a file is in the"):
        make_folder(tmp_path / path)
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**20 + 1])
def test_the_hash_is_that_of_the_whole_content(tmp_path, length):
    content = bytes(range(256)) * (length // 256 + 1)
    (tmp_path / "file").write_bytes(content[:length])
    assert sha256(tmp_path / "file") == hashlib.sha256(content[:length]).hexdigest()


def test_only_regular_files_have_a_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"):
        sha256(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        sha256(tmp_path)
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "nowhere")


def _write(folder, **texts):
    with written_together(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text)


def test_files_written_together_are_in_the_folder_and_nothing_else(tmp_path):
    _write(tmp_path / "a" / "out", one="1", two="2")
    assert _names(tmp_path / "a" / "out") == ["one", "two"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_block_changes_no_file_and_makes_no_folder(tmp_path, error):
    def interrupted(folder):
        with written_together(folder) as temporary:
            (temporary / "one").write_text("new")
            raise error

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "one").write_text("old")
    for folder in ("old", "new/below"):
        with pytest.raises(error):
            interrupted(tmp_path / folder)
    assert _names(tmp_path) == ["old"]
    assert (tmp_path / "old" / "one").read_text() == "old"
    assert _names(tmp_path / "old") == ["one"]


def test_a_folder_replaces_one_of_its_name_whole(tmp_path):
    for name in ("first", "second"):
        with written_together(tmp_path) as temporary:
            (temporary / "repaired").mkdir()
            (temporary / "repaired" / name).write_text(name)
    assert _names(tmp_path) == ["repaired"]
    assert _names(tmp_path / "repaired") == ["second"]


def test_a_file_does_not_replace_a_folder_and_the_others_stay_out(tmp_path):
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        _write(tmp_path, one="1", two="2")
    assert _names(tmp_path) == ["two"]


def test_permissions_of_a_file_written_together_are_those_of_any_new_file(tmp_path, umask):
    umask(0o027)
    _write(tmp_path / "out", one="1")
    assert stat.S_IMODE((tmp_path / "out" / "one").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_one_file_in_a_folder_has_its_own_digest_and_several_a_common_one(tmp_path):
    one, two = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    one.write_bytes(b"1")
    assert weights_digest(tmp_path) == files_digest([one]) == sha256(one)
    two.write_bytes(b"2")
    assert weights_digest(tmp_path) == files_digest([two, one]) != sha256(one)
