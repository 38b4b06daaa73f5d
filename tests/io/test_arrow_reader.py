"""Parquet files and Arrow streams: values, class names, and what claims more than it holds."""

import json
import sys

import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")

from pyarrow import ipc, parquet  # noqa: E402

from d3fast.io.arrow_reader import read_arrow_here, read_parquet_here  # noqa: E402

NAMES = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
IMAGE = {"bytes": b"pixels", "path": None}


def every(names):
    return names


def example(**columns):
    table = pa.table({"text": ["a", "b"], "label": [0, 1], "image": [IMAGE, IMAGE], **columns})
    return table.replace_schema_metadata({"huggingface": json.dumps(NAMES)})


def write(path, table, **given):
    if path.suffix == ".parquet":
        parquet.write_table(table, path, **given)
    else:
        options = ipc.IpcWriteOptions(**given)
        with ipc.new_stream(str(path), table.schema, options=options) as writer:
            writer.write_table(table)
    return path


READERS = {"a.parquet": read_parquet_here, "a.arrow": read_arrow_here}


@pytest.mark.parametrize("name", READERS)
def test_values_and_class_names_are_read(tmp_path, name):
    words = pa.array(["x", "y"]).dictionary_encode()
    table = READERS[name](write(tmp_path / name, example(word=words)), every, 2**20)
    assert table.columns["text"] == ["a", "b"]
    assert table.columns["label"] == [0, 1]
    assert table.columns["image"] == [IMAGE, IMAGE]
    assert table.columns["word"] == ["x", "y"]
    assert table.names == {"label": ("neg", "pos")}


@pytest.mark.parametrize("name", READERS)
def test_only_chosen_columns_are_read(tmp_path, name):
    path = write(tmp_path / name, example(nested=[[1], [2]]))
    assert READERS[name](path, lambda _: ["text"], 2**20).columns == {"text": ["a", "b"]}
    with pytest.raises(ValueError, match="column 'nested' holds list"):
        READERS[name](path, every, 2**20)


@pytest.mark.parametrize("name", READERS)
def test_columns_beyond_the_memory_limit_are_refused(tmp_path, name):
    path = write(tmp_path / name, pa.table({"text": ["x" * 1000] * 100}))
    with pytest.raises(ValueError, match="unpack to more than 1500 bytes"):
        READERS[name](path, every, 1500)


def test_a_page_that_claims_gigabytes_is_refused_before_it_is_decoded(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"text": ["0" * 2**27]}), compression="zstd")
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match="unpack to more than"):
        read_parquet_here(path, every, 2**32)


def test_a_value_that_every_row_repeats_is_counted_every_time(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"text": ["0" * 2**20] * 1000}))
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="unpack to more than"):
        read_parquet_here(path, every, 2**32)


def test_compressed_buffers_are_refused(tmp_path):
    path = write(tmp_path / "a.arrow", example(), compression="zstd")
    with pytest.raises(ValueError, match="buffers are compressed"):
        read_arrow_here(path, every, 2**20)
    words = pa.table({"word": pa.array(["x", "y"] * 500).dictionary_encode()})
    path = write(tmp_path / "b.arrow", words, compression="lz4")
    with pytest.raises(ValueError, match="buffers are compressed"):
        read_arrow_here(path, every, 2**20)


def test_offsets_that_point_outside_are_refused(tmp_path):
    path = write(tmp_path / "a.arrow", pa.table({"text": ["abc", "defg"]}))
    content = path.read_bytes()
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 3, 7))
    assert content.count(offsets) == 1
    bad = b"".join(n.to_bytes(4, "little") for n in (0, 3, 2**30))
    path.write_bytes(content.replace(offsets, bad))
    with pytest.raises(ValueError, match=r"a.arrow cannot be used"):
        read_arrow_here(path, every, 2**20)


def test_a_name_with_a_point_would_name_a_field_and_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"a.b": ["x"]}))
    with pytest.raises(ValueError, match="a point in its name"):
        read_parquet_here(path, every, 2**20)


@pytest.mark.parametrize("held", [b"", b"[]", b"[" * 10**5, b'{"info":{"features":{"label":5}}}'])
def test_metadata_that_hold_no_names_are_nothing(tmp_path, held):
    table = example().replace_schema_metadata({b"huggingface": held})
    assert read_parquet_here(write(tmp_path / "a.parquet", table), every, 2**20).names == {}


def test_a_damaged_file_is_one_line(tmp_path):
    for name in READERS:
        content = write(tmp_path / name, example()).read_bytes()
        for cut in (0, 1, 8, 40, len(content) // 2, len(content) - 9):
            (tmp_path / name).write_bytes(content[:cut])
            with pytest.raises(ValueError, match=name) as raised:
                READERS[name](tmp_path / name, every, 2**20)
            assert str(raised.value).isprintable()


def test_a_missing_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs the package pyarrow: .*d3fast\[tables\]"):
        read_parquet_here(tmp_path / "a.parquet", every, 2**20)
