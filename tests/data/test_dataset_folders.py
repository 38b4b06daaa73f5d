"""Folders of samples: every form, and the choice of a split."""

import json

import pytest
from PIL import Image

from d3fast.data.dataset_folders import folder_records
from tests.data.test_tables import png


def listed(path, split=None):
    return folder_records(path, split=split, max_memory=2**20)


def save(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png())


ROWS = "text,label\nfine,pos\n"


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "test.csv"),
        ("data/train-00000.csv", "data/test-00000.csv"),
        ("train/part-0.csv", "test/part-0.csv"),
        ("validation.csv", "val-1.csv", "test.csv", "dataset_infos.json"),
    ],
)
def test_tables_of_a_folder(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROWS)
    tables = sum(name.endswith(".csv") for name in names)
    assert len(listed(tmp_path)) == tables
    assert "All splits are taken" in listed(tmp_path).notes[-1]
    other = "dev" if "validation.csv" in names else "train"
    assert len(listed(tmp_path, other)) == tables - 1
    assert len(listed(tmp_path, "test").notes) == 1
    with pytest.raises(ValueError, match=r"has no split 'else' \(--split\), it has test, "):
        listed(tmp_path, "else")


def test_a_folder_of_images_with_metadata(tmp_path):
    save(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "b.png", "label": "dog"}\n{"file_name": "a.png", "label": "cat"}\n'
    )
    records = listed(tmp_path)
    assert [source.name[-5:] for source in records.inputs] == ["b.png", "a.png"]
    assert records.labels.tolist() == [1, 0]


def test_class_folders_beside_a_table_are_class_folders(tmp_path):
    save(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "notes.csv").write_text(ROWS)
    assert listed(tmp_path).classes == ("cat", "dog")


def test_a_split_of_class_folders(tmp_path):
    save(tmp_path, "train/cat/a.png", "train/dog/a.png", "val/cat/b.png")
    assert len(listed(tmp_path)) == 3
    assert len(listed(tmp_path, "validation")) == 1
    with pytest.raises(ValueError, match=r"no split 'test' .* it has train, validation"):
        listed(tmp_path, "test")


def test_images_without_class_folders_are_unlabelled(tmp_path):
    save(tmp_path, "b.png", "a.png", "Thumbs.db")
    records = listed(tmp_path)
    assert (len(records), records.classes, records.channels) == (2, None, 1)
    Image.new("RGB", (3, 3)).save(tmp_path / "0.png")
    assert listed(tmp_path).channels == 3


@pytest.fixture
def saved(tmp_path):
    """What ``datasets.DatasetDict.save_to_disk`` writes, for two splits."""
    pa = pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")
    from pyarrow import ipc

    names = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    for split, label in (("train", 1), ("test", 0)):
        folder = tmp_path / split
        folder.mkdir()
        table = pa.table({"text": ["fine"], "label": [label]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        with ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (folder / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return tmp_path


def test_a_saved_data_set(saved):
    records = listed(saved)
    assert (records.classes, records.labels.tolist()) == (("neg", "pos"), [1, 0])
    assert listed(saved, "test").labels.tolist() == [0]
    assert listed(saved / "train").labels.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("dataset_dict.json", '{"splits": ["../train"]}', "not a plain name"),
        ("dataset_dict.json", '{"splits": "train"}', "must list names under 'splits'"),
        ("dataset_dict.json", "[]", "object"),
        ("dataset_dict.json", "[" * 10**5, "dataset_dict.json"),
        ("dataset_dict.json", '{"splits": ["none"]}', "missing or not a folder"),
        ("train/state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', "not a plain name"),
        ("train/state.json", '{"_data_files": [5]}', "must list names under '_data_files'"),
        ("train/state.json", '{"_data_files": []}', "must list names under '_data_files'"),
        ("train/state.json", '{"_data_files": [{"filename": "none"}]}', "none is missing"),
    ],
)
def test_files_that_lead_elsewhere_are_refused(tmp_path, saved, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=says):
        listed(tmp_path)
