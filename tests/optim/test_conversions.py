"""Models that are materialised, converted or reloaded: the reference stays, or an error says why.

With and without ``torch.__future__.set_swap_module_params_on_conversion``.
"""

import pytest
import torch
from torch import nn

import d3fast
from d3fast import D3FusedSGD

pytestmark = pytest.mark.filterwarnings("ignore:param group . runs on the slower:UserWarning")


@pytest.fixture(params=[False, True], ids=["in_place", "swapping"])
def swapping(request):
    """Whether modules swap parameters when they are converted, as a later torch will."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(request.param)
    yield request.param
    torch.__future__.set_swap_module_params_on_conversion(before)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def optimizer(model, **options):
    return D3FusedSGD(d3fast.param_groups(model), lr=0.1, momentum=0.9, **options)


def train(model, opt, steps=2):
    x = torch.linspace(-1, 1, 20).view(5, 4).to(next(model.parameters()).dtype)
    for _ in range(steps):
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0, 1])).backward()
        opt.step()
    opt.zero_grad()


def moved(model, theta_0):
    """How far the head is from the given weights, measured in float64."""
    return (model[2].weight.detach().double() - theta_0.double()).norm()


def measured(opt):
    """How far the optimizer says that it is."""
    (distance,) = opt.distances().values()
    return distance.double()


# ---------------------------------------------------------------- deferred initialisation


def test_a_parameter_on_the_meta_device_is_refused_by_name():
    with torch.device("meta"):
        model = network()
    with pytest.raises(ValueError, match=r"shape \(3, 6\) on device 'meta': build the optimizer"):
        optimizer(model)


@pytest.mark.parametrize("assign", [False, True])
def test_an_optimizer_built_after_materialisation_has_the_loaded_weights_as_reference(
    assign, swapping
):
    loaded = network(seed=1).state_dict()
    with torch.device("meta"):
        model = network()
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(loaded, assign=assign)
    theta_0 = loaded["2.weight"].clone()
    opt = optimizer(model)
    train(model, opt)
    assert torch.equal(opt.state[model[2].weight]["reference"], theta_0)
    torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-6, atol=0)


# ---------------------------------------------------------------- after construction


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16], ids=["f64", "bf16"])
def test_a_converted_model_keeps_its_reference(kind, steps, swapping):
    model = network()
    theta_0 = model[2].weight.detach().clone()
    opt = optimizer(model)
    train(model, opt, steps)
    model.to(kind)
    train(model, opt)
    assert model[2].weight.dtype == kind
    torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-2, atol=0)


def test_weights_loaded_in_place_leave_the_reference_what_it_was(swapping):
    model = network()
    theta_0 = model[2].weight.detach().clone()
    opt = optimizer(model)
    model.load_state_dict(network(seed=1).state_dict())
    train(model, opt)
    torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-6, atol=0)


def test_storage_that_is_made_anew_leaves_the_reference_what_it_was(swapping):
    model = network()
    theta_0 = model[2].weight.detach().clone()
    opt = optimizer(model)
    model.to_empty(device="cpu")
    model.load_state_dict(network(seed=1).state_dict())
    train(model, opt)
    torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-6, atol=0)


def test_parameters_that_were_replaced_are_left_alone(swapping):
    model = network()
    theta_0 = model[2].weight.detach().clone()
    opt = optimizer(model)
    model.load_state_dict(network(seed=1).state_dict(), assign=True)
    if swapping:  # the same parameters with other contents
        train(model, opt)
        torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-6, atol=0)
    else:
        before = model[2].weight.detach().clone()
        train(model, opt, steps=1)
        assert torch.equal(model[2].weight, before)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_swap_tensors_leaves_reference_and_momentum_with_their_parameter(kind, backend):
    model = network()
    theta_0 = model[2].weight.detach().clone()
    opt = optimizer(model, backend=backend if kind != torch.bfloat16 else "reference")
    train(model, opt)
    for p in model.parameters():
        momentum = opt.state[p]["momentum_buffer"].clone()
        torch.utils.swap_tensors(p, nn.Parameter((p.detach() + 1).to(kind)))
        assert torch.equal(opt.state[p]["momentum_buffer"], momentum)
    train(model, opt)
    torch.testing.assert_close(measured(opt), moved(model, theta_0), rtol=1e-2, atol=0)


def test_a_swap_for_another_shape_is_refused(backend):
    p = nn.Parameter(torch.ones(3, 4))
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
    torch.utils.swap_tensors(p, nn.Parameter(torch.ones(2, 6)))
    p.grad = torch.ones(2, 6)
    with pytest.raises((ValueError, RuntimeError), match=r"shape|size"):
        opt.step()
