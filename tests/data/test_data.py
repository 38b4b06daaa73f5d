"""The registry of data sets."""

from pathlib import Path

import numpy as np
import pytest

import d3fast.data
from d3fast.data import DATASETS, RESIZABLE, load


def test_every_data_set_with_a_cache_folder_looks_there_and_says_how_to_get_it(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in DATASETS.keys() - {"digits", "fashion-mnist", "folder", "npz"}:
        with pytest.raises(ValueError, match="--data-dir FOLDER") as caught:
            load(name, 0, clean=1)
        assert str(tmp_path / "d3fast" / name) in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_a_users_own_images_need_a_place(name):
    with pytest.raises(ValueError, match=f"data_dir must be given for '{name}'"):
        load(name, 0, clean=1)


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"dataset must be one of 'digits', .*'npz', or .* got 'mnist'"
    ):
        load("mnist", 0, clean=1)


def test_a_size_below_one_is_refused(tmp_path):
    for name in RESIZABLE:
        with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
            load(name, 0, clean=1, size=0, data_dir=tmp_path)


def test_load_hands_everything_on(tmp_path):
    images, labels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1), np.arange(20) % 2
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    splits = load("npz", 3, train=6, clean=4, data_dir=tmp_path / "mine.npz")
    assert [len(part) for part in (splits.train, splits.clean, splits.test)] == [6, 4, 4]


def test_no_function_of_the_package_hides_a_module():
    modules = {path.stem for path in Path(d3fast.data.__path__[0]).glob("*.py")}
    assert not modules & set(d3fast.data.__all__)
