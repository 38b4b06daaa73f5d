"""D3 as a defence is ``detoxify``."""

import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.defenses import D3


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


def test_its_default_is_the_default_configuration():
    assert D3().config == D3Config()
