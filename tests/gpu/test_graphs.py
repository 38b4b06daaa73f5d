"""Steps in CUDA graphs and on several streams."""

import copy

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

# Of an empty graph, and of gradients that a side stream accumulated first.
pytestmark = pytest.mark.filterwarnings("default")


def new_gradients(params, step):
    g = torch.Generator().manual_seed(step)
    for p in params:
        p.grad.copy_(torch.randn(p.shape, generator=g))


SCALARS = {
    "norm_sphere": {"radius": 0.9},
    "distance_ball": {"radius": 0.8},
    "distance_shell": {"radius": (0.1, 0.8)},
}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("constraint", SCALARS)
def test_a_captured_step_is_the_eager_step(
    make, device, same_bits, warmed_up, constraint, nesterov
):
    results = []
    for captured in (False, True):
        lr = torch.tensor(0.01, device=device)
        given = SCALARS[constraint]["radius"]
        inner, outer = given if isinstance(given, tuple) else (None, given)
        radius = torch.tensor(outer, device=device)
        options = {"radius": radius if inner is None else (inner, radius), "nesterov": nesterov}
        params, opt = make(capturable=True, lr=lr, constraint=constraint, **options)
        step = warmed_up(opt.step, captured)
        for t in range(6):
            lr.fill_(0.01 / (t + 1))
            radius.fill_(outer * (1 + 0.1 * t))
            new_gradients(params, t)
            step()
        results.append(params)
    assert same_bits(*results)


def test_eager_steps_between_replays_do_not_disturb_them(make, same_bits, on_a_side_stream):
    results = []
    for captured in (False, True):
        params, opt = make(capturable=True)
        on_a_side_stream(opt.step, 3)
        static = [p.grad for p in params]
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                opt.step()
        for t in range(6):
            for p, grad in zip(params, static, strict=True):
                p.grad = grad
            new_gradients(params, t)
            if t % 2:  # from other addresses
                for p in params:
                    p.grad = p.grad.clone()
                opt.step()
            elif captured:
                graph.replay()
            else:
                opt.step()
        results.append(params)
    assert same_bits(*results)


def refreshed(opt):
    opt.refresh_distances()


def refreshed_and_stepped(opt):
    opt.refresh_distances()
    opt.step()


def one_gradient_less(opt):
    p = opt.param_groups[0]["params"][0]
    kept, p.grad = p.grad, None
    opt.step()
    p.grad = kept


def edited(opt):
    with torch.no_grad():
        opt.param_groups[0]["params"][4].mul_(0.5)
    opt.refresh_distances()


@pytest.mark.parametrize("between", [refreshed, refreshed_and_stepped, one_gradient_less, edited])
def test_a_graph_stays_valid_whatever_is_called_between_replays(
    make, relative_error, warmed_up, between
):
    results = []
    for captured in (False, True):
        params, opt = make(capturable=True)
        step = warmed_up(opt.step, captured)
        for t in range(6):
            new_gradients(params, t)
            if t % 2:
                between(opt)
            step()
        results.append([*params, *opt.distances().values()])
    assert relative_error(*results) <= 1e-5


def new_reference(opt):
    opt.set_reference([p.detach() * 0.5 for p in opt.param_groups[0]["params"]])


def reloaded(opt):
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))


@pytest.mark.parametrize("replace", [new_reference, reloaded])
def test_a_replay_writes_to_no_foreign_memory(make, device, warmed_up, replace):
    params, opt = make([(4096,), (300, 70)], capturable=True)
    step = warmed_up(opt.step, True)
    with pytest.warns(UserWarning, match="CUDA graphs captured before"):
        replace(opt)
    torch.cuda.synchronize()
    # As many blocks as were freed, of every size that the optimizer has.
    sizes = [8, 512, 4096 * 4, 300 * 70 * 4, 1 << 16]
    canaries = [torch.full((n,), 77, dtype=torch.uint8, device=device) for n in sizes * 16]
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    assert all(bool((canary == 77).all()) for canary in canaries)
    assert all(torch.isfinite(p).all() for p in params)


def test_a_replay_reads_the_scale_and_the_overflow_flag_anew(make, device, same_bits, warmed_up):
    results = []
    for captured in (False, True):
        params, opt = make(capturable=True)
        opt.grad_scale = torch.ones((), device=device)
        opt.found_inf = torch.zeros((), device=device)
        step = warmed_up(opt.step, captured)
        for t in range(6):
            new_gradients(params, t)
            opt.grad_scale.fill_(2.0**t)
            opt.found_inf.fill_(t % 2)
            before = [p.detach().clone() for p in params]
            step()
            assert same_bits(params, before) == bool(t % 2)
        results.append([*params, *(p.grad for p in params)])
    assert same_bits(*results)


def test_a_group_that_is_not_tracked_is_captured_beside_one_that_is(
    make, device, same_bits, warmed_up
):
    results = []
    for captured in (False, True):
        params, opt = make([(64, 33), (5000,)], capturable=True)
        plain = nn.Parameter(torch.ones(300, device=device))
        plain.grad = torch.ones_like(plain)
        opt.add_param_group({"params": [plain], "constraint": None, "distance_weight": 0.0})
        step = warmed_up(opt.step, captured)
        for _ in range(3):
            step()
        results.append([*params, plain])
    assert same_bits(*results)


def test_a_whole_training_step_is_one_graph(device, relative_error, on_a_side_stream):
    def train(captured):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5)).to(device)
        opt = D3FusedSGD(model.parameters(), track="all", lr=0.01, momentum=0.9, capturable=True)
        opt.warm_start("far")
        x = torch.randn(32, 20, device=device)
        y = torch.randint(0, 5, (32,), device=device)

        def step():
            opt.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()

        on_a_side_stream(step, 3)
        replay = step
        if captured:
            graph = torch.cuda.CUDAGraph()
            opt.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):  # gradients from the graph's own memory
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            replay = graph.replay
        for _ in range(10):
            x.mul_(0.9).add_(0.05)
            replay()
        torch.cuda.synchronize()
        return [p.detach().clone() for p in model.parameters()]

    assert relative_error(train(True), train(False)) <= 1e-5


def test_the_first_step_cannot_be_captured(make):
    params, opt = make(capturable=True)
    torch.cuda.synchronize()
    with (
        pytest.raises(RuntimeError, match="take one step with the same gradients"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        opt.step()
    assert all(set(opt.state[p]) == {"reference"} for p in params)  # none made in the graph


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_an_lr_on_the_device_may_have_any_floating_dtype(make, device, same_bits, kind):
    results = []
    for lr in (torch.tensor([0.0625], dtype=kind, device=device), 0.0625):
        params, opt = make(capturable=True, lr=lr)
        for _ in range(3):
            opt.step()
        results.append(params)
    assert same_bits(*results)


def test_steps_on_several_streams_follow_one_another(make, same_bits):
    results = []
    for streams in (1, 3):
        params, opt = make([(1_000_001,), (5000,)])
        pool = [torch.cuda.Stream() for _ in range(streams)]
        last = torch.cuda.current_stream()
        for t in range(9):
            stream = pool[t % streams]
            stream.wait_stream(last)
            with torch.cuda.stream(stream):
                new_gradients(params, t)
                opt.step()
            last = stream
        torch.cuda.current_stream().wait_stream(last)
        results.append(params)
    assert same_bits(*results)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_group_on_another_than_the_current_device(make):
    p = nn.Parameter(torch.randn(9000, device="cuda:1"))
    p.grad = torch.ones_like(p)
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend="fused")
    opt.grad_scale = torch.ones(1, device="cuda:0")
    for _ in range(3):
        opt.step()
    assert torch.cuda.current_device() == 0
    assert torch.isfinite(p).all()
    assert (torch.ones(3, device="cuda:0") + 1).sum() == 6
