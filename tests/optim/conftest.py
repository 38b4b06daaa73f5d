"""What the tests of the optimizer share: gradients, trajectories, distances between them."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD


def _set_gradients(params, step):
    g = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64).to(p)


@pytest.fixture(scope="session")
def set_gradients():
    """Gives every parameter a gradient that depends on the step alone."""
    return _set_gradients


@pytest.fixture(scope="session")
def descend():
    """Takes steps; ``between(step, params)`` runs after the gradients are set."""

    def run(opt, steps, start=0, between=None):
        params = [p for group in opt.param_groups for p in group["params"]]
        for t in range(start, start + steps):
            _set_gradients(params, t)
            if between is not None:
                between(t, params)
            opt.step()
        return [p.detach().clone() for p in params]

    return run


@pytest.fixture(scope="session")
def relative_error():
    """``||got - want|| / ||want||`` over all tensors, in float64."""

    def error(got, want):
        got, want = (torch.cat([t.detach().double().flatten() for t in ts]) for ts in (got, want))
        return float((got - want).norm() / want.norm())

    return error


@pytest.fixture(scope="session")
def same_bits():
    """Whether two lists of tensors are equal bit for bit."""

    def same(first, second):
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    return same


@pytest.fixture(scope="session")
def far_apart():
    """Parameters well away from their references, and an optimizer over them.

    A distance near 0 has no stable direction, and float32 could not follow float64 there.
    """

    def make(
        dtype=torch.float32,
        shapes=((7, 5), (), (0,), (1,), (300,)),
        optimizer=D3FusedSGD,
        **options,
    ):
        g = torch.Generator().manual_seed(0)
        draw = lambda s: torch.randn(s, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
        params = [nn.Parameter(draw(s) + 3) for s in shapes]
        options = {"lr": 0.05, "backend": "fused", **options}
        options.setdefault("reference", [draw(s) for s in shapes])
        return params, optimizer(params, track="all", **options)

    return make


@pytest.fixture(params=["reference", "fused"])
def backend(request):
    """Both backends."""
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def dtype(request):
    """Both dtypes whose steps follow float64 closely."""
    return request.param


@pytest.fixture(
    params=[torch.float32, torch.float64, torch.bfloat16, torch.float16],
    ids=["f32", "f64", "bf16", "f16"],
)
def any_dtype(request):
    """All dtypes that have kernels."""
    return request.param


@pytest.fixture
def classifier():
    """A small real model with its batch: convolution, batch norm, two linear layers."""

    def make(dtype=torch.float32, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(4 * 6 * 6, 16),
                nn.Tanh(),
                nn.Linear(16, 5),
            ).to(dtype)
            batch = torch.randn(12, 1, 6, 6, dtype=dtype), torch.randint(0, 5, (12,))
        return model, batch

    return make


@pytest.fixture(scope="session")
def compiled():
    """Compiles a function whole: a break in the graph raises."""
    return lambda function, backend="aot_eager": torch.compile(
        function, backend=backend, fullgraph=True
    )


@pytest.fixture
def graphs():
    """How many graphs were compiled since the test began; none of them was broken."""
    import torch._dynamo  # takes a second that most tests can save
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()

    def count():
        assert sum(counters["graph_break"].values()) == 0
        return counters["stats"]["unique_graphs"]

    # Where torch can, loss.backward() is a part of the graph.
    options = {"trace_autograd_ops": True}
    can = hasattr(torch._dynamo.config, "trace_autograd_ops")
    with torch._dynamo.config.patch(**(options if can else {})):
        yield count
