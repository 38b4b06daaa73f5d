"""Steps on tensors without values: memory estimators run a training in ``FakeTensorMode``."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from d3fast import D3FusedAdamW, D3FusedSGD, param_groups
from d3fast.optim.layout import is_fake

PLAIN = {"distance_weight": 0.0, "constraint": None}
HALF = {"momentum_dtype": torch.float32}


def train(model, steps=2, **options):
    cls = options.pop("cls", D3FusedSGD)
    momentum = {"momentum": 0.9} if cls is D3FusedSGD else {}
    opt = cls(model.parameters(), **{"lr": 0.1, **momentum, **options})
    opt.warm_start()
    width = model[0].in_features
    for _ in range(steps):
        model(torch.ones(4, width, dtype=model[0].weight.dtype)).sum().backward()
        opt.step()
        opt.zero_grad()
    return opt


def network(dtype=torch.float32, width=10):
    return nn.Sequential(nn.Linear(width, width, dtype=dtype), nn.Linear(width, 3, dtype=dtype))


def layout_of(opt):
    described = lambda t: (t.shape, t.dtype, t.device, t.stride())  # noqa: E731
    return [{name: described(t) for name, t in own.items()} for own in opt.state.values()]


@pytest.mark.parametrize("kind", ["auto", "fused", "reference"])
@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        (PLAIN, torch.float32),
        ({**PLAIN, "momentum": 0.0}, torch.float32),
        ({"scope": "group", "distance_p": 1.0, "dampening": 0.1}, torch.float32),
        ({"track": "all", "constraint": "distance_ball", "radius": 0.5}, torch.bfloat16),
        (HALF, torch.bfloat16),
        ({"cls": D3FusedAdamW}, torch.float32),
        ({"cls": D3FusedAdamW, **PLAIN}, torch.bfloat16),
    ],
    ids=str,
)
def test_the_state_has_the_shapes_dtypes_and_strides_of_a_real_training(kind, options, dtype):
    real = train(network(dtype), backend=kind, **options)
    with FakeTensorMode():
        fake = train(network(dtype), backend=kind, **options)
    assert layout_of(fake) == layout_of(real)
    assert all(is_fake(t) for own in fake.state.values() for t in own.values())


def test_distances_and_state_dicts_exist_without_values():
    with FakeTensorMode():
        opt = train(network())
        assert opt.total_distance().shape == ()
        assert [d.shape for d in opt.distances().values()] == [(), ()]
        opt.load_state_dict(opt.state_dict())


def test_groups_of_a_model_step_too():
    with FakeTensorMode():
        model = network()
        opt = D3FusedSGD(param_groups(model), momentum=0.9)
        model(torch.ones(4, 10)).sum().backward()
        opt.step()
        assert [sorted(own) for own in opt.state.values()].count(["momentum_buffer"]) == 3


def test_a_scaler_may_stand_between():
    with FakeTensorMode():
        model, scaler = network(), torch.amp.GradScaler("cpu")
        opt = D3FusedSGD(model.parameters(), momentum=0.9)
        scaler.scale(model(torch.ones(4, 10)).sum()).backward()
        scaler.step(opt)
        assert "momentum_buffer" in opt.state[model[0].weight]


def test_the_fused_step_needs_no_memory_beside_its_state():
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker")
    with FakeTensorMode():
        model = network(width=1000)
        opt = D3FusedSGD(model.parameters(), momentum=0.9)
        memory = tracker.MemTracker()
        memory.track_external(model, opt)
        with memory:
            for _ in range(2):
                memory.reset_mod_stats()
                model(torch.ones(1, 1000)).sum().backward()
                opt.step()
                opt.zero_grad()
    kinds = memory.get_tracker_snapshot("peak")[torch.device("cpu")]
    at_peak = {str(kind).rpartition(".")[2]: size for kind, size in kinds.items()}
    elements, tracked, norms = 1_004_003, 1_003_000, 2
    assert at_peak["OPT"] == 4 * (elements + tracked) + 8 * norms
    assert at_peak["Total"] < 1.01 * 4 * (3 * elements + tracked)
