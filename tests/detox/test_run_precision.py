"""``detoxify`` in other memory formats and precisions."""

import pytest
import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.runtime.seeding import global_seed


def _small_convnet():
    with global_seed(0):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)
        )


def _images(seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (24,), generator=draw)
    return [(torch.rand(24, 1, 8, 8, generator=draw), labels)]


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"channels_last": True}, 1e-4), ({"precision": "bf16"}, 0.05)],
    ids=["channels_last", "bf16"],
)
def test_faster_arithmetic_ends_near_the_exact_one(options, tolerance):
    exact, fast = (
        detoxify(_small_convnet(), _images(), D3Config(epochs=3, **more), progress=False).model
        for more in ({}, options)
    )
    for key, tensor in exact.state_dict().items():
        got = fast.state_dict()[key]
        assert (got.dtype, got.stride()) == (tensor.dtype, tensor.stride())
        error = (got.double() - tensor.double()).norm()
        assert error <= tolerance * (tensor.double().norm() + 1e-3)


def test_bf16_is_what_the_model_computes_in():
    class Spy(nn.Module):
        seen = None

        def forward(self, x):
            Spy.seen = x.dtype
            return x

    model = nn.Sequential(nn.Linear(4, 4), Spy(), nn.Linear(4, 2))
    loader = [(torch.rand(8, 4), torch.arange(8) % 2)]
    detoxify(model, loader, D3Config.authors(epochs=1, precision="bf16"), progress=False)
    assert Spy.seen == torch.bfloat16
    detoxify(model, loader, D3Config.authors(epochs=1), progress=False)
    assert Spy.seen == torch.float32


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match=r"precision .*'fp8'"):
        D3Config(precision="fp8")
