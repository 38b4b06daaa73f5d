"""Whole training steps that ``torch.compile`` makes one graph of."""

import pytest
import torch
import torch._dynamo
from torch import nn

import d3fast
from d3fast import D3FusedSGD

pytestmark = [
    pytest.mark.usefixtures("graphs"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(
        not hasattr(torch._dynamo.config, "trace_autograd_ops"),
        reason="this torch breaks the graph at loss.backward()",
    ),
]


def network():
    """A model and a batch; small, because most of what a test takes is the compilation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        return model, (torch.randn(12, 6), torch.arange(12) % 5)


def training(model, order="first", **options):
    """The model's whole step as a function of a batch, and the optimizer."""
    opt = D3FusedSGD(d3fast.param_groups(model), lr=0.05, momentum=0.9, **options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(0))
    loss_function = d3fast.CleanLoss()

    def step(x, y):
        if order == "first":
            opt.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        opt.step()
        if order == "last":
            opt.zero_grad()
        return loss.detach()

    return step, opt


@pytest.mark.parametrize(
    ("order", "kind"), [("first", "fused"), ("last", "fused"), ("last", "reference")]
)
def test_a_whole_training_step_is_one_graph(order, kind, same_bits, compiled, graphs):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        step, _ = training(model, order, backend=kind)
        step = run(step)
        results.append([*[step(*batch) for _ in range(4)], *model.parameters()])
    assert graphs() == 1
    assert same_bits(*results)


def test_inductor_compiles_the_whole_step(relative_error, compiled, graphs):
    results = []
    for run in (lambda f: f, lambda f: compiled(f, "inductor")):
        model, batch = network()
        step, _ = training(model, "first")
        step = run(step)
        for _ in range(3):
            step(*batch)
        results.append(list(model.parameters()))
    assert graphs() == 1
    assert relative_error(*results) <= 1e-4


def test_explain_finds_no_break():
    model, batch = network()
    step, _ = training(model, "last")
    found = torch._dynamo.explain(step)(*batch)
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's
def test_where_torch_breaks_the_graph_at_backward_the_step_adds_no_break():
    model, batch = network()
    step, _ = training(model)
    with torch._dynamo.config.patch(trace_autograd_ops=False):
        found = torch._dynamo.explain(step)(*batch)
    assert (found.graph_count, found.graph_break_count) == (2, 1)


def test_parts_of_a_batch_accumulate_in_the_graph_under_autocast(relative_error, compiled, graphs):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        _, opt = training(model)

        def step(x, y, model=model, opt=opt):
            for part in (slice(0, 6), slice(6, 12)):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(x[part]).float(), y[part]) / 2
                loss.backward()
            opt.step()
            opt.zero_grad()

        step = run(step)
        for _ in range(3):
            step(*batch)
        results.append(list(model.parameters()))
    assert graphs() == 1
    assert relative_error(*results) <= 1e-3


def test_a_closure_is_part_of_the_graph_and_zero_grad_can_keep_the_memory(same_bits, compiled):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        _, opt = training(model)

        def step(x, y, model=model, opt=opt):
            def closure():
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss.detach()

            loss = opt.step(closure)
            opt.zero_grad(set_to_none=False)
            return loss

        step = run(step)
        results.append([*[step(*batch) for _ in range(3)], *model.parameters()])
        assert all((p.grad == 0).all() for p in model.parameters())
    assert same_bits(*results)


def test_a_backward_that_passes_over_the_parameters_moves_nothing(compiled, same_bits):
    # Dynamo does that once the function has read the optimizer's param_groups.
    model, batch = network()
    _, opt = training(model)

    def step(x, y):
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = None
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()

    before = [p.detach().clone() for p in model.parameters()]
    compiled(step)(*batch)
    assert same_bits(before, list(model.parameters()))
