"""``D3FusedSGD`` by name in timm's ``create_optimizer_v2``."""

import sys
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD, param_groups
from d3fast.integrations.timm import register_optimizers

PLAIN = {"distance_weight": 0.0, "constraint": None}


class EmptyTorchvision:
    """Stands in for torchvision, which timm imports and its optimizers do not use."""

    def find_spec(self, name, path=None, target=None):
        ours = name.partition(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec):
        return MagicMock(__path__=[], __version__="0", __spec__=spec)

    def exec_module(self, module):
        pass


@pytest.fixture(scope="module")
def timm_optim():
    """timm.optim with our optimizers; what was imported for it is forgotten."""
    if find_spec("timm") is None:
        pytest.skip("needs timm")
    before, finder = set(sys.modules), EmptyTorchvision()
    if find_spec("torchvision") is None:
        sys.meta_path.append(finder)
    try:
        timm_optim = pytest.importorskip("timm.optim", exc_type=ImportError)
        register_optimizers()
        yield timm_optim
    finally:
        sys.meta_path[:] = [f for f in sys.meta_path if f is not finder]
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]


def network():
    torch.manual_seed(0)
    rest = nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), *rest)


def train(model, opt, steps=3):
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        opt.zero_grad()
        model(torch.randn(5, 1, 4, 4, generator=g)).square().sum().backward()
        opt.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("ours", [D3FusedSGD, D3FusedAdamW])
def test_it_is_listed_with_its_class(timm_optim, ours):
    assert ours.__name__.lower() in timm_optim.list_optimizers()
    assert timm_optim.get_optimizer_class(ours.__name__.lower()) is ours


def test_a_model_by_name_has_timms_groups_and_momentum(timm_optim):
    model = network()
    opt = timm_optim.create_optimizer_v2(model, "d3fusedsgd", lr=0.02, weight_decay=0.1)
    assert type(opt) is D3FusedSGD
    decays = {g["weight_decay"]: len(g["params"]) for g in opt.param_groups}
    assert decays == {0.0: 3, 0.1: 2}  # vectors, and the weights of the two layers
    assert {(g["lr"], g["momentum"]) for g in opt.param_groups} == {(0.02, 0.9)}
    assert len(opt.distances()) == 2
    before = [p.detach().clone() for p in model.parameters()]
    assert all(bool((a != b).any()) for a, b in zip(train(model, opt), before, strict=True))


def test_options_of_the_class_are_passed_on(timm_optim):
    opt = timm_optim.create_optimizer_v2(
        network(), "d3fusedsgd", lr=0.02, momentum=0.5, track="all", scope="group", eps=1e-6
    )
    group = opt.param_groups[0]
    assert (group["momentum"], group["track"], group["scope"]) == (0.5, "all", "group")


def test_the_head_is_tracked_through_a_function_of_groups(timm_optim):
    groups = partial(param_groups, track="head")
    opt = timm_optim.create_optimizer_v2(network(), "d3fusedsgd", lr=0.02, param_group_fn=groups)
    assert list(opt.distances()) == ["3.weight"]


def test_named_parameters_are_taken_as_they_are(timm_optim):
    named = network().named_parameters()
    opt = timm_optim.create_optimizer_v2(named, "d3fusedsgd", lr=0.02, track="head")
    assert list(opt.distances()) == ["3.weight"]


@pytest.mark.parametrize("pair", [("d3fusedsgd", "momentum"), ("d3fusedadamw", "adamw")])
def test_a_plain_training_is_that_of_timms_own(timm_optim, pair):
    trained = []
    for name, options in zip(pair, (PLAIN, {}), strict=True):
        model = network()
        opt = timm_optim.create_optimizer_v2(model, name, lr=0.02, weight_decay=0.1, **options)
        trained.append(train(model, opt))
    for got, want in zip(*trained, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_layers_may_have_their_own_lr(timm_optim):
    timm = sys.modules["timm"]
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    opt = timm_optim.create_optimizer_v2(model, "d3fusedsgd", lr=0.02, layer_decay=0.5)
    assert len({g["lr_scale"] for g in opt.param_groups}) == 4
    model(torch.zeros(2, 3, 32, 32)).square().sum().backward()
    opt.step()
    assert float(opt.total_distance()) > 0


def test_lookahead_may_stand_around_it(timm_optim):
    model = network()
    opt = timm_optim.create_optimizer_v2(model, "lookahead_d3fusedsgd", lr=0.02)
    weights = train(model, opt, steps=6)
    assert all(bool(w.isfinite().all()) for w in weights)


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(ImportError, match=r"timm >= 1\.0\.12: pip install timm"):
        register_optimizers()
