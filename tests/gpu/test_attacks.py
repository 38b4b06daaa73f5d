"""Triggers on a GPU: the same as on the CPU, for every attack."""

import pytest
import torch

from d3fast import data, evaluate
from d3fast.attacks import ATTACKS, TrainConfig, ensure_learned, recipe, train_backdoored
from d3fast.models import make_model

SPLITS = data.digits(0, train=200, clean=50)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_a_trigger_is_the_same_on_both_devices(device, name, kind, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 10 bits are not the CPU's 24
    attack = recipe(name, "digits")
    ensure_learned(attack, name, SPLITS.train, progress=False)
    images = SPLITS.test.images[:64]
    images = images if kind == "uint8" else images.float() / 255
    here, there = attack.trigger(images), attack.trigger(images.to(device))
    assert there.device.type == "cuda"
    # Half a grey level either way may be rounded apart.
    atol = 1 if kind == "uint8" else 1e-4
    torch.testing.assert_close(there.cpu().float(), here.float(), rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["badnets", "wanet", "input-aware"])
def test_a_backdoor_is_trained_and_measured_on_the_gpu(device, name):
    attack = recipe(name, "digits")
    splits = SPLITS.to(device)
    model = make_model("preact_resnet_tiny", 10, 1).to(device)
    config = TrainConfig(epochs=2, precision="bf16", channels_last=True, augment=data.Augment())
    train_backdoored(model, splits.train, attack, config=config, progress=False)
    assert next(model.parameters()).is_cuda
    assert evaluate(model, splits.test.batches(100), attack).images == len(splits.test)
