# SPDX-License-Identifier: Apache-2.0
"""Size, crop and normalisation, compared with the image processors of transformers."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from d3fast.hub import Request
from d3fast.hub.folders import HubFolder
from d3fast.hub.image_processor import image_input, reverse_channels

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
NORMALISED = {"image_mean": MEAN, "image_std": STD}


def read(tmp_path, settings, config=None, request=Request("a"), file="preprocessor_config.json"):  # noqa: B008
    if settings is not None:
        (tmp_path / file).write_text(json.dumps(settings))
    return image_input(HubFolder(tmp_path, "a", "a", config or {}), request)


def normalised(found, pixels):
    """What the model gets of an image (3, H, W) in [0, 1]."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (found.input.mean, found.input.std))
    images = ((pixels - mean) / std)[None]
    return reverse_channels(nn.Identity(), (images,))[0] if found.reversed else images


SETTINGS = {
    "ViT": {"size": {"height": 24, "width": 24}},
    "ViT-rescaled": {"size": {"height": 24, "width": 24}, "rescale_factor": 1 / 127.5},
    "ViT-not-rescaled": {"size": {"height": 24, "width": 24}, "do_rescale": False},
    "ViT-not-normalised": {
        "size": {"height": 24, "width": 24},
        "do_normalize": False,
        "rescale_factor": 1 / 510,
    },
    "DeiT": {"size": {"height": 24, "width": 24}, "do_center_crop": False},
    "Bit": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "CLIP": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "ConvNext": {"size": {"shortest_edge": 24}, "crop_pct": 0.875},
    "EfficientNet": {"size": {"height": 24, "width": 24}},
    "EfficientNet-offset": {
        "size": {"height": 24, "width": 24},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "include_top": False,
    },
    "MobileNetV2": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "MobileViT": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "PoolFormer": {"size": {"shortest_edge": 24}, "crop_pct": 0.9, "crop_size": 24},
    "Levit": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "Siglip": {"size": {"height": 24, "width": 24}},
    "Pvt": {"size": {"height": 24, "width": 24}},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_flat_image_becomes_what_the_processor_makes_of_it(case, tmp_path):
    """A resize and a crop do not change it, so this compares size and normalisation."""
    transformers = pytest.importorskip("transformers", reason="needs the extra d3fast[hub]")
    name = f"{case.partition('-')[0]}ImageProcessor"
    kind = getattr(transformers, f"{name}Pil", None)
    if kind is None:
        pytest.skip("this transformers has no processor that works without torchvision")
    settings = {"image_processor_type": name, **SETTINGS[case]}
    if case != "MobileViT":
        settings |= NORMALISED
    found = read(tmp_path, settings)
    colour = np.array([200, 100, 50], dtype=np.uint8)
    image = np.broadcast_to(colour, (40, 60, 3)).copy()
    with np.errstate(all="ignore"):
        theirs = kind.from_dict(settings)(image, return_tensors="pt")["pixel_values"]
    height, width = found.input.size
    pixels = torch.tensor(colour / 255.0).float()[:, None, None].expand(3, height, width)
    if found.input.mean is None:
        ours = reverse_channels(nn.Identity(), (pixels[None],))[0]
    else:
        ours = normalised(found, pixels)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("settings", "size", "shorter"),
    [
        ({"image_processor_type": "ViTFeatureExtractor", "size": 224}, (224, 224), None),
        ({"image_processor_type": "ViTImageProcessorFast", "size": [8, 9]}, (8, 9), None),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 224}, (224, 224), 256),
        (
            {
                "image_processor_type": "ConvNextFeatureExtractor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.95,
            },
            (224, 224),
            235,
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            (384, 384),
            None,
        ),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
            },
            (224, 224),
            256,
        ),
        (
            {
                "image_processor_type": "LevitImageProcessor",
                "size": {"shortest_edge": 224},
                "do_center_crop": True,
                "crop_size": 224,
            },
            (224, 224),
            256,
        ),
        (
            {
                "image_processor_type": "MobileNetV2ImageProcessor",
                "size": 256,
                "do_center_crop": True,
                "crop_size": 224,
            },
            (224, 224),
            256,
        ),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, (30, 30), None),
    ],
)
def test_the_crop_is_found(tmp_path, settings, size, shorter):
    found = read(tmp_path, {**settings, **NORMALISED}, {"image_size": 30}).input
    assert (found.size, found.shorter) == (size, shorter)


def test_images_stretched_before_a_crop_are_noted(tmp_path):
    settings = {
        "image_processor_type": "DeiTImageProcessor",
        "size": 256,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    }
    found = read(tmp_path, {**settings, "size": {"height": 256, "width": 256}})
    assert (found.input.size, found.input.shorter) == ((224, 224), 256)
    assert "stretches images to 256x256" in found.notes[0]


def test_a_folder_without_a_processor_is_noted(tmp_path):
    found = read(tmp_path, None, {"image_size": 48, "num_channels": 1})
    assert (found.input.size, found.input.mean, found.input.channels) == ((48, 48), None, 1)
    assert "use --mean and --std" in found.notes[0]


def test_a_processor_inside_another_file_is_found(tmp_path):
    inner = {"image_processor": {"image_processor_type": "ViTImageProcessor", **NORMALISED}}
    found = read(tmp_path, inner, file="processor_config.json")
    assert found.input.mean == tuple(MEAN)


def test_an_unknown_processor_and_steps_that_are_not_done_are_noted(tmp_path):
    found = read(tmp_path, {"image_processor_type": "My\nProcessor", "do_pad": True, **NORMALISED})
    assert len(found.notes) == 2
    assert all(note.isprintable() for note in found.notes)
    assert found.input.std == tuple(STD)


def test_the_user_s_word_comes_first(tmp_path):
    settings = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        **NORMALISED,
    }
    asked = Request("a", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), size=112)
    found = read(tmp_path, settings, request=asked).input
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert (found.size, found.shorter) == ((112, 112), 128)


@pytest.mark.parametrize("asked", [Request("a", mean=(0.5,)), Request("a", std=(0.5,) * 4)])
def test_a_normalisation_of_other_channels_is_refused(tmp_path, asked):
    with pytest.raises(ValueError, match="must have 3 numbers"):
        read(tmp_path, {"image_processor_type": "ViTImageProcessor", **NORMALISED}, request=asked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_std": [0, 1, 1]}, "image_std must be > 0"),
        ({"image_std": [1, 1]}, "image_std must have 3 numbers"),
        ({"image_mean": ["a", 0, 0], **{"image_std": STD}}, "image_mean must be a number"),
        ({"rescale_factor": 0}, "rescale_factor must be > 0"),
        ({"rescale_factor": 1e999}, "holds Infinity"),
        ({"size": 10**9}, "size must be 1 to 8192"),
        ({"size": {"height": -1, "width": 8}}, "size must be 1 to 8192"),
        ({"size": {"shortest_edge": "9"}}, "size must be 1 to 8192"),
        ({"size": True}, "size must be 1 to 8192"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {"image_processor_type": "ViTImageProcessor", **settings})


def test_a_model_of_two_channels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must take 1 or 3 channels, got 2"):
        read(tmp_path, None, {"num_channels": 2})
