"""Mixed precision: the scale and the overflow flag are read by the kernels."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD


@pytest.mark.parametrize("where", ["device", "host"])
def test_gradients_are_divided_by_the_scale_in_place(make, device, same_bits, where):
    (params, opt), (twins, plain) = make(), make()
    for p in params:
        p.grad *= 1024.0
    place = device if where == "device" else "cpu"
    opt.grad_scale = torch.tensor([1024.0], device=place)
    opt.found_inf = torch.tensor([0.0], device=place)
    opt.step()
    plain.step()
    assert same_bits(params, twins)
    assert same_bits([p.grad for p in params], [p.grad for p in twins])


@pytest.mark.parametrize("steps", [0, 2])
def test_on_overflow_nothing_moves(make, device, same_bits, steps):
    params, opt = make(dampening=0.2)
    for _ in range(steps):
        opt.step()
    held = lambda: [  # noqa: E731
        t.clone() for p in params for t in (p.detach(), p.grad, *opt.state[p].values())
    ]
    before = held()
    opt.grad_scale = torch.full((1,), 2.0, device=device)
    opt.found_inf = torch.ones(1, device=device)
    opt.step()
    assert same_bits(held(), before)


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_drives_it_as_it_drives_torch_sgd(device, relative_error, unscale):
    results = []
    for ours in (True, False):
        g = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(s, generator=g).to(device)) for s in ((40, 30), (9,))]
        options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}
        if ours:
            plain = {"distance_weight": 0.0, "constraint": None, "backend": "fused"}
            opt = D3FusedSGD(params, **options, **plain)
        else:
            opt = torch.optim.SGD(params, **options)
        scaler = torch.amp.GradScaler("cuda", init_scale=256.0, growth_interval=2)
        for step in range(6):
            opt.zero_grad()
            scaler.scale(sum(p.square().sum() for p in params)).backward()
            if step == 3:
                params[0].grad[0, 0] = torch.inf
            if unscale:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update()
        results.append([*params, torch.tensor(scaler.get_scale())])
    assert relative_error(*results) <= 1e-6
