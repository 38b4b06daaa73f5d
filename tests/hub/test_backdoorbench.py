"""Result files of BackdoorBench, written here as its ``save_attack_result`` lays them out."""

import numpy as np
import pytest
import torch

from d3fast.hub import Request, resolve
from d3fast.hub.backdoorbench import resolve_backdoorbench
from d3fast.models.preact_resnet_bare import bare_preact_resnet18
from tests.hub.vision import get_model, torchvision

__all__ = ["torchvision"]


def result(state, name="preactresnet18", **changes):
    """A dictionary as an attack leaves it."""
    samples = {"x": torch.zeros(4, 3, 32, 32), "y": torch.zeros(4, dtype=torch.int64)}
    return {
        "model_name": name,
        "num_classes": 10,
        "model": state,
        "data_path": "../data/cifar10",
        "img_size": [32, 32, 3],
        "clean_data": "cifar10",
        "bd_train": {**samples, "original_index": np.arange(4)},
        "bd_test": samples,
        **changes,
    }


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return bare_preact_resnet18(10, 3).state_dict()


@pytest.fixture
def write(tmp_path):
    def to_file(held, name="attack_result.pt"):
        torch.save(held, tmp_path / name)
        return Request(str(tmp_path / name))

    return to_file


def test_the_weights_are_read_and_normalised_as_the_data_set_is(write, weights):
    suspect = resolve(write(result(weights)))
    assert (suspect.family, suspect.name) == ("preactresnet18", "attack_result")
    assert suspect.spec == "d3fast.models.preact_resnet_bare:bare_preact_resnet18"
    assert suspect.input.size == (32, 32)
    assert suspect.input.mean == (0.4914, 0.4822, 0.4465)
    assert suspect.notes[:2] == (
        "A result file of BackdoorBench: preactresnet18, trained on cifar10, images of 32 pixels. "
        "Normalised as its models of cifar10 are.",
        "Its paths and poisoned samples are not read.",
    )
    model = bare_preact_resnet18(10, 3).eval()
    model.load_state_dict(weights)
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (suspect.input.mean, suspect.input.std))
    with torch.no_grad():
        torch.testing.assert_close(suspect.model(images), model((images - mean) / std))


def test_another_normalisation_and_size_may_be_given(write, weights):
    request = write(result(weights, clean_data="gtsrb", img_size=(32, 32, 3)))
    assert resolve(request).input.mean == (0.0, 0.0, 0.0)
    given = Request(request.model, mean=(0.5,) * 3, std=(0.5,) * 3, size=48)
    suspect = resolve(given)
    assert (suspect.input.mean, suspect.input.size) == ((0.5,) * 3, (48, 48))
    assert "Normalised as" not in suspect.notes[0]


def test_a_data_set_that_is_not_known_has_no_normalisation(write, weights):
    suspect = resolve(write(result(weights, clean_data="own", img_size=None)))
    assert suspect.input.mean is None
    assert "No normalisation is known for own: give --mean and --std." in suspect.notes[0]


def test_architectures_of_torchvision_take_the_images_of_the_data_set(write, torchvision):
    state = get_model("resnet18", num_classes=10).state_dict()
    suspect = resolve(write(result(state, "resnet18")))
    assert suspect.spec == "torchvision:resnet18"
    assert (suspect.input.size, suspect.input.shorter) == ((32, 32), None)
    assert suspect.input.mean == (0.4914, 0.4822, 0.4465)
    assert not any("As torchvision configures it" in note for note in suspect.notes)


def test_what_cannot_be_built_or_does_not_fit_is_refused_with_the_reason(write, weights):
    with pytest.raises(
        ValueError, match=r"holds a model 'vit\\x1b' of BackdoorBench, which d3fast"
    ):
        resolve(write(result(weights, "vit\x1b")))
    with pytest.raises(ValueError, match=r"does not fit the model: it lacks 'conv1\.weight'"):
        resolve(write(result({"linear.weight": torch.zeros(10, 512)})))
    wide = {**weights, "conv1.weight": torch.zeros(65, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"does not fit preactresnet18: 'conv1\.weight' has shape"):
        resolve(write(result(wide)))


def test_other_files_are_left_to_others(write, weights, tmp_path):
    assert resolve_backdoorbench(write({"model": weights}, "plain.pt")) is None
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    for name in (str(tmp_path / "damaged.pt"), str(tmp_path), "preact_resnet18", "hf://a/b.pt"):
        assert resolve_backdoorbench(Request(name)) is None
    beside = Request("preact_resnet18", tmp_path / "attack_result.pt")
    assert resolve_backdoorbench(beside) is None
