"""What the optimizer says about distances, and where its references come from."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD, param_groups

THETA = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 2.0], [2.0, 0.0]])]


def from_zero(backend="fused", dtype=torch.float32, **options):
    params = [nn.Parameter(t.to(dtype, copy=True)) for t in THETA]
    zeros = [torch.zeros_like(t) for t in THETA]
    options = {"lr": 0.1, "constraint": None, "reference": zeros, **options}
    return params, D3FusedSGD(params, track="all", backend=backend, **options)


def test_distances_are_p_norms_by_position(backend):
    _, opt = from_zero(backend)
    assert opt.distances() == {0: torch.tensor(5.0), 1: torch.tensor(3.0)}
    _, opt = from_zero(backend, distance_p=1.0)
    assert opt.distances() == {0: torch.tensor(7.0), 1: torch.tensor(5.0)}


def test_total_distance_sums_tensors_or_takes_one_norm(backend):
    total = lambda **o: from_zero(backend, **o)[1].total_distance().item()  # noqa: E731
    assert total() == 8.0
    assert total(scope="group") == pytest.approx(34**0.5)
    assert total(scope="group", distance_p=1.0) == 12.0


def test_positions_count_over_all_groups_and_plain_groups_have_no_distance(backend):
    p, q, r = (nn.Parameter(torch.ones(2)) for _ in range(3))
    plain = {"constraint": None, "distance_weight": 0.0}
    opt = D3FusedSGD([{"params": [p, q], **plain}, {"params": [r]}], track="all", backend=backend)
    assert list(opt.distances()) == [2]


def test_names_are_the_keys_where_known(backend):
    opt = D3FusedSGD(param_groups(nn.Linear(3, 2), "all"), backend=backend)
    assert list(opt.distances()) == ["weight", "bias"]


def test_nothing_tracked_has_distance_0():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], constraint=None, distance_weight=0.0)
    assert opt.distances() == {}
    assert opt.total_distance().item() == 0.0


@pytest.mark.parametrize("constraint", [None, "norm_sphere", "distance_ball"])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_after_steps_distances_are_those_measured(
    constraint, power, backend, dtype, far_apart, descend
):
    options = {"constraint": constraint, "radius": 0.8 if constraint else None, "momentum": 0.9}
    params, opt = far_apart(dtype, backend=backend, distance_p=power, **options)
    descend(opt, 4)
    for p, distance in zip(params, opt.distances().values(), strict=True):
        delta = p.detach().double() - opt.state[p]["reference"].double()
        want = torch.linalg.vector_norm(delta, power)
        assert distance.dtype == dtype
        assert distance.shape == ()
        torch.testing.assert_close(distance.double(), want, rtol=1e-6, atol=0)


def test_an_in_place_edit_is_seen_at_once(backend, descend):
    params, opt = from_zero(backend)
    descend(opt, 1)
    with torch.no_grad():
        params[0].copy_(torch.tensor([6.0, 8.0]))
    assert opt.distances()[0].item() == 10.0


def test_a_reported_distance_does_not_change_with_later_steps(backend, dtype, descend):
    _, opt = from_zero(backend, dtype, reference=None)
    descend(opt, 1)
    first = opt.distances()[0]
    value = first.item()
    descend(opt, 1, start=1)
    assert first.item() == value
    assert opt.distances()[0].item() != value


def test_the_reference_is_a_copy_of_the_weights_at_the_start(backend, descend):
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    opt = D3FusedSGD([p], track="all", backend=backend)
    descend(opt, 1)
    assert torch.equal(opt.state[p]["reference"], torch.tensor([3.0, 4.0]))


def test_a_given_reference_is_copied_and_later_edits_do_not_reach_it(backend):
    given = [torch.zeros(2), torch.zeros(2, 2)]
    params, opt = from_zero(backend, reference=given)
    given[0].fill_(9.0)
    assert torch.equal(opt.state[params[0]]["reference"], torch.zeros(2))


def test_set_reference_takes_a_list_over_the_tracked_groups(backend):
    p, q, r = (nn.Parameter(torch.full((2,), 3.0)) for _ in range(3))
    plain = {"constraint": None, "distance_weight": 0.0}
    opt = D3FusedSGD(
        [{"params": [p]}, {"params": [q], **plain}, {"params": [r]}], track="all", backend=backend
    )
    opt.set_reference([torch.zeros(2), torch.tensor([3.0, 7.0])])
    assert opt.distances()[0].item() == pytest.approx(18**0.5)
    assert opt.distances()[2].item() == 4.0
    assert opt.state[q] == {}
    with pytest.raises(ValueError, match=r"reference must hold 2 tensors, .* got 3"):
        opt.set_reference([torch.zeros(2)] * 3)


def test_set_reference_takes_a_mapping_or_the_weights_as_they_are(backend):
    model = nn.Linear(3, 2)
    opt = D3FusedSGD(param_groups(model), backend=backend)
    opt.set_reference({"weight": torch.zeros(2, 3), "unknown": torch.zeros(1)})
    torch.testing.assert_close(opt.distances()["weight"], model.weight.detach().norm())
    opt.set_reference()
    assert opt.distances()["weight"].item() == 0.0
    with pytest.raises(
        ValueError, match=r"reference of weight must have shape \(2, 3\), got \(3,\)"
    ):
        opt.set_reference({"weight": torch.zeros(3)})


def test_where_parameters_were_replaced_set_reference_starts_anew(backend):
    old, new = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 2.0))
    opt = D3FusedSGD([old], track="all", lr=0.1, momentum=0.9, backend=backend)
    opt.state_dict()  # as accelerate does, which makes the buffer
    opt.param_groups[0]["params"][0] = new  # and puts in a sharded parameter
    new.grad = torch.tensor([1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"set_reference\(\) takes one now"):
        opt.step()
    opt.set_reference()
    opt.step()
    assert torch.equal(opt.state[new]["reference"], torch.full((3,), 2.0))
    assert set(opt.state_dict()["state"]) == {0}


def test_after_set_reference_steps_use_the_new_one(far_apart, descend, relative_error):
    results = []
    for kind, dtype in (("fused", torch.float32), ("reference", torch.float64)):
        params, opt = far_apart(dtype, backend=kind, momentum=0.9, radius=1.2)
        descend(opt, 3)
        g = torch.Generator().manual_seed(7)
        opt.set_reference([torch.randn(p.shape, generator=g).to(dtype) for p in params])
        results.append(descend(opt, 3, start=3))
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize("as_mapping", [True, False])
def test_a_reference_given_at_the_start_is_for_the_tracked_groups(as_mapping, backend):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    original = {"2.weight": torch.zeros(3, 6)}
    given = original if as_mapping else list(original.values())
    opt = D3FusedSGD(param_groups(model), reference=given, backend=backend)
    torch.testing.assert_close(opt.distances()["2.weight"], model[2].weight.detach().norm())
    assert all("reference" not in opt.state[p] for p in opt.param_groups[1]["params"])


def test_a_reference_given_at_the_start_is_shared_out_over_tracked_groups(backend):
    p, q = nn.Parameter(torch.full((2,), 3.0)), nn.Parameter(torch.full((3,), 3.0))
    groups = [{"params": [p]}, {"params": [q]}]
    opt = D3FusedSGD(
        groups, reference=[torch.zeros(2), torch.zeros(3)], track="all", backend=backend
    )
    assert opt.total_distance().item() == pytest.approx(18**0.5 + 27**0.5)


def test_a_groups_own_reference_wins(backend):
    p, q = nn.Parameter(torch.full((1,), 3.0)), nn.Parameter(torch.full((1,), 3.0))
    groups = [{"params": [p], "reference": [torch.ones(1)]}, {"params": [q]}]
    opt = D3FusedSGD(groups, reference=[torch.zeros(1)], track="all", backend=backend)
    assert [d.item() for d in opt.distances().values()] == [2.0, 3.0]
