# SPDX-License-Identifier: Apache-2.0
import io

import pytest

from d3fast.io.protobuf import Messages, Span
from tests.io.onnx_files import field, varint


def fields(content):
    messages = Messages(io.BytesIO(content))
    return messages, list(messages.fields(messages.whole))


def test_fields_of_every_kind_are_numbers_or_ranges_of_bytes():
    messages, found = fields(field(1, 300) + field(2, b"abc") + field(3, 1.0))
    assert found[0] == (1, 300)
    assert found[2] == (3, 0x3F800000)
    assert messages.text(found[1][1], 10) == "abc"


def test_packed_numbers_are_signed():
    messages, found = fields(field(8, varint(-1) + varint(2**40)))
    assert messages.numbers(found[0][1], 10) == [-1, 2**40]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (varint(1 << 3 | 2) + varint(9) + b"abc", "longer than its message"),
        (b"\xff" * 20, "does not end"),
        (varint(1 << 3 | 3), "a field of kind 3"),
        (field(1, 300)[:-1], "does not end"),
    ],
)
def test_a_damaged_message_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        fields(content)


def test_the_number_of_fields_is_limited_over_all_messages():
    with pytest.raises(ValueError, match="more than 1048576 fields"):
        fields(field(1, 0) * (2**20 + 1))


@pytest.mark.parametrize("read", ["numbers", "floats", "text"])
def test_long_lists_and_texts_are_refused(read):
    messages = Messages(io.BytesIO(bytes(10_000)))
    with pytest.raises(ValueError, match="more than"):
        getattr(messages, read)(Span(0, 10_000), 100)
