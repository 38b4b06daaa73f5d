"""Steps that ``torch.compile`` puts into a graph, on the GPU."""

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

from d3fast import D3FusedSGD

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        not hasattr(torch._dynamo.config, "trace_autograd_ops"),
        reason="this torch breaks the graph at loss.backward()",
    ),
]


@pytest.fixture(autouse=True)
def fresh():
    """Counts from zero, and ``loss.backward()`` within the graph."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "tensor"])
def test_a_compiled_step_has_the_bits_of_an_eager_one(make, same_bits, kind):
    results = []
    for compiled in (False, True):
        params, opt = make(lr=kind(0.01))
        step = torch.compile(opt.step, fullgraph=True) if compiled else opt.step
        for t in range(4):
            g = torch.Generator().manual_seed(t)
            for p in params:
                p.grad = torch.randn(p.shape, generator=g).to(p)
            step()
        results.append([*params, *(opt.state[p]["momentum_buffer"] for p in params)])
    assert sum(counters["graph_break"].values()) == 0
    assert same_bits(*results)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_a_whole_training_step_is_one_graph(device, relative_error, mode, capturable):
    results = []
    for compiled in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5)).to(device)
            x = torch.randn(32, 20).to(device)
        lr = torch.tensor(0.01, device=device if capturable else "cpu")
        opt = D3FusedSGD(
            model.parameters(), track="all", lr=lr, momentum=0.9, capturable=capturable
        )
        opt.warm_start("far")
        y = torch.arange(32, device=device) % 5

        def step(x, model=model, opt=opt, y=y):
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()

        run = torch.compile(step, mode=mode, fullgraph=True) if compiled else step
        for t in range(6):
            lr.fill_(0.01 / (t + 1))
            run(x)
        results.append(list(model.parameters()))
    assert sum(counters["graph_break"].values()) == 0
    assert relative_error(*results) <= 1e-4
