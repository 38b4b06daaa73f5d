"""Names, complaints and files of strangers."""

import os
import signal

import pytest

from d3fast.untrusted import complaint, open_regular, printable, read_limited


@pytest.mark.parametrize(
    "name", ["a\nb", "a\rb", "\x1b[31m", "\x9b1m", "a\u2028b", "\udcff", "a\u202eb"]
)
def test_what_a_terminal_would_obey_is_spelled_out(name):
    shown = printable(name)
    assert shown.isprintable()
    assert shown.isascii()
    assert "\\" in shown


def test_readable_text_stays_as_it_is():
    assert printable("Größe/図 1.png") == "Größe/図 1.png"


def test_a_long_text_keeps_both_ends():
    shown = printable("start" + "." * 10_000 + "end.png")
    assert len(shown) <= 300
    assert shown.startswith("start.")
    assert shown.endswith(".end.png")


def test_a_complaint_is_one_line():
    assert complaint(ValueError("a\n  b\x00")) == "a b\\x00"
    assert complaint(ZeroDivisionError()) == "ZeroDivisionError"


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
        with pytest.raises(ValueError, match="is no regular file"):
            open_regular(tmp_path / name)
    finally:
        signal.alarm(0)


def test_nothing_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match="no regular"):
            open_regular(tmp_path / "pipe")
        with pytest.raises(IsADirectoryError):
            open_regular(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
