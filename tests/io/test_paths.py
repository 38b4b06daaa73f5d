"""Files of a data folder: what is opened and what is refused."""

import os

import pytest

from d3fast.io.paths import (
    check_plain_name,
    checked_file,
    checked_folder,
    read_lines,
)


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
    with pytest.raises(ValueError, match="pipe is not a regular"):
        checked_file(tmp_path / "pipe", tmp_path)
    with pytest.raises(ValueError, match="pipe"):
        read_lines(tmp_path / "pipe")


def test_lines_come_without_their_ends_and_blank_ones(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfone\r\n\n two\nthree")
    assert read_lines(tmp_path / "file") == ["one", " two", "three"]
    (tmp_path / "file").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="file is not UTF-8"):
        read_lines(tmp_path / "file")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".x", "a\0"])
def test_a_name_from_a_table_must_be_a_plain_one(tmp_path, name):
    assert check_plain_name("00001_00002.ppm", tmp_path) == "00001_00002.ppm"
    with pytest.raises(ValueError, match="not a plain name"):
        check_plain_name(name, tmp_path)
