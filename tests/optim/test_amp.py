"""Mixed precision: ``grad_scale`` and ``found_inf`` as torch's fused optimizers take them."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

OPTIONS = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}


def pair(backend, **options):
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=g)) for s in ((4, 3), (9,))]
    opt = D3FusedSGD(params, track="all", backend=backend, **OPTIONS, **options)
    opt.warm_start("far")
    return params, opt


def snapshot(opt):
    return {
        (i, name): value.clone()
        for i, p in enumerate(p for g in opt.param_groups for p in g["params"])
        for name, value in [("theta", p.detach()), *opt.state[p].items()]
    }


def unchanged(opt, before):
    now = snapshot(opt)
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


def test_gradients_are_divided_by_grad_scale_in_place(backend, set_gradients, same_bits):
    params, opt = pair(backend)
    twins, plain = pair(backend)
    set_gradients(params, 0)
    set_gradients(twins, 0)
    for p in params:
        p.grad *= 1024.0
    opt.grad_scale, opt.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    opt.step()
    plain.step()
    assert same_bits(params, twins)
    assert same_bits([p.grad for p in params], [p.grad for p in twins])


def test_gradients_of_other_strides_are_unscaled_in_place(backend):
    (p, _), opt = pair(backend)
    p.grad = (torch.arange(12.0).view(3, 4) * 8).T
    opt.grad_scale = torch.tensor(8.0)
    opt.step()
    assert torch.equal(p.grad, torch.arange(12.0).view(3, 4).T)


@pytest.mark.parametrize("steps", [0, 2])
def test_on_overflow_nothing_moves(steps, backend, descend, set_gradients):
    params, opt = pair(backend)
    descend(opt, steps)
    before = snapshot(opt)
    set_gradients(params, steps)
    params[1].grad[0] = torch.inf
    grads = [p.grad.clone() for p in params]
    opt.grad_scale, opt.found_inf = torch.tensor(2.0), torch.tensor(1.0)
    opt.step()
    assert unchanged(opt, before)
    assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))


def test_an_overflow_in_the_first_step_leaves_the_next_one_undampened(backend, descend, same_bits):
    _, opt = pair(backend)
    opt.found_inf = torch.tensor(1.0)
    descend(opt, 1)
    del opt.found_inf
    _, fresh = pair(backend)
    assert same_bits(descend(opt, 2, start=1), descend(fresh, 2, start=1))


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_on_the_cpu_drives_it_as_it_drives_torch_sgd(backend, unscale, relative_error):
    results = []
    for ours in (True, False):
        params, opt = pair(backend, distance_weight=0.0, constraint=None)
        if not ours:
            opt = torch.optim.SGD(params, **OPTIONS)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        for step in range(6):
            opt.zero_grad()
            loss = sum(p.square().sum() for p in params)
            scaler.scale(loss).backward()
            if step == 3:
                params[0].grad[0, 0] = torch.inf
            if unscale:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update()
        results.append([*params, torch.tensor(scaler.get_scale())])
    assert relative_error(*results) <= 1e-6


def test_grad_scaler_leaves_unscaling_to_the_step(backend):
    params, opt = pair(backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    scaler.scale(params[0].sum() + params[1].sum()).backward()
    assert float(params[0].grad[0, 0]) == 256.0
    scaler.step(opt)
    assert float(params[0].grad[0, 0]) == 1.0
