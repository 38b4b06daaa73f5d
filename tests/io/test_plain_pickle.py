"""Pickles of plain data, and those that want more."""

import contextlib
import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3fast.io.plain_pickle import read_plain_pickle

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)

# As Python 2 wrote CIFAR's: text is bytes, the array's content a string.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05trainq\x03U\x06labelsq\x04]q\x05(K\x06K\x02K\x09e"
    b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85"
    b"U\x01b\x87Rq\t(K\x01K\x03K\x04\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|"
    b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + bytes(range(12)) + b"tbu."
)


def test_the_format_of_python_2_is_read():
    read = read_plain_pickle(PYTHON_2)
    assert read["batch_label"] == b"train"
    assert read["labels"] == [6, 2, 9]
    assert np.array_equal(read["data"], ARRAY)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_python_3_and_numpy_write_today_is_read(protocol, order):
    data = {b"data": np.asarray(ARRAY, order=order), "labels": [0, 1, 300], "x": [("a", None, 1.5)]}
    read = read_plain_pickle(pickle.dumps(data, protocol=protocol))
    assert np.array_equal(read["data"], ARRAY)
    assert read["labels"] == [0, 1, 300]
    assert read["x"] == [("a", None, 1.5)]


class _Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden", [False, True], ids=["on top", "inside"])
def test_a_pickle_that_calls_something_is_refused_and_nothing_is_called(tmp_path, protocol, hidden):
    path = tmp_path / "called"
    for call in (_Evil(os.mkdir, str(path)), _Evil(eval, "__import__('os').getcwd()")):
        content = pickle.dumps({"labels": [call]} if hidden else call, protocol=protocol)
        with pytest.raises(ValueError, match=r"calls|does not build plain data"):
            read_plain_pickle(content)
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "error_text"),
    [
        (b"", "pickle exhausted"),
        (PYTHON_2[:100], "expected|exhausted|not enough|no newline"),
        (pickle.dumps([1]), "it is not a dictionary"),
        (pickle.dumps({"x": print}), "it holds a function or an object: 'builtins print'"),
        (pickle.dumps({"x": ARRAY.astype(np.int64)}, 4), "an array that is not of uint8"),
        (pickle.dumps({"x": np.array([{}], dtype=object)}, 4), "an array that is not of uint8"),
        (pickle.dumps({(1, 2): 3}), "its keys are not text"),
        (pickle.dumps({"x": ARRAY[:0]}, 4), "an array of invalid shape"),
        (b"\x80\x02b.", "stack"),
        (b"\x80\x02}K\x01s.", "damaged pickle"),
        (b"\x80\x02}e.", "damaged pickle"),
        (b"\x80\x02}(K\x01e.", "fills something that is not there"),
        (b"\x80\x02h\x07.", "damaged pickle"),
        (b"\x80\x02}K\x01.", "damaged pickle|too many"),
        (b"\x80\x02}X\xff\xff\xff\x7f.", "expected 2147483647 bytes"),
        (b"\x80\x02}r\xff\xff\xff\xff.", "dictionary|^$"),
        (PYTHON_2.replace(b"K\x03K\x04\x86", b"K\x03K\x05\x86"), "shape does not fit its bytes"),
    ],
)
def test_what_is_damaged_or_no_plain_dictionary_is_refused(content, error_text):
    if error_text.endswith("^$"):  # a forged position takes no memory and does no harm
        assert read_plain_pickle(content) == {}
        return
    with pytest.raises(ValueError, match=error_text):
        read_plain_pickle(content)


def test_nested_sharing_takes_no_time():
    # Every list holds the one before twice: 2**60 items to anyone who walks through.
    nested = "x"
    for _ in range(60):
        nested = [nested, nested]
    assert read_plain_pickle(pickle.dumps({"x": nested}))["x"][0] is not None


@given(st.lists(st.sampled_from([op.code for op in pickletools.opcodes]), max_size=30))
def test_any_instructions_give_data_or_one_kind_of_error(codes):
    content = b"\x80\x02}" + b"".join(code.encode("latin1") + b"\x01" for code in codes) + b"."
    with contextlib.suppress(ValueError):
        assert isinstance(read_plain_pickle(content), dict)
