# SPDX-License-Identifier: Apache-2.0
"""Image classifiers in hub folders: the scores of ``from_pretrained``, and back into the folder."""

import copy
import pickle

import pytest
import torch

from d3fast.hub import Request, resolve
from tests.hub.makers import FAMILIES, edit, from_pretrained, tiny, write_folder

pytest.importorskip("transformers", reason="needs the extra d3fast[hub]")
COMMON = ("resnet", "convnext", "mobilenet_v2", "vit", "deit", "beit", "dinov2", "swin")
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def scores(model, images):
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize(
    "family", [f if f in COMMON else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_the_scores_are_those_of_from_pretrained_and_so_is_what_is_written(family, tmp_path):
    folder = write_folder(tmp_path / "their-model", family)
    suspect = resolve(Request(str(folder)))
    assert (suspect.name, suspect.family) == ("their-model", family)
    assert suspect.classes == ("cat", "dog", "fox")
    edge = (suspect.input.size or (64, 64))[0]
    images = torch.rand(2, 3, edge, edge)
    theirs = scores(from_pretrained(folder), images).logits
    torch.testing.assert_close(scores(suspect.model, images), theirs, rtol=0, atol=1e-5)

    with torch.no_grad():
        next(suspect.model.parameters()).mul_(1.5)
    again = from_pretrained(suspect.save(suspect.model, tmp_path))
    expected = scores(suspect.model, images)
    torch.testing.assert_close(scores(again, images).logits, expected, rtol=0, atol=1e-5)


def test_names_without_a_change_are_those_of_the_file(tmp_path):
    suspect = resolve(Request(str(write_folder(tmp_path / "a", "resnet"))))
    assert suspect.model.state_dict().keys() == tiny("resnet").state_dict().keys()


def test_images_are_normalised_inside_the_model(tmp_path):
    folder = write_folder(tmp_path / "a", "vit", VIT)
    suspect, images = resolve(Request(str(folder))), torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(VIT[k])[:, None, None] for k in ("image_mean", "image_std"))
    theirs = scores(from_pretrained(folder), (images - mean) / std).logits
    torch.testing.assert_close(scores(suspect.model, images), theirs, rtol=0, atol=1e-5)
    assert (suspect.input.mean, suspect.input.size) == ((0.5, 0.4, 0.3), (32, 32))


def test_a_model_of_blue_green_red_takes_red_green_blue(tmp_path):
    processor = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}
    folder = write_folder(tmp_path / "a", "mobilevit", processor)
    suspect, images = resolve(Request(str(folder))), torch.rand(2, 3, 32, 32)
    theirs = scores(from_pretrained(folder), images.flip(1)).logits
    for model in (suspect.model, copy.deepcopy(suspect.model)):
        torch.testing.assert_close(scores(model, images), theirs, rtol=0, atol=1e-5)
    assert pickle.loads(pickle.dumps(suspect.model)) is not None


def test_a_family_with_two_classes_has_the_one_that_its_folder_names(tmp_path):
    import transformers

    config = transformers.DeiTConfig(**FAMILIES["deit"], num_labels=3)
    theirs = transformers.DeiTForImageClassificationWithTeacher(config).eval()
    theirs.save_pretrained(tmp_path / "a")
    suspect = resolve(Request(str(tmp_path / "a")))
    assert type(suspect.model.inner) is type(theirs)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        scores(suspect.model, images), scores(theirs, images).logits, rtol=0, atol=1e-5
    )


def test_a_checkpoint_beside_a_folder_is_refused(tmp_path):
    folder = write_folder(tmp_path / "a")
    with pytest.raises(ValueError, match="leave out --checkpoint"):
        resolve(Request(str(folder), checkpoint=folder / "model.safetensors"))


def test_other_folders_are_left_to_other_resolvers(tmp_path):
    folder = write_folder(tmp_path / "a")
    edit(folder / "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(ValueError, match="is no model"):
        resolve(Request(str(folder)))


def test_a_model_that_takes_no_images_is_refused(tmp_path):
    import transformers

    config = transformers.ImageGPTConfig(
        vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=1, num_labels=3
    )
    transformers.ImageGPTForImageClassification(config).save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match="takes input_ids, not images"):
        resolve(Request(str(tmp_path / "a")))
