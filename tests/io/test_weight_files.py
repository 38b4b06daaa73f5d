"""Weight files of both formats through one door."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from d3fast.io.entries import TensorEntry
from d3fast.io.weight_files import PICKLES, SUFFIXES, open_weights


class Call:
    """Pickled as a call that would run a program."""

    def __reduce__(self):
        return os.system, ("true",)


def write(path, tensors):
    if path.suffix.lower() == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", *PICKLES, ".PT", ".SafeTensors"])
def test_every_suffix_gives_entries_that_can_be_read_inside_the_block(tmp_path, suffix):
    path = write(tmp_path / f"w{suffix}", {"a": torch.arange(3)})
    with open_weights(path) as held:
        assert isinstance(held["a"], TensorEntry)
        assert held["a"].read().tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["w.onnx", "w"])
def test_another_suffix_is_refused_with_the_known_ones(tmp_path, name):
    with (
        pytest.raises(ValueError, match=rf"\.safetensors, \.pt.*{name}"),
        open_weights(tmp_path / name),
    ):
        pass


@pytest.mark.parametrize("suffix", PICKLES)
def test_code_is_refused_by_its_name_with_a_way_out(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save({"a": Call()}, path)
    with pytest.raises(ValueError, match=r"system.*refused.*safetensors"), open_weights(path):
        pass


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_an_error_that_names_the_file(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(ValueError, match=rf"w\{suffix} is damaged"), open_weights(path):
        pass


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), open_weights(tmp_path / "w.pt"):
        pass
