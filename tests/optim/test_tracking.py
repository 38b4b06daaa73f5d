"""Which parameters of one param group are tracked, and that the others take the plain step."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from d3fast import D3FusedSGD
from d3fast.optim.schedules import DistanceSchedule
from d3fast.optim.tracking import parts, split

PLAIN = {"distance_weight": 0.0, "constraint": None}
MATRICES = (0, 4, 6)  # of `network`


def network(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 7), nn.Linear(7, 5))
    for layer in (model[0], model[2], model[3]):
        nn.init.zeros_(layer.bias)
    return model.to(dtype)


def train(model, opt, steps=3, start=0):
    for t in range(start, start + steps):
        g = torch.Generator().manual_seed(t)
        x = torch.randn(12, 6, generator=g).to(next(model.parameters()))
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(12) % 5).backward()
        opt.step()


def explicit(model, **options):
    """The same step through two param groups."""
    params = list(model.parameters())
    tracked = {"params": [p for p in params if p.dim() > 1], "track": "all"}
    plain = {"params": [p for p in params if p.dim() == 1], **PLAIN}
    return D3FusedSGD([tracked, plain], **options)


def names(opt):
    return list(opt.distances())


# What a bare list tracks


def test_a_bare_list_is_one_group_of_which_matrices_are_tracked(backend):
    opt = D3FusedSGD(network().parameters(), backend=backend)
    (group,) = opt.param_groups
    assert len(group["params"]) == 8
    assert group["track"] == MATRICES
    assert names(opt) == list(MATRICES)
    kept = [i for i, p in enumerate(group["params"]) if "reference" in opt.state.get(p, ())]
    assert kept == list(MATRICES)


def test_a_zero_bias_learns(backend):
    model = network()
    train(model, D3FusedSGD(model.parameters(), lr=0.1, backend=backend))
    assert all(layer.bias.detach().abs().min() > 0 for layer in (model[0], model[2], model[3]))


def test_a_matrix_of_zeros_takes_the_plain_step(backend):
    zeros, ones = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    opt = D3FusedSGD([zeros, ones], lr=0.5, backend=backend)
    zeros.grad = torch.ones(2, 2)
    opt.step()
    assert names(opt) == [1]
    assert torch.equal(zeros, torch.full((2, 2), -0.5))


def test_all_tracks_the_rest(backend):
    opt = D3FusedSGD(network().parameters(), track="all", backend=backend)
    assert names(opt) == list(range(8))


def test_a_group_of_matrices_is_tracked_whole():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2, 2))])
    assert opt.param_groups[0]["track"] == "all"


def test_a_warning_says_that_nothing_is_tracked():
    with pytest.warns(UserWarning, match="no parameter is tracked") as caught:
        D3FusedSGD([nn.Parameter(torch.ones(3))])
    assert caught[0].filename == __file__


def test_a_group_of_biases_beside_one_of_weights_needs_no_warning():
    model = nn.Linear(3, 2)
    opt = D3FusedSGD([{"params": [model.weight]}, {"params": [model.bias]}])
    assert [group["track"] for group in opt.param_groups] == ["all", ()]


def test_the_reference_decides_and_not_the_weights():
    params = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(2, 2))]
    given = [torch.zeros(2, 2), torch.ones(2, 2)]
    for opt in (
        D3FusedSGD(params, reference=given),
        D3FusedSGD([{"params": params, "reference": given}]),
        D3FusedSGD([{"params": params, "reference": iter(given)}]),
    ):
        assert opt.param_groups[0]["track"] == (1,)


def test_a_mapping_of_references_may_leave_out_what_is_not_tracked():
    model = network()
    given = {n: 2 * p.detach() for n, p in model.named_parameters() if p.dim() > 1}
    opt = D3FusedSGD(model.named_parameters(), reference=given)
    assert names(opt) == ["0.weight", "2.weight", "3.weight"]
    with pytest.raises(ValueError, match=r"3\.weight"):
        D3FusedSGD(model.named_parameters(), reference={k: given[k] for k in list(given)[:2]})


def test_a_group_that_starts_untracked_is_chosen_with_its_first_reference(backend):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, backend=backend, **PLAIN)
    assert opt.param_groups[0]["track"] is None
    opt.param_groups[0]["constraint"] = "norm_sphere"
    with pytest.raises(ValueError, match="param group 0 is tracked"):
        train(model, opt, 1)
    opt.set_reference()
    assert opt.param_groups[0]["track"] == MATRICES
    train(model, opt, 1)


# The step


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"scope": "group", "constraint": "norm_ball", "radius": 0.9},
        {"momentum": 0.9, "nesterov": True, "constraint": "distance_floor", "radius": 0.5},
        {"distance_p": 1.0, "constraint": None},
        {"lr": torch.tensor(0.05)},
    ],
    ids=str,
)
def test_one_mixed_group_steps_like_two_groups(options, backend, same_bits):
    ends = []
    for make in (lambda m, **o: D3FusedSGD(m.parameters(), **o), explicit):
        model = network()
        opt = make(model, **{"lr": 0.1, "backend": backend, **options})
        opt.warm_start("random", generator=torch.Generator().manual_seed(0))
        train(model, opt)
        ends.append([*model.parameters(), opt.total_distance()])
    assert same_bits(*ends)


def test_a_half_model_with_norms_in_float32_steps_through_the_kernels(descend):
    params = [nn.Parameter(torch.ones(4, 4).bfloat16()), nn.Parameter(torch.ones(4))]
    opt = D3FusedSGD(params, lr=0.1, backend="fused")  # the whole group mixes dtypes
    descend(opt, 2)
    assert "compensation" in opt.state[params[0]]
    assert "compensation" not in opt.state.get(params[1], {})


def test_after_the_first_step_both_parts_are_stepped_in_one_call(monkeypatch):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, momentum=0.9, backend="fused")
    train(model, opt, 2)
    monkeypatch.setattr(opt._stepper, "_check", None)  # the slower way would call it
    train(model, opt, 2)


def test_an_overflow_moves_nothing(backend, same_bits):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = copy.deepcopy(list(model.parameters()))
    scaler.scale(model(torch.full((2, 6), torch.inf)).sum()).backward()
    scaler.step(opt)
    assert same_bits(before, model.parameters())


def test_parameters_without_a_gradient_take_no_part(backend):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, backend=backend)
    for p in (model[0].weight, model[3].bias):
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(model.state_dict())
    opt.step()
    moved = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    assert moved == {"0.weight", "3.bias"}


@pytest.mark.parametrize("kind", ["fused", "reference"])
def test_a_compiled_step_is_the_eager_one(kind, compiled, graphs, same_bits):
    ends = []
    for run in (lambda f: f, compiled):
        model = network()
        opt = D3FusedSGD(model.parameters(), lr=0.1, momentum=0.9, backend=kind)
        step = run(opt.step)
        for t in range(4):
            g = torch.Generator().manual_seed(t)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=g)
            step()
        ends.append([*model.parameters(), opt.total_distance()])
    assert graphs() == 1
    assert same_bits(*ends)


def test_schedulers_see_one_group(backend):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, backend=backend)
    rate = torch.optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=4, cycle_momentum=False)
    weight = DistanceSchedule(opt, "distance_weight", "linear", start=0.0, steps=3)
    for t in range(3):
        train(model, opt, 1, start=t)
        rate.step()
        weight.step()
    assert len(rate.get_last_lr()) == len(weight.get_last_value()) == 1
    assert opt.param_groups[0]["distance_weight"] == 1.0


# Saved states


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
def test_a_run_goes_on_through_distributed_checkpoint(flatten, backend, same_bits):
    options = {"lr": 0.1, "momentum": 0.9, "backend": backend}
    kind = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = network()
    opt = D3FusedSGD(model.parameters(), **options)
    train(model, opt)
    saved = copy.deepcopy(get_optimizer_state_dict(model, opt, options=kind))
    other = copy.deepcopy(model)
    again = D3FusedSGD(other.parameters(), **options)
    set_optimizer_state_dict(other, again, saved, options=kind)
    assert tuple(again.param_groups[0]["track"]) == MATRICES
    for one, its in ((model, opt), (other, again)):
        train(one, its, start=3)
    if flatten:  # without the cached norms, which the first step measures: in other bits
        torch.testing.assert_close([*model.parameters()], [*other.parameters()])
    else:
        assert same_bits(model.parameters(), other.parameters())


def test_a_run_goes_on_from_a_file(backend, same_bits):
    model = network()
    opt = D3FusedSGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)
    train(model, opt)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    again = D3FusedSGD(other.parameters(), lr=1.0, track="all", backend=backend)
    again.load_state_dict(torch.load(file, weights_only=True))
    for one, its in ((model, opt), (other, again)):
        train(one, its, start=3)
    assert same_bits(model.parameters(), other.parameters())


def test_a_state_saved_without_the_option_tracks_every_parameter(backend, same_bits):
    options = {"lr": 0.1, "momentum": 0.9, "backend": backend}
    model = network()
    opt = D3FusedSGD(model.parameters(), track="all", **options)
    train(model, opt)
    saved = copy.deepcopy(opt.state_dict())
    for group in saved["param_groups"]:
        del group["track"]  # as a version without it wrote
    other = copy.deepcopy(model)
    again = D3FusedSGD(other.parameters(), **options)
    again.load_state_dict(saved)
    assert names(again) == list(range(8))
    for one, its in ((model, opt), (other, again)):
        train(one, its, start=3)
    assert same_bits(model.parameters(), other.parameters())


def test_a_state_of_sgd_leaves_the_choice_as_it_is(backend):
    model = network()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
    train(model, sgd)
    opt = D3FusedSGD(model.parameters(), backend=backend)
    opt.load_state_dict(sgd.state_dict())
    assert names(opt) == list(MATRICES)
    train(model, opt)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copy_makes_the_same_choice(clone):
    opt = clone(D3FusedSGD(network().named_parameters(), track=r"^0\."))
    assert names(opt) == ["0.weight", "0.bias"]
    opt.add_param_group({"params": [("0.extra", nn.Parameter(torch.ones(2)))]})
    assert names(opt)[-1] == "0.extra"


def test_groups_of_one_optimizer_can_build_another():
    first = D3FusedSGD(network().parameters())
    second = D3FusedSGD([dict(group) for group in first.param_groups])
    assert names(second) == names(first)


# Parts


def test_a_group_that_is_not_mixed_is_its_own_part():
    for track in (None, "all"):
        group = {"params": [1, 2], "track": track}
        assert split(group)[0] is group


def test_parts_share_the_options_of_their_group():
    group = {"params": list("abc"), "param_names": list("xyz"), "track": (0, 2), "lr": object()}
    (_, tracked), (_, plain) = parts([group])
    assert (tracked["params"], tracked["param_names"]) == (["a", "c"], ["x", "z"])
    assert (plain["params"], plain["param_names"]) == (["b"], ["y"])
    assert tracked["lr"] is plain["lr"] is group["lr"]
    assert (plain["distance_weight"], plain["constraint"]) == (0.0, None)
