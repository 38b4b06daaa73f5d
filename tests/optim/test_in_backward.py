"""Steps inside the backward pass: the bits of ordinary steps, and what cannot work is refused."""

import gc
import weakref

import pytest
import torch
from torch import nn

import d3fast
from benchmarks.speed.memory import allocations, peak
from d3fast.optim import D3FusedAdamW, D3FusedSGD, step_in_backward
from d3fast.optim.schedules import DistanceSchedule

OPTIONS = {
    "sphere": {},
    "nesterov": {"nesterov": True, "weight_decay": 0.01},
    "dampened": {"dampening": 0.3},
    "p1": {"distance_p": 1.0, "constraint": "distance_ball", "radius": 3.0},
    "plain SGD": {"distance_weight": 0.0, "constraint": None},
    "narrow": {"momentum_dtype": torch.bfloat16, "reference_dtype": torch.bfloat16},
}


def build(classifier, seed=0, dtype=torch.float32, **options):
    model, batch = classifier(dtype, seed)
    options = {"lr": 0.05, "momentum": 0.9, **options}
    return model, batch, D3FusedSGD(model.parameters(), **options)


def backward(model, batch):
    inputs, labels = batch
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    return loss.detach()


def train(model, batch, opt, steps=5, between=lambda t: None):
    for t in range(steps):
        opt.zero_grad()
        backward(model, batch)
        opt.step()
        between(t)


def bits(model, opt):
    tensors = [*model.parameters()]
    for p in model.parameters():
        tensors += [t for _, t in sorted(opt.state[p].items())]
    return [t.detach().clone() for t in tensors]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_bits_are_those_of_ordinary_steps(name, backend, classifier, same_bits):
    results = []
    for inside in (False, True):
        model, batch, opt = build(classifier, backend=backend, **OPTIONS[name])
        if inside:
            step_in_backward(model, opt)
        train(model, batch, opt)
        results.append(bits(model, opt))
    assert same_bits(*results)


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_the_bits_are_those_of_ordinary_steps_of_adamw(backend, classifier, same_bits):
    results = []
    for inside in (False, True):
        model, batch = classifier()
        opt = D3FusedAdamW(model.parameters(), lr=0.01, backend=backend)
        if inside:
            step_in_backward(model, opt)
        train(model, batch, opt)
        results.append(bits(model, opt))
    assert same_bits(*results)


def test_half_types_and_groups_of_several_dtypes_too(classifier, same_bits):
    results = []
    for inside in (False, True):
        model, batch = classifier(torch.float32)
        model[4].to(torch.bfloat16)
        model[4].register_forward_pre_hook(lambda _, args: (args[0].bfloat16(),))
        model[4].register_forward_hook(lambda _, args, out: out.float())
        with pytest.warns(UserWarning, match="mixes dtypes"):
            opt = D3FusedSGD(model.parameters(), lr=0.05, momentum=0.9)
        if inside:
            step_in_backward(model, opt)
        train(model, batch, opt)
        results.append(bits(model, opt))
    assert same_bits(*results)


def test_a_gradient_is_freed_when_its_step_is_taken(classifier):
    model, batch, opt = build(classifier)
    step_in_backward(model, opt)
    seen = []
    for p in model.parameters():  # runs after ours
        p.register_post_accumulate_grad_hook(
            lambda _: seen.append(sum(q.grad is not None for q in model.parameters()))
        )
    train(model, batch, opt, steps=2)
    assert seen == [0] * 2 * len(list(model.parameters()))


def test_the_peak_of_memory_falls_by_the_gradients():
    width, depth = 256, 8
    peaks = {}
    for inside in (False, True):
        model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
        opt = D3FusedSGD(model.parameters(), lr=0.01, momentum=0.9)
        if inside:
            step_in_backward(model, opt)

        def iteration(model=model, opt=opt):
            model(torch.ones(2, width)).sum().backward()
            opt.step()
            opt.zero_grad()

        iteration()
        peaks[inside] = peak(allocations(iteration))
    gradient = 4 * width * width
    assert peaks[False] >= depth * gradient
    assert peaks[True] <= 3 * gradient


def test_schedulers_work_as_before(classifier, same_bits):
    results = []
    for inside in (False, True):
        model, batch, opt = build(classifier)
        if inside:
            step_in_backward(model, opt)
        lr = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
        weight = DistanceSchedule(opt, "distance_weight", "linear", start=0.5, end=2.0, steps=4)

        def between(_, lr=lr, weight=weight):
            lr.step()
            weight.step()

        train(model, batch, opt, 5, between)
        assert opt.param_groups[0]["lr"] == 0.05 / 4
        results.append(bits(model, opt))
    assert same_bits(*results)


def test_a_state_passes_from_one_kind_of_step_to_the_other(classifier, same_bits):
    model, batch, opt = build(classifier)
    train(model, batch, opt, 6)
    want = bits(model, opt)
    for first, second in ((True, False), (False, True)):
        model, batch, opt = build(classifier)
        if first:
            step_in_backward(model, opt)
        train(model, batch, opt, 3)
        other, _, resumed = build(classifier, seed=1)
        other.load_state_dict(model.state_dict())
        if second:
            step_in_backward(other, resumed)
        resumed.load_state_dict(opt.state_dict())
        train(other, batch, resumed, 3)
        assert same_bits(bits(other, resumed), want)


def test_distances_and_edits_between_steps(classifier):
    results = []
    for inside in (False, True):
        model, batch, opt = build(classifier)
        if inside:
            step_in_backward(model, opt)

        def between(t, model=model, opt=opt):
            if t == 1:
                model[6].weight.data.mul_(1.5)  # noticed by the kernels
            if t == 2:
                opt.set_reference()
                opt.warm_start("noise", generator=torch.Generator().manual_seed(0))
            if t == 3:
                opt.refresh_distances()

        train(model, batch, opt, 6, between)
        results.append((model[6].weight.detach(), float(opt.total_distance())))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)


def test_hooks_of_the_user_run_and_other_parameters_take_the_ordinary_step(classifier, same_bits):
    results = []
    for inside in (False, True):
        model, batch = classifier()
        extra = nn.Parameter(torch.full((3, 2), 2.0))
        opt = D3FusedSGD([*model.parameters(), extra], lr=0.05, momentum=0.9)
        calls = []
        opt.register_step_post_hook(lambda *_, calls=calls: calls.append(1))
        for p in model.parameters():
            p.register_hook(lambda g: g * 0.5)
        if inside:
            step_in_backward(model, opt)
        for _ in range(3):
            opt.zero_grad()
            inputs, labels = batch
            loss = nn.functional.cross_entropy(model(inputs), labels)
            (loss + extra.sum()).backward()
            assert extra.grad is not None
            opt.step()
        assert len(calls) == 3
        results.append([extra.detach(), *bits(model, opt)])
    assert same_bits(*results)


def test_frozen_parameters_and_those_outside_the_optimizer_are_left_alone(classifier):
    model, batch = classifier()
    model[0].requires_grad_(False)
    opt = D3FusedSGD(model[4].parameters(), lr=0.05)
    step_in_backward(model, opt)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, batch, opt, 1)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [p is model[4].weight or p is model[4].bias for p in model.parameters()]
    assert model[6].weight.grad is not None


def test_tied_weights_step_once(same_bits):
    results = []
    for inside in (False, True):
        first = nn.Linear(6, 6, bias=False)
        with torch.no_grad():
            first.weight.copy_(torch.linspace(-1, 1, 36).view(6, 6))
        model = nn.Sequential(first, nn.Tanh(), first)
        opt = D3FusedSGD(model.parameters(), lr=0.1)
        if inside:
            step_in_backward(model, opt)
        for _ in range(2):
            opt.zero_grad()
            model(torch.ones(2, 6)).square().sum().backward()
            opt.step()
        results.append(bits(model, opt))
    assert same_bits(*results)


def test_remove_and_the_context_manager_end_it(classifier):
    model, batch, opt = build(classifier)
    handle = step_in_backward(model, opt)
    handle.remove()
    handle.remove()
    backward(model, batch)
    assert model[0].weight.grad is not None
    opt.zero_grad()
    with step_in_backward(model, opt):
        backward(model, batch)
        assert model[0].weight.grad is None
        opt.step()
    before = model[0].weight.detach().clone()
    backward(model, batch)
    assert torch.equal(model[0].weight, before)
    opt.step(lambda: 1.0)  # closures are welcome again
    assert not torch.equal(model[0].weight, before)


def test_nothing_outlives_the_model_and_the_optimizer(classifier):
    model, batch, opt = build(classifier)
    step_in_backward(model, opt)
    train(model, batch, opt, 1)
    alive = [weakref.ref(opt), weakref.ref(model[0].weight)]
    del model, opt
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_an_error_of_a_step_comes_out_of_the_backward_pass(classifier):
    model, batch, opt = build(classifier)
    step_in_backward(model, opt)
    opt.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr must be .* got -1\.0"):
        backward(model, batch)


def test_accumulation_is_refused(classifier):
    model, batch, opt = build(classifier)
    step_in_backward(model, opt)
    backward(model, batch)
    with pytest.raises(RuntimeError, match=r"6\.(weight|bias) got a second gradient before opt"):
        backward(model, batch)


def test_a_closure_is_refused_before_it_is_called(classifier):
    model, _, opt = build(classifier)
    step_in_backward(model, opt)
    for call in (lambda c: opt.step(c), lambda c: opt.step(closure=c)):
        with pytest.raises(ValueError, match="closure"):
            call(lambda: pytest.fail("the closure was called"))


def test_a_grad_scaler_is_refused(classifier):
    model, batch, opt = build(classifier)
    step_in_backward(model, opt)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    inputs, labels = batch
    scaler.scale(nn.functional.cross_entropy(model(inputs), labels)).backward()
    with pytest.raises(ValueError, match="GradScaler"):
        scaler.step(opt)


def test_one_norm_over_a_group_is_refused_now_and_later(classifier):
    model, batch, opt = build(classifier, scope="group")
    with pytest.raises(ValueError, match="param group 0 has scope='group'"):
        step_in_backward(model, opt)
    alone, batch, opt = build(classifier)
    step_in_backward(alone, opt)
    opt.param_groups[0]["scope"] = "group"
    with pytest.raises(ValueError, match="param group 0 has scope='group'"):
        backward(alone, batch)


def test_one_tracked_tensor_may_have_either_scope(classifier):
    model, batch = classifier()
    opt = D3FusedSGD(d3fast.param_groups(model), lr=0.1, scope="group")
    step_in_backward(model, opt)
    train(model, batch, opt, 1)


def test_what_reduces_gradients_later_is_refused(classifier, monkeypatch):
    model, _, opt = build(classifier)

    class FullyShardedDataParallel(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    with pytest.raises(ValueError, match="FullyShardedDataParallel reduces gradients"):
        step_in_backward(FullyShardedDataParallel(model), opt)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="2 ranks"):
        step_in_backward(model, opt)


def test_what_fits_not_together_is_refused(classifier):
    model, batch, opt = build(classifier)
    with pytest.raises(ValueError, match="optimizer must be a D3 optimizer, got SGD"):
        step_in_backward(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no trainable parameter"):
        step_in_backward(nn.Linear(2, 2), opt)
    backward(model, batch)
    with pytest.raises(ValueError, match=r"0\.weight has a gradient already"):
        step_in_backward(model, opt)
    opt.zero_grad()
    step_in_backward(model, opt)
    with pytest.raises(ValueError, match=r"0\.weight steps in backward already"):
        step_in_backward(model, opt)
