"""Names, complaints and files of strangers."""

import io
import os
import signal
import zipfile

import pytest

from d3fast.io.untrusted import (
    error_text,
    is_displayable,
    open_regular,
    printable,
    read_limited,
    zip_members,
)


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\rb",
        "\x1b[31m",
        "\x9b1m",
        "a\u2028b",
        "\udcff",
        "a\u202eb",
        "a\u200eb",
        "a\u200fb",
        "a\u061cb",
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(name):
    shown = printable(name)
    assert shown.isprintable()
    assert shown.isascii()
    assert "\\" in shown


def test_an_integer_without_a_text_has_a_description():
    assert printable(10**5000) == "a very long int"


def test_readable_text_stays_as_it_is():
    assert printable("Größe/図 1.png") == "Größe/図 1.png"


def test_a_long_text_keeps_both_ends():
    shown = printable("start" + "." * 10_000 + "end.png")
    assert len(shown) <= 300
    assert shown.startswith("start.")
    assert shown.endswith(".end.png")


def test_a_complaint_is_one_line():
    assert error_text(ValueError("a\n  b\x00")) == "a b\\x00"
    assert error_text(ZeroDivisionError()) == "ZeroDivisionError"


def test_nothing_is_read_past_the_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_limited(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="file is longer than 4 bytes"):
        read_limited(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    signal.alarm(5)  # a pipe without a writer would wait for ever
    try:
        with pytest.raises(ValueError, match="is not a regular file"):
            open_regular(tmp_path / name)
    finally:
        signal.alarm(0)


def test_nothing_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match="regular"):
            open_regular(tmp_path / "pipe")
        with pytest.raises(IsADirectoryError):
            open_regular(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["cat", "Große Katze", "گل\u200cها", "a\u00a0b", "", "x" * 200])
def test_names_that_are_read_are_shown(name):
    assert is_displayable(name)
    assert printable(name) == name


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202etac", "\u200fa", "\ud800", "x" * 201])
def test_names_that_a_terminal_obeys_or_that_fill_it_are_not(name):
    assert not is_displayable(name)


def _archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return buffer


def test_the_members_of_an_archive_come_by_name():
    archive, members = zip_members(_archive("a", "b/c"))
    assert list(members) == ["a", "b/c"]
    assert archive.read(members["b/c"]) == b"b/c"
    assert zip_members(_archive())[1] == {}


def test_an_archive_with_two_members_of_one_name_is_refused():
    content = _archive("first", "other").getvalue().replace(b"other", b"first")
    with pytest.raises(ValueError, match="it holds 'first' twice"):
        zip_members(io.BytesIO(content))


def test_a_directory_of_many_megabytes_is_not_read(monkeypatch):
    monkeypatch.setattr("d3fast.io.untrusted._MAX_ZIP_DIRECTORY", 100)
    with pytest.raises(ValueError, match="its directory is longer than 100 bytes"):
        zip_members(_archive("a" * 200))
