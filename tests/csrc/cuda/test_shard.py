"""The step of shards in two launches, run on the host block by block, sums added up here."""

import itertools

import pytest
import torch

from d3fast import D3FusedAdamW, D3FusedSGD
from d3fast.optim.backends import native
from d3fast.optim.backends.group_plan import GroupPlan

SIZES = (37, 2500, 1, 0, 4100)
OPTIMIZERS = {
    "sgd": (D3FusedSGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "plain_sgd": (D3FusedSGD, {"lr": 0.05, "weight_decay": 0.01}),
    "nesterov": (D3FusedSGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "adamw": (D3FusedAdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "decoupled": (D3FusedAdamW, {"lr": 0.02, "decoupled_push": True, "eps": 1e-3}),
}
SETS = {
    "free": {"constraint": None},
    "sphere": {"constraint": "norm_sphere"},
    "ball": {"constraint": "distance_ball", "radius": 0.9},
    "inside": {"constraint": "norm_ball", "radius": 10.0},
}


def draw(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=g).to(dtype) for n in SIZES]


def optimizer(kind, params, references, **options):
    make, usual = OPTIMIZERS[kind]
    return make(params, track="all", reference=references, **{**usual, **options})


class Rank:
    """One rank's parts of all tensors, and their plan.

    A cut is a fraction of each tensor; ``replica``: the tensors whose sums this rank leaves out.
    """

    def __init__(self, kind, start, end, starts, references, replica=(), **options):
        cut = lambda t: t[round(start * len(t)) : round(end * len(t))].clone()  # noqa: E731
        whole = lambda i, t: t.clone() if i in replica else cut(t)  # noqa: E731
        place = lambda ts: [whole(i, t) for i, t in enumerate(ts)]  # noqa: E731
        self._place, self._counts = place, [i not in replica or start == 0 for i in range(5)]
        self.params = [torch.nn.Parameter(t) for t in place(starts)]
        self.opt = optimizer(kind, self.params, place(references), backend="fused", **options)
        self.group, self.state = self.opt.param_groups[0], self.opt.state
        self.joint = self.group["scope"] == "group"
        for p in self.params:
            p.grad = torch.zeros_like(p)
        deltas = [t.double() - r.double() for t, r in zip(starts, references, strict=True)]
        self.norms = self._norms(deltas)
        rows = 1 if self.joint else len(SIZES)
        for i, p in enumerate(self.params):
            self.state[p]["distance"] = self.norms[i % rows]
        of_reference = self._norms(references)
        zeros = torch.zeros(len(SIZES) - rows, dtype=torch.float64)
        shard = native.Shard(list(SIZES), self._counts, torch.cat([of_reference, zeros]))
        self.plan = GroupPlan(self.group, self.state, shard)
        self.sums = torch.zeros(rows, 4, dtype=torch.float64)

    def _norms(self, tensors):
        each = torch.stack([t.double().norm() for t in tensors])
        return each.norm()[None] if self.joint else each

    def update(self, grads, scale=None, overflow=None):
        for p, grad in zip(self.params, self._place(grads), strict=True):
            p.grad = grad if scale is None else grad * scale
        assert self.plan.matches(self.group, self.state)
        self.plan.update(self.group, scale, overflow, self.sums)


def step(ranks, grads, held=None, **more):
    for rank in ranks:
        rank.update(grads, **more)
    totals = sum(rank.sums for rank in ranks)
    for rank in ranks:
        rank.plan.project(totals, held)


def joined(ranks, replica=()):
    columns = zip(*(rank.params for rank in ranks), strict=True)
    return [
        (parts[0] if i in replica else torch.cat(parts)).detach().double()
        for i, parts in enumerate(columns)
    ]


def relative_error(got, want):
    got, want = (torch.cat(list(ts)) for ts in (got, want))
    return float((got - want).norm() / want.norm())


def trajectory(kind, cuts=((0, 0.3), (0.3, 1)), replica=(), edits=(), steps=4, **options):
    """Weights and norms after some steps on shards and on whole tensors in float64."""
    starts, references = draw(0), draw(1)
    ranks = [Rank(kind, *cut, starts, references, replica, **options) for cut in cuts]
    params = [torch.nn.Parameter(t.double()) for t in starts]
    want = optimizer(kind, params, [r.double() for r in references], backend="reference", **options)
    for t in range(steps):
        if t in edits:
            for p in (*params, *(p for rank in ranks for p in rank.params)):
                p.data.mul_(1.5)
        grads = draw(100 + t)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.double()
        want.step()
        step(ranks, grads)
    return ranks, joined(ranks, replica), [p.detach() for p in params], want


FAST = {("sgd", "tensor", "sphere"), ("nesterov", "group", "ball"), ("adamw", "group", "sphere")}
CASES = [
    pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
    for case in itertools.product(OPTIMIZERS, ("tensor", "group"), SETS)
]


@pytest.mark.parametrize(("kind", "scope", "name"), CASES)
def test_shards_take_the_step_of_the_whole_tensors(cuda_on_host, kind, scope, name):
    ranks, got, want, opt = trajectory(kind, scope=scope, **SETS[name])
    # At distance 0, rounding decides which way a single weight on its sphere is pushed.
    compared = [i for i, n in enumerate(SIZES) if name != "sphere" or n != 1]
    assert relative_error(*([parts[i] for i in compared] for parts in (got, want))) < 1e-6
    each = torch.stack(list(opt.distances().values()))
    distances = each.norm()[None] if scope == "group" else each
    for rank in ranks:
        parts = rank.params[: len(distances)]
        here = torch.tensor([scope == "group" or p.numel() > 0 for p in parts])
        torch.testing.assert_close(rank.norms[here], distances[here], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"distance_p": 1.0},
        {"distance_weight": 0.0},
        {"maximize": True, "constraint": "norm_ball", "radius": 5.0, "radius_unit": "absolute"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_every_option_means_what_it_means_in_one_process(cuda_on_host, kind, options):
    _, got, want, _ = trajectory(kind, **options)
    assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize("cuts", [((0, 1),), ((0, 0), (0, 1)), ((0, 0.1), (0.1, 0.1), (0.1, 1))])
def test_empty_and_uneven_shards_take_part(cuda_on_host, cuts):
    _, got, want, _ = trajectory("sgd", cuts)
    assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_replicated_parts_count_once(cuda_on_host, scope):
    ranks, got, want, _ = trajectory("sgd", replica=(0, 1), scope=scope)
    assert relative_error(got, want) < 1e-6
    for i in (0, 1):
        assert torch.equal(ranks[0].params[i], ranks[1].params[i])


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("kind", ["sgd", "plain_sgd", "nesterov", "adamw", "decoupled"])
def test_a_push_with_a_stale_norm_is_replaced_in_the_same_step(cuda_on_host, kind, scope):
    _, got, want, _ = trajectory(kind, edits=(1, 2), constraint=None, scope=scope)
    assert relative_error(got, want) < 2e-6


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_norm_after_a_correction_is_on_the_sphere_a_step_later(cuda_on_host, kind):
    """In the step itself it is off by the change of the push, at most 2 lr w.

    A single number on a sphere sits at its reference, where the push has no direction.
    """
    for edits, bound in (((3,), 2 * 0.05), ((2,), 1e-4)):
        _, got, want, _ = trajectory(kind, edits=edits)
        off = [
            abs(float(a.norm() - b.norm())) for a, b in zip(got, want, strict=True) if a.numel() > 1
        ]
        assert max(off) < bound
        if edits == (3,):
            assert max(off) > 1e-5


@pytest.mark.parametrize(
    ("kind", "momentum_dtype", "half"),
    [
        ("sgd", None, torch.bfloat16),
        ("adamw", torch.float32, torch.bfloat16),
        ("adamw", None, torch.float16),
        ("sgd", torch.float32, torch.float16),
    ],
)
def test_half_types_follow_the_whole_step(cuda_on_host, kind, momentum_dtype, half):
    """Only the order of the sums differs; a single weight on a sphere is left to its rounding."""
    starts, references = draw(0, half), draw(1, half)
    options = {"momentum_dtype": momentum_dtype, **SETS["ball"]}
    ranks = [Rank(kind, a, b, starts, references, **options) for a, b in ((0, 0.3), (0.3, 1))]
    params = [torch.nn.Parameter(t.clone()) for t in starts]
    opt = optimizer(kind, params, references, backend="fused", **options)
    for t in range(3):
        grads = draw(100 + t, half)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.clone()
        opt.step()
        step(ranks, grads)
    bound = torch.finfo(half).eps / 64
    assert relative_error(joined(ranks), [p.detach().double() for p in params]) < bound


def test_narrow_momentum_and_reference_follow_the_whole_step(cuda_on_host):
    kinds = {"reference_dtype": torch.bfloat16, "momentum_dtype": torch.bfloat16}
    _, got, want, _ = trajectory("sgd", **kinds)
    assert relative_error(got, want) < 3e-3


def test_gradients_are_unscaled_and_an_overflow_moves_nothing(cuda_on_host):
    starts, references, scale = draw(0), draw(1), torch.tensor(4.0)
    for kind in ("sgd", "adamw"):
        pair = [
            [Rank(kind, *cut, starts, references) for cut in ((0, 0.3), (0.3, 1))] for _ in range(2)
        ]
        for t in range(3):
            step(pair[0], draw(100 + t), scale=scale, overflow=torch.zeros(1))
            step(pair[1], draw(100 + t))
        before = joined(pair[0])
        assert all(torch.equal(a, b) for a, b in zip(before, joined(pair[1]), strict=True))
        norms = pair[0][0].norms.clone()
        step(pair[0], draw(7), scale=scale, overflow=torch.ones(1))
        assert all(torch.equal(a, b) for a, b in zip(before, joined(pair[0]), strict=True))
        assert torch.equal(norms, pair[0][0].norms)
        if kind == "adamw":
            assert {float(s["step"]) for r in pair[0] for s in r.state.values()} == {3.0}


@pytest.mark.parametrize("held", [(1.0, 0.0), (0.0, 2.0)])
def test_a_projection_is_not_taken_where_another_rank_does_not_take_the_step(cuda_on_host, held):
    starts, references = draw(0), draw(1)
    options = {"constraint": "norm_sphere"}
    shard, free = (
        [Rank("sgd", 0, 1, starts, references, **{**options, **more})]
        for more in ({}, {"constraint": None})
    )
    norms = shard[0].norms.clone()
    step(shard, draw(100), torch.tensor(held, dtype=torch.float64))
    step(free, draw(100))
    assert all(torch.equal(a, b) for a, b in zip(joined(shard), joined(free), strict=True))
    assert torch.equal(norms, shard[0].norms)
    step(shard, draw(101), torch.zeros(2, dtype=torch.float64))
    assert not torch.equal(norms, shard[0].norms)


def test_numbers_on_the_device_are_read_by_the_kernels(cuda_on_host):
    starts, references, results = draw(0), draw(1), []
    for lr, radius in ((0.0625, 0.875), (torch.tensor(0.0625), torch.tensor(0.875))):
        options = {"lr": lr, "constraint": "norm_ball", "radius": radius}
        ranks = [Rank("adamw", *cut, starts, references, **options) for cut in ((0, 0.3), (0.3, 1))]
        for t in range(3):
            step(ranks, draw(100 + t))
        results.append(joined(ranks))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_order_of_blocks_does_not_change_a_bit(cuda_on_host):
    first = trajectory("sgd", scope="group")[1]
    cuda_on_host.shuffle = 1000
    second = trajectory("sgd", scope="group")[1]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_part_is_one_launch_on_the_blocks_that_the_device_holds(cuda_on_host):
    rank = Rank("sgd", 0, 1, draw(0), draw(1))
    rank.update(draw(100))
    launches = [(cuda_on_host.report.launches, cuda_on_host.report.most_blocks)]
    rank.plan.project(rank.sums)
    launches.append((cuda_on_host.report.launches, cuda_on_host.report.most_blocks))
    assert launches == [(1, cuda_on_host.blocks)] * 2
