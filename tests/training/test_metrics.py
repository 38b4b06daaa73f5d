"""ACC, ASR, RA, lift and DER against counts made by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d3fast import Metrics, evaluate
from d3fast.training.intervals import paired_difference_interval, wilson
from d3fast.training.metrics import der


class Scripted(nn.Module):
    """Answers with the class that stands in the first pixel; counts its calls."""

    def __init__(self, classes=4):
        super().__init__()
        self.classes = classes
        self.calls = 0
        self.norm = nn.BatchNorm1d(classes)
        self.modes = []

    def forward(self, images):
        self.calls += 1
        self.modes.append(self.training)
        answer = images[:, 0, 0, 0].long()
        return nn.functional.one_hot(answer, self.classes).float()


class Rewrites:
    """A trigger that puts the second pixel, the scripted answer, into the first."""

    def __init__(self, target):
        self.target = target

    def trigger(self, images):
        triggered = images.clone()
        triggered[..., 0, 0] = images[..., 0, 1]
        return triggered


def _batch(*rows):
    """One (label, clean answer, triggered answer) per image."""
    labels, clean, triggered = torch.tensor(rows).T
    images = torch.stack([clean, triggered], dim=1).float()[:, None, None, :]
    return images, labels


# target 0: rows 1-3 are of the target class and count for ACC alone.
LOADER = [
    _batch((0, 0, 0), (0, 1, 0), (0, 0, 3), (1, 1, 0)),
    _batch((1, 1, 1), (2, 2, 0), (2, 0, 3)),
    _batch((3, 3, 3)),
]


def test_counts_are_those_made_by_hand():
    metrics = evaluate(Scripted(), LOADER, Rewrites(target=0))
    assert metrics == Metrics(6, 8, 2, 2, 5, untriggered_hits=1, both_hits=0)
    assert (metrics.acc, metrics.asr, metrics.ra) == (6 / 8, 2 / 5, 2 / 5)
    assert (metrics.untriggered, metrics.lift) == (1 / 5, 1 / 5)


def test_lift_counts_each_image_with_and_without_the_trigger():
    # label 1, target 0: hit both times, with the trigger only (twice), without it only, never
    loader = [_batch((1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 0, 1), (1, 1, 1))]
    metrics = evaluate(Scripted(), loader, Rewrites(target=0))
    assert (metrics.hits, metrics.untriggered_hits, metrics.both_hits) == (3, 2, 1)
    assert metrics.lift_interval == paired_difference_interval(3, 2, 1, 5)


class AllToAll(Rewrites):
    mapping = "all-to-all"


def test_lift_follows_the_mapping_of_the_attack():
    # goals are label + 1
    loader = [_batch((0, 1, 1), (1, 2, 0), (3, 0, 3))]
    metrics = evaluate(Scripted(), loader, AllToAll(target=0))
    assert (metrics.hits, metrics.untriggered_hits, metrics.both_hits) == (1, 3, 1)


def test_lift_is_unknown_where_the_count_is():
    metrics = Metrics(correct=6, images=8, hits=2, robust=2, triggered=5)
    assert (metrics.untriggered, metrics.lift) == (None, None)
    assert (metrics.untriggered_interval, metrics.lift_interval) == (None, None)


def test_another_target_gives_other_counts():
    metrics = evaluate(Scripted(), LOADER, Rewrites(target=3))
    assert metrics == Metrics(6, 8, 2, 3, 7, untriggered_hits=0, both_hits=0)


def test_without_an_attack_acc_alone_is_measured():
    metrics = evaluate(Scripted(), LOADER, None)
    assert metrics == Metrics(correct=6, images=8)
    assert (metrics.asr, metrics.ra, metrics.asr_interval, metrics.ra_interval) == (None,) * 4
    assert (metrics.lift, metrics.lift_interval) == (None, None)


def test_how_images_are_batched_does_not_matter():
    whole = [tuple(torch.cat(parts) for parts in zip(*LOADER, strict=True))]
    attack = Rewrites(target=0)
    assert evaluate(Scripted(), whole, attack) == evaluate(Scripted(), LOADER, attack)


def test_one_pass_over_triggered_images_gives_asr_and_ra():
    model = Scripted()
    evaluate(model, LOADER, Rewrites(target=0))
    assert model.calls == 2 * len(LOADER)


def test_without_an_attack_the_model_runs_once_per_batch():
    model = Scripted()
    evaluate(model, LOADER, None)
    assert model.calls == len(LOADER)


def test_the_model_runs_in_eval_mode_and_gets_its_modes_back():
    model = nn.Sequential(Scripted(), nn.Dropout()).train()
    model[0].norm.eval()
    evaluate(model, LOADER, None)
    assert model[0].modes == [False] * len(LOADER)
    assert [m.training for m in (model, model[0], model[0].norm, model[1])] == [
        True,
        True,
        False,
        True,
    ]


def test_modes_are_put_back_when_the_loader_fails():
    def failing():
        yield LOADER[0]
        raise OSError("disk")

    model = Scripted().train()
    with pytest.raises(OSError, match="disk"):
        evaluate(model, failing(), None)
    assert model.training


def test_the_model_is_moved_where_the_caller_says(monkeypatch):
    model, moved = Scripted(), []
    monkeypatch.setattr(model, "to", moved.append)
    evaluate(model, LOADER, None, device="cpu")
    assert moved == [torch.device("cpu")]


def test_no_gradients_are_recorded():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 4))
    seen = []
    model.register_forward_hook(lambda _, __, scores: seen.append(scores.requires_grad))
    evaluate(model, LOADER, None)
    assert seen == [False] * len(LOADER)


class _NaNOn(Scripted):
    """NaN scores on images whose first pixel is 3."""

    def forward(self, images):
        scores = super().forward(images)
        scores[images[:, 0, 0, 0] == 3] = torch.nan
        return scores


def test_nan_scores_on_clean_images_are_reported_with_their_batch():
    with pytest.raises(ValueError, match="gives NaN scores in batch 3 of clean_loader"):
        evaluate(_NaNOn(), LOADER, None)


def test_nan_scores_on_triggered_images_are_reported_too():
    loader = [_batch((0, 0, 0), (1, 1, 1)), _batch((1, 1, 3))]
    assert evaluate(_NaNOn(), loader, None).images == 3
    with pytest.raises(ValueError, match="gives NaN scores in batch 2 of clean_loader"):
        evaluate(_NaNOn(), loader, Rewrites(target=0))


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_reported_with_their_batch(label):
    loader = [LOADER[0], _batch((label, 0, 0))]
    with pytest.raises(ValueError, match="labels are out of range in batch 2 of held_out"):
        evaluate(Scripted(), loader, None, name="held_out")


@pytest.mark.parametrize("target", [-1, 4])
def test_a_target_that_is_no_class_of_the_model_is_refused(target):
    with pytest.raises(ValueError, match=rf"target must be in 0\.\.3 for this model, got {target}"):
        evaluate(Scripted(), LOADER, Rewrites(target))


@pytest.mark.parametrize("attack", [None, Rewrites(target=0)])
def test_a_loader_that_yields_nothing_is_refused(attack):
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        evaluate(Scripted(), [], attack)


def test_batches_without_images_are_nothing():
    empty = [(torch.zeros(0, 1, 1, 2), torch.zeros(0, dtype=torch.long))]
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        evaluate(Scripted(), empty, None)
    assert evaluate(Scripted(), empty + LOADER, None).images == 8


def test_a_generator_used_up_by_an_earlier_evaluation_is_explained():
    batches = iter(LOADER)
    evaluate(Scripted(), batches, None)
    with pytest.raises(ValueError, match=r"yields nothing; a generator .* only once"):
        evaluate(Scripted(), batches, None)


def test_images_of_the_target_class_alone_have_no_asr():
    loader = [_batch((0, 0, 0), (0, 0, 0))]
    with pytest.raises(ValueError, match="every image has the target class 0: ASR is undefined"):
        evaluate(Scripted(), loader, Rewrites(target=0))


@pytest.mark.parametrize(
    "batch",
    [
        {"data": LOADER[0][0], "target": LOADER[0][1]},
        (LOADER[0][0], LOADER[0][1][:, None]),
        (LOADER[0][0], LOADER[0][1].float()),
    ],
    ids=["dict", "column of labels", "float labels"],
)
def test_batches_of_another_kind_are_refused_instead_of_miscounted(batch):
    with pytest.raises(ValueError, match="clean_loader must yield"):
        evaluate(Scripted(), [batch], None)


def test_metrics_as_a_dict_hold_rates_intervals_and_counts():
    metrics = Metrics(9, 10, 1, 6, 8, untriggered_hits=2, both_hits=1)
    assert metrics.as_dict() == {
        "acc": 0.9,
        "asr": 0.125,
        "ra": 0.75,
        "untriggered": 0.25,
        "lift": -0.125,
        "acc_interval": wilson(9, 10),
        "asr_interval": wilson(1, 8),
        "ra_interval": wilson(6, 8),
        "untriggered_interval": wilson(2, 8),
        "lift_interval": paired_difference_interval(1, 2, 1, 8),
        "correct": 9,
        "images": 10,
        "hits": 1,
        "robust": 6,
        "triggered": 8,
        "untriggered_hits": 2,
        "both_hits": 1,
    }


def _metrics(acc, asr):
    return Metrics(correct=acc, images=100, hits=asr, robust=0, triggered=100)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((95, 100), (95, 0), 1.0),
        ((95, 100), (90, 20), (0.80 - 0.05 + 1) / 2),
        ((95, 100), (97, 100), 0.5),
        ((95, 40), (95, 60), 0.5),
        ((95, 100), (0, 100), (0 - 0.95 + 1) / 2),
        ((80, 100), (95, 50), 0.75),
    ],
    ids=["perfect", "ACC paid", "ACC gained alone", "ASR grew", "destroyed", "both better"],
)
def test_der_rewards_lost_asr_and_punishes_lost_acc(before, after, expected):
    assert der(_metrics(*before), _metrics(*after)) == pytest.approx(expected)


@given(*[st.integers(0, 100)] * 4)
def test_der_lies_between_0_and_1(acc, asr, acc_after, asr_after):
    rating = der(_metrics(acc, asr), _metrics(acc_after, asr_after))
    assert 0 <= rating <= 1
    assert math.isfinite(rating)


@pytest.mark.parametrize("side", ["before", "after"])
def test_der_needs_an_attack_on_both_sides(side):
    sides = {"before": _metrics(95, 100), "after": _metrics(95, 0), side: Metrics(95, 100)}
    with pytest.raises(ValueError, match="der needs metrics measured with an attack"):
        der(**sides)
