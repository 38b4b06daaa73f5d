"""A whole pilot: what it looks at, what it leaves alone, the same on one worker and on two."""

from dataclasses import replace

import pytest
import torch

from d3fast import D3Config
from d3fast.audit.pilot import run_pilot
from d3fast.data import ImageData
from d3fast.detox import detoxify, repair_samples


class Corner:
    """The suspect's own trigger: the corner pixel, white. Notes what it was asked for."""

    target = 0

    def __init__(self):
        self.asked = []

    def trigger(self, images):
        self.asked.append(len(images))
        stamped = images.clone()
        stamped[:, :, -1, -1] = 255 if images.dtype == torch.uint8 else 1.0
        return stamped


def without_seconds(pilot):
    gone = ("seconds", "seconds_per_epoch")
    return [{key: row[key] for key in row if key not in gone} for row in pilot.rows]


@pytest.fixture
def call(model, parts, short):
    def run(**changes):
        return run_pilot(model, *parts, **{"options": short, "progress": False, **changes})

    return run


def test_rungs_narrow_and_lengthen_and_every_row_is_there(call):
    pilot = call()
    assert pilot.rungs == ((4, 1), (2, 2), (1, 4))
    assert [(row["rung"], row["epochs"]) for row in pilot.of("trial")] == (
        [(0, 1)] * 4 + [(1, 2)] * 2 + [(2, 4)]
    )
    kinds = ["suspect", *["trial"] * 7, *["sensitivity"] * 3, "recommendation"]
    assert [row["kind"] for row in pilot.rows] == kinds
    assert pilot.finished


def test_two_workers_give_the_numbers_of_one(call):
    assert without_seconds(call()) == without_seconds(call(devices=("cpu", "cpu")))


def test_the_inverted_trigger_is_that_of_the_backdoor(call):
    (suspect,) = call().of("suspect")
    assert suspect["targets"] == [0]
    assert suspect["acc"] == 1.0
    assert suspect["inversion_asr"] > 0.9
    assert suspect["asr"] is None


def test_a_trigger_changes_neither_which_settings_go_on_nor_any_other_number(call):
    blind, seeing = call(), call(attack=Corner())
    for one, other in zip(blind.of("trial"), seeing.of("trial"), strict=True):
        keys = set(one) - {"asr", "lift", "seconds", "pareto"}
        assert {key: one[key] for key in keys} == {key: other[key] for key in keys}
        assert (one["asr"], other["asr"] is None) == (None, False)
    assert "the trigger that was given" in seeing.recommended["why"]
    assert "inverted triggers" in blind.recommended["why"]


def test_the_trigger_sees_held_out_samples_alone(call, parts):
    attack = Corner()
    call(attack=attack)
    assert set(attack.asked) == {len(parts[1])}


def test_labels_of_held_out_samples_reach_no_repair(call, parts, model, short):
    repair, held_out = parts
    wrong = ImageData(held_out.images, (held_out.labels + 1) % 4, held_out.classes)
    plain, shifted = (
        run_pilot(model, repair, part, options=short, progress=False).of("trial")[:4]
        for part in (held_out, wrong)
    )
    assert [row["distance"] for row in plain] == [row["distance"] for row in shifted]
    assert [row["acc"] for row in plain] != [row["acc"] for row in shifted]


def test_a_trial_is_the_repair_that_detoxify_would_make(call, model, parts):
    row = call().of("trial")[0]
    config = D3Config(
        distance_weight=row["distance_weight"],
        clean_weight=row["clean_weight"],
        epsilon=row["epsilon"],
        epochs=row["epochs"],
    )
    repaired = detoxify(model, repair_samples(parts[0]).loader, config, progress=False).model
    answers = repaired(parts[1].images.float() / 255).argmax(dim=1)
    assert row["correct"] == int((answers == parts[1].labels).sum())


def test_the_suspect_is_as_it_was(call, model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    call()
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(param.requires_grad and param.grad is None for param in model.parameters())


def test_what_is_known_is_handed_over_after_every_rung(call):
    seen = []
    pilot = call(on_rung=seen.append)
    assert [so_far.done for so_far in seen] == [1, 2, 3]
    assert [so_far.finished for so_far in seen] == [False, False, True]
    assert len(seen[0].of("trial")) == 4
    assert seen[0].recommended["rung"] == 0
    assert seen[-1] is pilot


def test_the_recommended_configuration_is_fit_for_a_whole_repair(call):
    base = D3Config.auto(epochs=7)
    pilot = call(base=base)
    chosen = pilot.recommended
    assert pilot.config == replace(
        base,
        distance_weight=chosen["distance_weight"],
        clean_weight=chosen["clean_weight"],
        epsilon=chosen["epsilon"],
        dual_step=0.0,
        margin=None,
    )


def test_numbers_are_within_their_intervals(call):
    for row in call().of("trial"):
        assert row["acc"] == row["correct"] / row["samples"]
        assert 0 <= row["acc_low"] <= row["acc"] <= row["acc_high"] <= 1


def test_a_setting_whose_repair_fails_is_left_behind(call, short):
    wild = replace(short, distance_weight=(1.0, 1e38), clean_weight=(10.0,), epsilon=(0.1, 0.2))
    pilot = call(options=wild, base=D3Config.auto(constraint=None))
    failed = pilot.of("failed")
    assert {row["distance_weight"] for row in failed} == {1e38}
    assert len(failed) == 2
    assert all("lower lr" in row["reason"] for row in failed)
    assert {row["distance_weight"] for row in pilot.of("trial")} == {1.0}


def test_where_all_fail_the_reason_is_given(call):
    with pytest.raises(ValueError, match=r"^no setting could be repaired with: .* lower lr"):
        call(base=D3Config.auto(lr=1e38, constraint=None))


def test_parts_that_do_not_fit_are_refused(model, parts, short):
    repair, held_out = parts
    empty = held_out.subset(torch.arange(0))
    with pytest.raises(ValueError, match="held_out must hold clean samples, got none"):
        run_pilot(model, repair, empty, options=short, progress=False)
    other = ImageData(held_out.images, held_out.labels, tuple("wxyz"))
    with pytest.raises(ValueError, match="the same classes and shape"):
        run_pilot(model, repair, other, options=short, progress=False)


def test_a_target_that_the_model_does_not_have_is_refused(call):
    attack = Corner()
    attack.target = 9
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3"):
        call(attack=attack)
