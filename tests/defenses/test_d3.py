"""D3 as a defence is ``detoxify``."""

import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.defenses import D3
from d3fast.models import preact_resnet_tiny


def test_it_is_detoxify_with_its_configuration():
    draw = torch.Generator().manual_seed(0)
    loader, held_out = (
        [(torch.rand(8, 1, 2, 2, generator=draw), torch.arange(8) % 3)] for _ in range(2)
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    config = D3Config.paper(epochs=3, lr=0.1, seed=5)
    seen = []
    defense = D3(config, on_epoch=lambda epoch, _: seen.append(epoch))
    result = defense(model, loader, held_out, progress=False)
    direct = detoxify(model, loader, config, held_out, progress=False)
    assert torch.equal(result.model[1].weight, direct.model[1].weight)
    assert torch.equal(result.model[1].bias, direct.model[1].bias)
    assert result.history == direct.history == tuple(seen)
    assert result.history[0].val_accuracy is not None


def test_it_says_how_many_blocks_it_chose_to_restart():
    model = preact_resnet_tiny(3, 1).eval()
    loader = [(torch.rand(8, 1, 8, 8), torch.arange(8) % 3)]
    shared = {"epochs": 1, "lr": 1e-6, "averaging": 0.0, "warm_start": "near"}
    config = D3Config(restart="auto", max_acc_drop=100.0, distillation=0.4, **shared)
    assert D3(config)(model, loader, loader, progress=False).chosen == {"restart": 2}
    assert D3(D3Config(**shared))(model, loader, None, progress=False).chosen == {}


def test_its_default_is_the_default_configuration():
    assert D3().config == D3Config()
