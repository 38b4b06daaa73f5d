"""Tiny hub folders of many families, written by transformers itself."""

import json
import warnings

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra d3fast[hub]")

LABELS = {0: "cat", 1: "dog", 2: "fox"}
SIZE = 32
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
    "patch_size": 8,
}
_SWIN = {"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1]}
_STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}

# Options of a tiny model of each family.
FAMILIES = {
    "resnet": {"embedding_size": 8, **_STAGES},
    "regnet": {"embedding_size": 8, "groups_width": 8, **_STAGES},
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "bit": {"embedding_size": 8, "num_groups": 4, **_STAGES},
    "vit": _VIT,
    "deit": _VIT,
    "beit": _VIT | {"use_relative_position_bias": True},
    "dinov2": _VIT,
    "siglip": {"vision_config": _VIT, "text_config": {"vocab_size": 8}},
    "swin": _SWIN | {"num_heads": [2, 2], "window_size": 4},
    "swinv2": _SWIN | {"num_heads": [2, 2], "window_size": 4},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128},
    "poolformer": _STAGES,
    "pvt": {
        "num_labels": len(LABELS),
        "image_size": SIZE,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
    },
    "levit": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "depths": [1, 1, 1],
        "num_attention_heads": [2, 2, 2],
        "key_dim": [4, 4, 4],
    },
    "mobilevit": {
        "image_size": SIZE,
        "hidden_sizes": [8, 8, 16],
        "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
        "num_attention_heads": 2,
    },
}


def tiny(family, labels=LABELS, **options):
    """Return a randomly initialised model of a family."""
    torch.manual_seed(0)
    kind = transformers.CONFIG_MAPPING[family]
    config = kind(**FAMILIES[family], id2label=labels, label2id=None, **options)
    classes = transformers.AutoModelForImageClassification._model_mapping[type(config)]
    first = classes[0] if isinstance(classes, tuple) else classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return first(config).eval()


def write_folder(folder, family="resnet", processor=None, save=None, **options):
    """Write a hub folder as its owner would, and return its path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny(family, **options).save_pretrained(folder, **(save or {}))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def from_pretrained(folder):
    """Return what transformers makes of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForImageClassification.from_pretrained(folder).eval()


def edit(path, **changes):
    """Change keys of a JSON file; ``None`` takes them out."""
    held = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
