"""The stack machine: plain data is built, names and calls are left to the reader."""

import pickle
import time

import pytest

from d3fast.io.pickles import AsksForCode, Handlers, Name, plain_key, read_pickle


def _refuse(name, arguments):
    raise AsksForCode(name)


def _ignore(item, state):
    pass


READER = Handlers(_refuse, _ignore)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(protocol):
    data = [1, -(2**40), 2**2000, 1.5, "é" * 300, None, True, (), (1, (2, 3, 4, 5)), {"a": {1: []}}]
    if protocol > 2:  # before, bytes are a call
        data.append(b"x" * 300)
    assert read_pickle(pickle.dumps(data, protocol), READER) == data


def test_a_file_is_left_at_what_follows_the_pickle(tmp_path):
    (tmp_path / "two").write_bytes(pickle.dumps([1], 2) + pickle.dumps([2], 2) + b"rest")
    with open(tmp_path / "two", "rb") as file:
        assert [read_pickle(file, READER) for _ in range(2)] == [[1], [2]]
        assert file.read() == b"rest"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cos\nsystem\nX\1\0\0\0x\x85R.",
        b"\x80\x04\x8c\2os\x8c\6system\x93\x8c\1x\x85R.",
        b"(X\1\0\0\0xios\nsystem\n.",
        b"(cos\nsystem\nX\1\0\0\0xo.",
        b"\x80\x02cos\nsystem\nX\1\0\0\0x\x85\x81.",
    ],
    ids=["GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ"],
)
def test_every_way_to_call_reaches_the_reader(content):
    with pytest.raises(AsksForCode) as caught:
        read_pickle(content, READER)
    assert caught.value.args == ("os system",)


def test_a_name_alone_is_data():
    assert read_pickle(b"\x80\x02cos\nsystem\n.", READER) == Name("os system")


@pytest.mark.parametrize(
    ("content", "error_text"),
    [
        (b"\x80\x02}X\1\0\0\0x\x85R.", "calls something that is no function"),
        (b"\x80\x02c" + b"o" * 600 + b"\nx\n.", "by a name that is too long"),
        (b"\x80\x02X\1\0\0\0aQ.", "refers to things outside itself"),
        (b"\x80\x02\x82\1.", "its instruction EXT1"),
        (b"\x80\x02N" + b"N" * 50 + b".", "more than 20 instructions"),
    ],
)
def test_what_is_not_plain_is_refused(content, error_text):
    with pytest.raises(ValueError, match=error_text):
        read_pickle(content, READER, limit=20)


def test_keys_that_double_with_every_level_take_no_time():
    start = time.process_time()
    (key,) = read_pickle(b"\x80\x02}NN\x86" + b"q\0h\0\x86" * 64 + b"Ns.", READER)
    assert repr(key) == "of several parts"
    assert time.process_time() - start < 1


def test_text_and_numbers_stay_keys():
    assert [plain_key(key) for key in ("a", b"a", 1, 1.5, None)] == ["a", b"a", 1, 1.5, None]
