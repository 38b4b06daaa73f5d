"""TOML files: size, syntax and depth."""

import pytest

from d3fast.io.toml_file import read_toml


def test_tables_come_as_dictionaries(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('a = 1\n[b]\nc.d = ["x", 2.5]\n')
    assert read_toml(path) == {"a": 1, "b": {"c": {"d": ["x", 2.5]}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"#" * 2**16 + b"#", "longer than 65536 bytes"),
        (b"a." * 1001 + b"a = 1", "more than 1000 dots"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.toml .*{message}"):
        read_toml(path)
