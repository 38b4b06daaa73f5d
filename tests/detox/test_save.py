"""Weights as a file: they load back, tied ones once, the same weights as the same bytes."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import nn

from d3fast.detox import D3Config, DetoxResult, detoxify, save_weights
from d3fast.detox.save import save_tensors


class Tied(nn.Module):
    """The head shares its weight with an earlier layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.embed = nn.Linear(4, 4, bias=False)
        self.embed.weight = self.head.weight

    def forward(self, images):
        return self.head(torch.relu(self.embed(images.flatten(1))))


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clean.safetensors"


@pytest.mark.parametrize("kind", [plain, Tied])
def test_saved_weights_load_back_into_the_same_scores(path, kind):
    model, fresh = kind().eval(), kind().eval()
    save_weights(model, path)
    load_model(fresh, path)
    images = torch.rand(8, 1, 2, 2)
    assert torch.equal(fresh(images), model(images))
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_tied_weights_stay_tied_in_a_repair_and_are_written_once(path):
    batch = (torch.rand(8, 1, 2, 2), torch.arange(8) % 4)
    result = detoxify(Tied(), [batch], D3Config(epochs=2), progress=False)
    assert result.model.head.weight is result.model.embed.weight
    result.save(path)
    with safe_open(path, framework="pt") as file:
        assert len(file.keys()) == 2


def test_tensors_keep_their_names_and_dtypes_and_may_share_memory(path):
    shared = torch.arange(4.0)
    given = {"a.w": shared, "b.w": shared, "c": torch.ones(2, 2, dtype=torch.bfloat16).T}
    save_tensors(given, path, D3Config())
    written = load_file(path)
    assert written.keys() == given.keys()
    assert all(torch.equal(written[name], value) for name, value in given.items())
    first = path.read_bytes()
    save_tensors(given, path, D3Config())
    assert path.read_bytes() == first


@pytest.mark.parametrize("config", [D3Config(), D3Config.auto(constraint=None, warm_start="near")])
def test_the_file_carries_the_configuration(path, config):
    DetoxResult(plain(), (), config, 0.0).save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert D3Config(**json.loads(metadata["d3fast.config"])) == config


def test_saving_twice_gives_the_same_bytes(tmp_path):
    model = plain()
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        save_weights(model, file, D3Config())
    assert len({file.read_bytes() for file in files}) == 1


def test_weights_in_another_memory_layout_are_saved_too(path):
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten(), nn.Linear(4, 3))
    model = model.to(memory_format=torch.channels_last)
    save_weights(model, path)
    fresh = copy.deepcopy(model)
    nn.init.zeros_(fresh[0].weight)
    load_model(fresh, path)
    assert torch.equal(fresh[0].weight, model[0].weight)


def test_a_folder_that_does_not_exist_is_named(tmp_path, path):
    with pytest.raises(ValueError, match="there is no folder"):
        save_weights(plain(), tmp_path / "nowhere" / "clean.safetensors")
    save_weights(plain(), str(path))
    assert list(tmp_path.iterdir()) == [path]
