"""Samples in tables: texts, images and paths, with labels or without."""

import io
import json
import os

import pytest
from PIL import Image

from d3fast.data.columns import Columns
from d3fast.data.records import decode_images
from d3fast.data.tables import is_table, table_records
from d3fast.io.images import Fit


def png(shade=0, mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, (3, 3), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    """Writes a table beside two images and lists its samples."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "sub" / "b.png").write_bytes(png(2))

    def call(name, content, **asked):
        (tmp_path / name).write_text(content)
        return table_records([tmp_path / name], Columns(**asked), max_memory=2**20)

    return call


def test_texts_of_a_csv_file(read):
    records = read("a.csv", "text,label\nfine,pos\nbad,neg\n")
    assert (list(records.inputs), records.channels) == (["fine", "bad"], None)
    assert (records.classes, records.labels.tolist()) == (("neg", "pos"), [1, 0])
    assert "labels from 'label'" in records.notes[0]


def test_texts_without_labels(read):
    records = read("a.jsonl", '{"text": "fine"}\n{"text": "bad"}\n')
    assert (records.classes, records.labels) == (None, None)


def test_images_by_paths_from_the_tables_folder(read):
    records = read("a.csv", "file,class\na.png,0\nsub/b.png,1\n")
    images = decode_images(records, Fit(), 1)
    assert (images[:, 0, 0, 0].tolist(), records.channels) == ([1, 2], 1)
    assert records.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([2, 0], ("0", "1", "2"), [2, 0]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        ([True, False], ("false", "true"), [1, 0]),
        ([" pos ", "neg"], ("neg", "pos"), [1, 0]),
        ([-1, -1], None, None),
    ],
)
def test_labels_of_any_type(read, labels, classes, numbers):
    rows = [json.dumps({"text": "a", "label": label}) for label in labels]
    records = read("a.jsonl", "\n".join(rows))
    assert records.classes == classes
    assert (records.labels if numbers is None else records.labels.tolist()) == numbers


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text,label\nfine,\n", "row 1 has no label"),
        ("a.jsonl", '{"text": "a", "label": null}', "row 1 has no label"),
        ("a.jsonl", '{"text": "a", "label": 0.5}', "row 1 has no label"),
        ("a.jsonl", '{"text": 5, "label": 1}', "row 1 has 5 in place of a text"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}', "row 1 is no Unicode text"),
        ("a.csv", "text,label\nfine,a\x1b[2J\n", "not a name of one short line"),
        ("a.csv", "text,label\nfine,70000\n", "labels must be in 0..65535"),
        ("a.csv", "text,label\n", "no samples"),
        ("a.json", "[]", "a.json has no rows"),
        ("a.csv", "file,class\n../outside.png,0\n", "row 1: .* no relative path"),
        ("a.csv", "file,class\n/etc/passwd,0\n", "row 1: .* no relative path"),
        ("a.csv", "file,class\nsub\\b.png,0\n", "row 1: .* no relative path"),
        ("a.csv", "file,class\nnone.png,0\n", "row 1: .*none.png is missing"),
        ("a.csv", "file,class\nlink.png,0\n", "row 1: .*leads out"),
        ("a.csv", "file,class\nout/outside.png,0\n", "row 1: .*leads out"),
        ("a.csv", "file,class\na.csv,0\n", "not an image"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_file(read, tmp_path, name, content, says):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir(exist_ok=True)
    (outside / "outside.png").write_bytes(png())
    os.symlink(outside / "outside.png", tmp_path / "link.png")
    os.symlink(outside, tmp_path / "out")
    with pytest.raises(ValueError, match=says) as raised:
        read(name, content)
    assert name in str(raised.value)
    assert str(raised.value).isprintable()


def test_all_files_have_the_columns_of_the_first(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nfine,pos\n")
    (tmp_path / "b.csv").write_text("label,id,text\nneg,7,bad\n")
    (tmp_path / "c.csv").write_text("text\nbad\n")
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    assert table_records(paths[:2], max_memory=2**20).labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"c.csv cannot be used: it has no column 'label'"):
        table_records(paths, max_memory=2**20)


def test_all_files_together_keep_the_memory_limit(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nfine,pos\n")
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    assert len(table_records(paths, max_memory=8)) == 2
    with pytest.raises(ValueError, match=r"b.csv and .* 8 bytes, more than 7 \(--max-memory\)"):
        table_records(paths, max_memory=7)


def test_images_and_class_names_of_a_parquet_file(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")
    from pyarrow import parquet

    names = {"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}
    images = [{"bytes": png(n, "RGB"), "path": f"{n}.png"} for n in (8, 9)]
    table = pa.table({"image": images, "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, tmp_path / "a.parquet")
    records = table_records([tmp_path / "a.parquet"], max_memory=2**20)
    assert (records.classes, records.labels.tolist()) == (("dog", "cat"), [1, 0])
    assert decode_images(records, Fit(), 3)[:, 0, 0, 0].tolist() == [8, 9]


def test_a_class_index_beyond_the_names_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")
    from pyarrow import parquet

    names = {"info": {"features": {"label": {"names": ["a"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["x", "y"], "label": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"labels must be in 0..0, got 1"):
        table_records([tmp_path / "a.parquet"], max_memory=2**20)


def test_the_name_decides_what_is_a_table(tmp_path):
    assert all(is_table(tmp_path / f"a{s}") for s in (".CSV", ".tar.gz", ".parquet", ".zip"))
    assert not any(is_table(tmp_path / f"a{s}") for s in (".npz", ".txt", ".xlsx", ""))
