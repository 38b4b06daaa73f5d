"""JSON of strangers: bounded, and each name once."""

import pytest

from d3fast.io.json_file import parse_object, read_object


def test_an_object_is_returned(tmp_path):
    (tmp_path / "a.json").write_text('{"a": {"b": [1, 2.5, null]}}')
    assert read_object(tmp_path / "a.json") == {"a": {"b": [1, 2.5, None]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value"),
        (b"[1]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "a name twice"),
        (b'{"b": {"a": 1, "a": 2}}', "a name twice"),
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b'{"a":' * 10**5, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "\xff"}', "decode"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_object(text)


def test_the_deepest_text_that_is_read_has_32_levels():
    assert parse_object(b'{"a":' * 31 + b"1" + b"}" * 31)


def test_the_message_names_the_file_and_a_longer_file_is_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not usable JSON"):
        read_object(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="longer than 4 bytes"):
        read_object(tmp_path / "bad.json", limit=4)
