"""The example of the page runs as written."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from d3fast.detox import read_config, save_weights
from d3fast.models import load_weights, make_model

PAGE = (Path(__file__).parents[2] / "docs" / "detox.md").read_text(encoding="utf-8")


@pytest.fixture
def suspect(tmp_path, monkeypatch):
    """What the page's reader has: a checkpoint and a folder of clean samples."""
    monkeypatch.chdir(tmp_path)
    draws = torch.Generator().manual_seed(0)
    for label in range(3):
        folder = tmp_path / "clean" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = torch.randint(0, 256, (8, 8), generator=draws, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    save_weights(make_model("preact_resnet_narrow", 3, 1), tmp_path / "suspect.safetensors")


def test_the_python_example_runs(suspect, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(example, names)
    load_weights(make_model("preact_resnet_narrow", 3, 1), tmp_path / "repaired.safetensors")
    assert names["result"].config.max_acc_drop == 2.0


def test_the_toml_example_is_read(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "d3.toml").write_text(example)
    config = read_config(tmp_path / "d3.toml")
    assert (config.lr, config.constraint) == (0.03, None)
