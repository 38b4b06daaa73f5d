"""Files of a data folder: what is opened and what is refused."""

import os

import pytest

from d3fast.io.places import (
    cache_dir,
    check_plain_name,
    checked_file,
    checked_folder,
    read_bytes,
    read_lines,
)


def test_the_cache_folder_follows_xdg_cache_home_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir("x") == tmp_path / "d3fast" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir("x") == tmp_path / ".cache" / "d3fast" / "x"


def test_links_that_stay_inside_are_followed_and_links_out_are_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    for folder in (root, outside):
        (folder / "file").write_text("x")
    (root / "a" / "good").symlink_to(root / "file")
    (root / "a" / "bad").symlink_to("../../outside/file")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    assert checked_file(root / "a" / "good", root).read_text() == "x"
    for check, name in ((checked_file, "a/bad"), (checked_folder, "folder")):
        with pytest.raises(ValueError, match=f"{name} is a link that leads out of {root}"):
            check(root / name, root)
    with pytest.raises(ValueError, match="loop is missing"):
        checked_file(root / "loop", root)


def test_the_data_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    root = tmp_path / "link"
    assert checked_file(root / "file", root) == root / "file"
    assert checked_folder(root, root) == root


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no regular file"):
        checked_file(tmp_path / "pipe", tmp_path)
    with pytest.raises(ValueError, match="pipe is missing or no regular file"):
        read_bytes(tmp_path / "pipe", 10)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="file is longer than 4 bytes"):
        read_bytes(tmp_path / "file", 4)


def test_lines_come_without_their_ends_and_blank_ones(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfone\r\n\n two\nthree")
    assert read_lines(tmp_path / "file") == ["one", " two", "three"]
    (tmp_path / "file").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="file is no UTF-8 text"):
        read_lines(tmp_path / "file")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".x", "a\0"])
def test_a_name_from_a_table_must_be_a_plain_one(tmp_path, name):
    assert check_plain_name("00001_00002.ppm", tmp_path) == "00001_00002.ppm"
    with pytest.raises(ValueError, match="which is no plain name"):
        check_plain_name(name, tmp_path)
