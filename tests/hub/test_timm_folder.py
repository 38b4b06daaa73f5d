# SPDX-License-Identifier: Apache-2.0
"""Hub folders of timm, and of transformers around a model of timm."""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3fast.hub import Request, resolve
from tests.integrations.test_timm import EmptyTorchvision

CFG = {
    "input_size": [3, 32, 32],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "crop_pct": 0.8,
    "crop_mode": "center",
    "num_classes": 3,
}
CONFIG = {
    "architecture": "resnet10t",
    "num_classes": 3,
    "num_features": 512,
    "pretrained_cfg": CFG,
    "label_names": ["cat", "dog", "fox"],
}


@pytest.fixture(scope="module")
def timm():
    """Import timm, with a stand-in where torchvision is missing; forget it afterwards."""
    if find_spec("timm") is None:
        pytest.skip("needs timm")
    before, finder = set(sys.modules), EmptyTorchvision()
    if find_spec("torchvision") is None:
        sys.meta_path.append(finder)
    try:
        yield pytest.importorskip("timm", exc_type=ImportError)
    finally:
        sys.meta_path[:] = [f for f in sys.meta_path if f is not finder]
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def theirs(timm):
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=3).eval()


@pytest.fixture
def folder(tmp_path, theirs):
    made = tmp_path / "resnet10t.mine"
    made.mkdir()
    save_file(theirs.state_dict(), made / "model.safetensors", {"format": "pt"})
    (made / "config.json").write_text(json.dumps(CONFIG))
    return made


def edit(folder, **changes):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def test_a_folder_of_timm_is_a_suspect_and_is_written_back(folder, theirs, tmp_path):
    suspect = resolve(Request(str(folder)))
    assert (suspect.name, suspect.family) == ("resnet10t.mine", "resnet10t")
    assert suspect.classes == ("cat", "dog", "fox")
    assert (suspect.input.size, suspect.input.shorter) == ((32, 32), 40)
    assert suspect.model.state_dict().keys() == theirs.state_dict().keys()
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(CFG[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected, found = theirs((images - mean) / std), suspect.model(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    out = suspect.save(suspect.model, tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_the_prefix_of_transformers_is_taken_off_and_written_back(folder, theirs, tmp_path):
    held = {f"timm_model.{n}": v for n, v in theirs.state_dict().items()}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    edit(folder, model_type="timm_wrapper", architectures=["TimmWrapperForImageClassification"])
    suspect = resolve(Request(str(folder)))
    assert suspect.model.state_dict().keys() == theirs.state_dict().keys()
    out = suspect.save(suspect.model, tmp_path)
    assert load_file(out / "model.safetensors").keys() == held.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "hf-hub:evil/model"}, "is no architecture of timm"),
        ({"architecture": "local-dir:folder"}, "is no architecture of timm"),
        ({"architecture": "nothing_of_timm"}, "timm refuses it"),
        ({"model_args": {"checkpoint_path": "w.pt"}}, "option 'checkpoint_path' of timm is"),
        ({"model_args": {"pretrained": True}}, "option 'pretrained' of timm is refused"),
        ({"model_args": {"layers": [10**9] * 4}}, "more than 4096"),
        ({"model_args": {"channels": [2**20] * 4}}, "far more"),
        ({"model_args": ["a"]}, "model_args must be"),
        ({"num_classes": 10**9}, "more than 100000"),
        ({"num_classes": "many"}, "num_classes must be a number"),
        ({"num_classes": 4}, "label_names|does not fit"),
        ({"pretrained_cfg": CFG | {"input_size": [2, 32, 32]}}, "1 or 3 channels"),
        ({"pretrained_cfg": CFG | {"input_size": 224}}, "input_size must be"),
        ({"pretrained_cfg": CFG | {"std": [0, 1, 1]}}, "std must be > 0"),
        ({"pretrained_cfg": CFG | {"crop_pct": 1e-9}}, "crop_pct must be"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        resolve(Request(str(folder)))
    assert "resnet10t.mine" in str(caught.value)


def test_a_checkpoint_beside_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match="leave out --checkpoint"):
        resolve(Request(str(folder), checkpoint=folder / "model.safetensors"))


def test_without_a_normalisation_a_note_says_so(folder):
    edit(folder, pretrained_cfg={k: v for k, v in CFG.items() if k not in ("mean", "std")})
    suspect = resolve(Request(str(folder)))
    assert suspect.input.mean is None
    assert "as they are" in suspect.notes[0]
