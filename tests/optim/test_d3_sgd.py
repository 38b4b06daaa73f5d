"""The contract of torch.optim.Optimizer, kept by D3FusedSGD."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD, param_groups


def small(backend="fused", **options):
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=g)) for s in ((4, 3), (5,))]
    opt = D3FusedSGD(params, track="all", lr=0.1, momentum=0.9, backend=backend, **options)
    opt.warm_start("far")
    return params, opt


# ---------------------------------------------------------------- state


def test_state_dict_goes_through_a_round_trip(backend, descend):
    _, first = small(backend)
    descend(first, 3)
    _, second = small(backend)
    second.load_state_dict(first.state_dict())
    before, after = first.state_dict(), second.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"].keys() == before["state"].keys()
    for i, state in before["state"].items():
        assert after["state"][i].keys() == state.keys()
        assert all(torch.equal(after["state"][i][k], v) for k, v in state.items())


def test_a_state_dict_holds_only_what_weights_only_loading_accepts(backend, descend):
    _, opt = small(backend)
    descend(opt, 1)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["state"].keys() == {0, 1}


def test_saving_before_the_first_step_keeps_the_reference(backend, descend, same_bits):
    params, first = small(backend)
    saved, weights = copy.deepcopy(first.state_dict()), [p.detach().clone() for p in params]
    copies = [nn.Parameter(w) for w in weights]
    second = D3FusedSGD(copies, track="all", lr=0.1, momentum=0.9, backend=backend)
    second.load_state_dict(saved)
    assert same_bits(descend(second, 3), descend(first, 3))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_a_copy_walks_on_alone(copied, backend, descend, same_bits):
    params, first = small(backend)
    descend(first, 3)
    twins, second = copied((params, first))
    at_copy = [p.detach().clone() for p in params]
    moved = descend(first, 3, start=3)
    assert same_bits(twins, at_copy)  # the first one's steps do not reach the copy
    assert same_bits(descend(second, 3, start=3), moved)
    assert same_bits(params, moved)  # nor the copy's steps the first


def test_loading_plain_sgd_takes_its_momentum_and_leaves_the_rest(backend, set_gradients):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    sgd = torch.optim.SGD(
        [{"params": g["params"]} for g in param_groups(model)], lr=0.3, momentum=0.8
    )
    set_gradients(list(model.parameters()), 0)
    sgd.step()
    opt = D3FusedSGD(param_groups(model), lr=0.1, backend=backend)
    theta_0 = model[2].weight.detach().clone()
    opt.load_state_dict(sgd.state_dict())
    head, rest = opt.param_groups
    assert (head["lr"], head["momentum"]) == (0.3, 0.8)
    assert (head["constraint"], head["distance_weight"]) == ("norm_sphere", 1.0)
    assert (rest["constraint"], rest["distance_weight"]) == (None, 0.0)
    weight = model[2].weight
    assert torch.equal(opt.state[weight]["reference"], theta_0)
    assert torch.equal(opt.state[weight]["momentum_buffer"], sgd.state[weight]["momentum_buffer"])
    opt.step()
    torch.testing.assert_close(weight.detach().norm(), theta_0.norm())


def test_loading_another_number_of_groups_or_params_raises():
    (p, q), opt = small()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict(
            D3FusedSGD([{"params": [p]}, {"params": [q]}], track="all").state_dict()
        )
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(D3FusedSGD([p], track="all").state_dict())


def test_loading_a_reference_of_another_shape_raises():
    _, opt = small()
    other = D3FusedSGD([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(5))], track="all")
    with pytest.raises(ValueError, match=r"reference has shape \(2,\), its parameter \(4, 3\)"):
        opt.load_state_dict(other.state_dict())


# ---------------------------------------------------------------- groups


def test_a_group_added_later_takes_its_reference_then(backend):
    _, opt = small(backend)
    late = nn.Parameter(torch.arange(4.0))
    opt.add_param_group({"params": [late], "constraint": None, "distance_weight": 2.0})
    late.data.add_(torch.tensor([0.0, 3.0, 0.0, 4.0]))
    late.grad = torch.zeros(4)
    opt.step()
    want = torch.arange(4.0) + torch.tensor([0.0, 3.0, 0.0, 4.0]) * (1 + 0.1 * 2 / 5)
    torch.testing.assert_close(late.detach(), want)


def test_groups_differ_in_every_option(backend, set_gradients, relative_error):
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(6, generator=g) for _ in range(3)]
    options = [
        {"lr": 0.1, "momentum": 0.9, "distance_weight": 3.0, "constraint": "norm_ball"},
        {"lr": 0.2, "nesterov": True, "momentum": 0.5, "distance_p": 1.0, "constraint": None},
        {
            "lr": 0.3,
            "maximize": True,
            "constraint": "distance_ball",
            "radius": 0.2,
            "weight_decay": 0.1,
            "scope": "group",
        },
    ]
    together = [nn.Parameter(s.clone()) for s in starts]
    opt = D3FusedSGD(
        [{"params": [p], **o} for p, o in zip(together, options, strict=True)],
        track="all",
        backend=backend,
    )
    alone = [nn.Parameter(s.clone()) for s in starts]
    opts = [
        D3FusedSGD([p], track="all", backend=backend, **o)
        for p, o in zip(alone, options, strict=True)
    ]
    for step in range(5):
        set_gradients(together, step)
        set_gradients(alone, step)
        opt.step()
        for one in opts:
            one.step()
    assert relative_error(together, alone) == 0


def test_unspecified_options_come_from_the_defaults():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    opt = D3FusedSGD(
        [{"params": [p], "lr": 0.5}, {"params": [q]}], track="all", lr=0.1, scope="group"
    )
    assert [g["lr"] for g in opt.param_groups] == [0.5, 0.1]
    assert [g["scope"] for g in opt.param_groups] == ["group", "group"]


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    _, opt = small()
    with pytest.raises(ValueError, match="radius"):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(2))], "radius": -1.0})
    assert len(opt.param_groups) == 1


def test_the_callers_group_is_not_changed():
    group = {"params": [nn.Parameter(torch.ones(2))], "reference": [torch.zeros(2)]}
    D3FusedSGD([group], track="all")
    assert set(group) == {"params", "reference"}


def test_removing_a_group_leaves_the_others_working(backend, descend):
    (p, q), _ = small(backend)
    two = D3FusedSGD([{"params": [p]}, {"params": [q]}], track="all", lr=0.1, backend=backend)
    descend(two, 2)
    del two.param_groups[0]
    before = p.detach().clone()
    descend(two, 1)
    assert torch.equal(p, before)
    assert not torch.equal(q, two.state[q]["reference"])


# ---------------------------------------------------------------- step


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(backend):
    (p, q), opt = small(backend)
    calls = []

    def closure():
        opt.zero_grad()
        loss = p.square().sum() + q.square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    before = p.detach().clone()
    assert opt.step(closure) is calls[0]
    assert len(calls) == 1
    assert not torch.equal(p, before)
    assert opt.step() is None


def test_hooks_run_before_and_after_a_step(backend, set_gradients):
    params, opt = small(backend)
    set_gradients(params, 0)
    seen = []
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    opt.step()
    assert seen == ["before", "after"]


def test_zero_grad_forgets_the_gradients(backend, set_gradients):
    params, opt = small(backend)
    set_gradients(params, 0)
    opt.zero_grad()
    assert [p.grad for p in params] == [None, None]


def test_gradients_survive_a_step(backend, set_gradients, same_bits):
    params, opt = small(backend)
    set_gradients(params, 0)
    grads = [p.grad.clone() for p in params]
    opt.step()
    assert same_bits([p.grad for p in params], grads)


def test_named_parameters_are_taken(backend):
    model = nn.Linear(3, 2)
    opt = D3FusedSGD(model.named_parameters(), track="all", lr=0.1, backend=backend)
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    assert list(opt.distances()) == ["weight", "bias"]


def test_frozen_parameters_do_not_move(backend, descend):
    (p, _), opt = small(backend)
    p.requires_grad_(False)
    before = p.detach().clone()
    descend(opt, 2, between=lambda t, params: setattr(p, "grad", None))
    assert torch.equal(p, before)


def test_repr_names_the_options():
    _, opt = small()
    assert "constraint: norm_sphere" in repr(opt)
