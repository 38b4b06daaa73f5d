"""Data sets of the hub, with a stand-in for its library."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from d3fast.hub import open_samples
from d3fast.hub.hub_data import downloaded_data

NAME = "hf://datasets/org/name"


class Library:
    """A hub with one data set."""

    def __init__(self, **files):
        self.files, self.asked = files, None

    def HfApi(self):
        siblings = [SimpleNamespace(rfilename=n, size=len(t)) for n, t in self.files.items()]
        return SimpleNamespace(dataset_info=lambda *_, **__: SimpleNamespace(siblings=siblings))

    def snapshot_download(self, name, *, repo_type, allow_patterns, local_dir):
        self.asked = (name, repo_type)
        for file in allow_patterns:
            path = Path(local_dir, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.files[file])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def install(**files):
        library = Library(**files)
        monkeypatch.setitem(sys.modules, "huggingface_hub", library)
        return library

    return install


FILES = {
    "data/train-0.csv": "text,label\nfine,pos\n",
    "data/test-0.csv": "text,label\nbad,neg\nfine,pos\n",
    "dataset_infos.json": "{}",
    "script.py": "raise SystemExit",
}


def test_tables_are_downloaded_and_no_code(hub, tmp_path):
    library = hub(**FILES)
    samples = open_samples(NAME, split="test")
    assert (len(samples.records), samples.classes) == (2, ("neg", "pos"))
    assert library.asked == ("org/name", "dataset")
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"train-0.csv", "test-0.csv"}


@pytest.mark.parametrize(
    ("files", "most", "says"),
    [
        (FILES, 10, "bytes, more than 10"),
        ({"script.py": ""}, 10, "no files of samples"),
    ],
)
def test_what_cannot_be_used_is_not_downloaded(hub, files, most, says):
    library = hub(**files)
    with pytest.raises(ValueError, match=says):
        downloaded_data(NAME, most)
    assert library.asked is None


@pytest.mark.parametrize(
    "name", ["hf://datasets/name", "hf://datasets/../x", "hf://datasets/a/b/c"]
)
def test_other_names_are_refused(hub, name):
    with pytest.raises(ValueError, match="must have the form"):
        downloaded_data(name, 10)


def test_no_connection_is_one_line(hub, monkeypatch):
    library = hub()

    def unreachable():
        raise OSError("no route\nto host")

    monkeypatch.setattr(library, "HfApi", unreachable)
    with pytest.raises(ValueError, match=r"cannot be downloaded: no route to host .*copy its"):
        downloaded_data(NAME, 10)


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'd3fast\[hub\]'"):
        downloaded_data(NAME, 10)
