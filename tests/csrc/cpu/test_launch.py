"""A step in parts, on two shards whose sums are added here, is the step of the whole tensors."""

import pytest
import torch

from d3fast import _C

SIZES = (700, 300_000)  # alone and by all threads
CENTERS = {"none": (0.0, 1.0), "origin": (0.9, 0.9), "reference": (0.2, 0.3)}


class Tensors:
    """The arrays of one process, with its plan."""

    def __init__(self, parts, joint, norms, reference_norms=None, **shard):
        self.theta, self.reference, self.grad, self.momentum = parts
        self.norms = norms
        addresses = lambda tensors: [t.data_ptr() for t in tensors]  # noqa: E731
        distances = [norms.data_ptr() + 8 * (i % norms.numel()) for i in range(len(self.theta))]
        self.plan = _C.CpuPlan(
            dtypes=_C.DTypeNames(weight="float64", momentum="float64", reference="float64"),
            columns=_C.Columns(
                theta=addresses(self.theta),
                numel=[t.numel() for t in self.theta],
                reference=addresses(self.reference),
                momentum=addresses(self.momentum),
                distance=distances,
                **shard,
            ),
            reference_norms=reference_norms or [float(t.norm()) for t in self.reference],
            joint_norm=joint,
        )

    def call(self, options, phase, sums=None, totals=None):
        return self.plan.step(
            grads=[t.data_ptr() for t in self.grad],
            verify=False,
            options=options,
            executor=2,
            phase=phase,
            sums=0 if sums is None else sums.data_ptr(),
            totals=0 if totals is None else totals.data_ptr(),
        )


def draw():
    g = torch.Generator().manual_seed(0)
    columns = [[torch.randn(n, generator=g, dtype=torch.float64) for n in SIZES] for _ in range(4)]
    return [[t + 2 for t in columns[0]], *columns[1:]]


def halves(columns, at):
    """Odd shares: a third and the rest, and for the first tensor nothing and all."""
    ends = [0 if n == SIZES[0] else n // 3 for n in SIZES]
    cut = lambda t, end: (t[:end] if at == 0 else t[end:]).clone()  # noqa: E731
    return [[cut(t, end) for t, end in zip(c, ends, strict=True)] for c in columns]


def distances(columns, joint):
    each = [(t - r).norm() for t, r in zip(columns[0], columns[1], strict=True)]
    return torch.stack(each).norm()[None] if joint else torch.stack(each)


def options(center, **more):
    lower, upper = CENTERS[center]
    return _C.StepOptions(
        lr=0.05,
        momentum=0.9,
        weight_decay=0.01,
        distance_weight=3.0,
        center=getattr(_C.Center, center),
        lower=lower,
        upper=upper,
        relative=True,
        **more,
    )


@pytest.fixture(params=[False, True], ids=["tensor", "group"])
def joint(request):
    return request.param


def shards_of(columns, joint, stale=1.0):
    norms = stale * distances(columns, joint)
    squares = [float(r.norm()) for r in columns[1]]
    return [
        Tensors(
            halves(columns, at), joint, norms.clone(), whole=list(SIZES), reference_norms=squares
        )
        for at in range(2)
    ]


def stepped_in_parts(shards, given):
    sums = [torch.full((s.norms.numel(), 4), -1.0, dtype=torch.float64) for s in shards]
    for shard, own in zip(shards, sums, strict=True):
        shard.call(given, _C.Phase.update, sums=own)
    totals = sums[0] + sums[1]
    changed = [
        s.call(given, _C.Phase.correct, own, totals) for s, own in zip(shards, sums, strict=True)
    ]
    totals = sums[0] + sums[1]
    for shard in shards:
        shard.call(given, _C.Phase.project, totals=totals)
    return changed


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("stale", [1.0, 1.7], ids=["right", "stale"])
def test_two_shards_take_the_step_of_the_whole(center, stale, joint):
    columns = draw()
    before = distances(columns, joint)
    shards = shards_of(columns, joint, stale)
    each = distances(columns, joint=False)
    whole = Tensors(columns, joint, each.clone())
    for step in range(2):
        whole.call(options(center), _C.Phase.whole)
        changed = stepped_in_parts(shards, options(center))
        assert changed == [step == 0 and stale != 1.0] * 2
    for name in ("theta", "momentum"):
        wanted = getattr(whole, name)
        for i, want in enumerate(wanted):
            got = torch.cat([getattr(s, name)[i] for s in shards])
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    after = distances([whole.theta, whole.reference], joint)
    assert not torch.allclose(after, before, rtol=1e-3)
    for shard in shards:
        torch.testing.assert_close(shard.norms, after, rtol=1e-12, atol=0)


def test_a_replica_that_another_rank_counts_moves_and_adds_nothing(joint):
    columns = draw()
    replica = Tensors(
        [[t.clone() for t in c] for c in columns],
        joint,
        distances(columns, joint),
        counts=[False, True],
    )
    sums = torch.zeros(1 if joint else 2, 4, dtype=torch.float64)
    before = [t.clone() for t in replica.theta]
    replica.call(options("none"), _C.Phase.update, sums=sums)
    assert all((t != b).all() for t, b in zip(replica.theta, before, strict=True))
    weight = float(replica.theta[1].square().sum())
    assert sums[:, 2].tolist() == pytest.approx([weight] if joint else [0.0, weight])


@pytest.mark.parametrize(("phase", "name"), [("update", "sums"), ("project", "totals")])
def test_a_part_of_a_step_needs_somewhere_to_put_its_sums(phase, name):
    columns = draw()
    tensors = Tensors(columns, True, distances(columns, True))
    with pytest.raises(ValueError, match=f"{name} must be an address, got 0"):
        tensors.call(options("none"), getattr(_C.Phase, phase))


def test_only_a_step_that_cannot_be_undone_needs_verified_norms():
    decay = {"lr": 1.0, "weight_decay": 0.6}
    assert _C.StepOptions(**decay).needs_verification
    assert not _C.StepOptions(**decay, momentum=0.9).needs_verification
    assert not _C.StepOptions(lr=0.1, weight_decay=0.1).needs_verification
