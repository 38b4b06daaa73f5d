# SPDX-License-Identifier: Apache-2.0
import json
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from d3fast.hub import Request, resolve
from d3fast.models import make_model
from d3fast.optim.heads import find_head


def exported(path, model, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model.eval(), (images,)), path)
    return str(path)


def edited(path, edit):
    """Change the graph of an archive."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in held if name.endswith("models/model.json")]
    graph = json.loads(held[name])
    edit(graph["graph_module"]["graph"])
    held[name] = json.dumps(graph).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in held.items():
            archive.writestr(key, content)


@pytest.fixture
def archive(tmp_path):
    """A model, its archive, and images."""
    torch.manual_seed(0)
    model, images = make_model("preact_resnet_tiny", 3, 1).eval(), torch.rand(2, 1, 8, 8)
    return model, exported(tmp_path / "m.pt2", model, images), images


def test_the_program_is_run_under_the_names_of_its_weights(archive):
    model, path, images = archive
    suspect = resolve(Request(path))
    assert (suspect.family, suspect.spec, suspect.input.size) == ("torch.export", "m.pt2", (8, 8))
    torch.testing.assert_close(suspect.model(images), model(images))
    own = {name for name, _ in model.named_parameters()}
    assert {name for name, _ in suspect.model.named_parameters()} == own
    assert find_head(suspect.model)[0] == find_head(model)[0]
    assert any("Larger batches" in note for note in suspect.notes)


def test_a_repaired_copy_loads_into_the_model(archive, tmp_path):
    model, path, _ = archive
    suspect = resolve(Request(path))
    (tmp_path / "out").mkdir()
    stored = load_file(suspect.save(suspect.model, tmp_path / "out"))
    own = model.state_dict()
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], own[name]) for name in own)


def test_an_archive_with_another_operator_is_a_weight_file(archive):
    model, path, images = archive

    def custom(graph):
        graph["nodes"][0]["target"] = "torch.ops.evil.run.default"

    edited(path, custom)
    suspect = resolve(Request(path))
    assert suspect.spec == "preact_resnet_tiny"
    assert "torch.ops.evil.run.default, which is not run" in suspect.notes[0]
    torch.testing.assert_close(suspect.model(images), model(images))


def test_without_a_known_architecture_both_reasons_are_given(tmp_path):
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 3)

        def forward(self, images):
            return self.fc(images.flatten(1).sort(dim=1).values)

    path = exported(tmp_path / "m.pt2", Sorted(), torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"do not tell the architecture.*sort\.default, which is"):
        resolve(Request(path))


def test_a_checkpoint_beside_it_is_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="without --checkpoint"):
        resolve(Request(archive[1], checkpoint=tmp_path / "w.pt"))
