"""Tests that need a GPU. Without one, or without its kernels, all are skipped with one line."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.runtime import environment


def why_not():
    """Why nothing here can run, or ``None``."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if not (environment.build_info() or {}).get("cuda"):
        return "d3fast was built without CUDA kernels"
    return None


def pytest_runtest_setup():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def device():
    """The GPU, with its index."""
    return torch.device("cuda", 0)


@pytest.fixture
def make(device):
    """Parameters away from their references, gradients set, and an optimizer over them."""

    def build(
        shapes=((64, 33), (), (0,), (9001,), (16384,)), seed=0, dtype=torch.float32, **options
    ):
        g = torch.Generator().manual_seed(seed)
        draw = lambda s: torch.randn(s, generator=g).to(device, dtype)  # noqa: E731
        params = [nn.Parameter(draw(s) + 3) for s in shapes]
        references = [draw(s) for s in shapes]
        for p in params:
            p.grad = draw(p.shape)
        options = {"lr": 0.01, "momentum": 0.9, "backend": "fused", **options}
        return params, D3FusedSGD(params, track="all", reference=references, **options)

    return build


@pytest.fixture(scope="session")
def same_bits():
    """Whether two lists of tensors are equal bit for bit."""
    return lambda first, second: all(
        torch.equal(a.detach(), b.detach()) for a, b in zip(first, second, strict=True)
    )


@pytest.fixture(scope="session")
def relative_error():
    """``||got - want|| / ||want||`` over all tensors, in float64 on the host."""

    def error(got, want):
        got, want = (
            torch.cat([t.detach().cpu().double().flatten() for t in ts]) for ts in (got, want)
        )
        return float((got - want).norm() / want.norm())

    return error


@pytest.fixture(scope="session")
def on_a_side_stream():
    """Calls a function some times, as torch's documentation of graphs asks for before a capture."""

    def run(function, times):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(times):
                function()
        torch.cuda.current_stream().wait_stream(stream)

    return run


@pytest.fixture(scope="session")
def warmed_up(on_a_side_stream):
    """A step that has run three times, as it is or as the replay of a graph."""

    def prepare(step, captured):
        on_a_side_stream(step, 3)
        if not captured:
            return step
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    return prepare
