"""Jobs of a pilot, one at a time on a model whose backdoor is known."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast import D3Config
from d3fast.audit.inversion import Inversion
from d3fast.audit.pilot.options import Setting
from d3fast.audit.pilot.trial import (
    SearchJob,
    SuspectJob,
    TrialContext,
    TrialJob,
    measured,
    suspicious,
)

CPU = torch.device("cpu")


@pytest.fixture
def context(model, parts, short):
    return TrialContext(model, *parts, short, D3Config.auto()).to(CPU)


@pytest.fixture
def corner():
    """The suspect's own trigger: the corner pixel, white."""
    mask = torch.zeros(1, 4, 4)
    mask[0, 3, 3] = 1
    return Inversion(0, mask, torch.ones(1, 4, 4), 1.0, 1.0)


def inversions(*norms):
    return [
        Inversion(i, torch.ones(1, 1, 1), torch.ones(1, 1, 1), n, 1.0) for i, n in enumerate(norms)
    ]


def test_a_context_on_a_device_is_a_copy_in_eval_mode(model, parts, short):
    model.train()
    moved = TrialContext(model, *parts, short, D3Config.auto()).to(CPU)
    assert moved.model is not model
    assert (moved.model.training, model.training, moved.device) == (False, True, CPU)


def test_a_search_gives_one_patch_per_class(context):
    assert [found.target for found in SearchJob(range(1, 3)).run(context, False)] == [1, 2]


def test_outliers_are_suspicious_or_else_the_smallest_patch():
    patches, flagged = suspicious(inversions(10.0, 12.0, 11.0, 2.0, 9.0))
    assert ([patch.target for patch in patches], flagged) == ([3], True)
    patches, flagged = suspicious(inversions(10.0, 9.9, 10.1))
    assert ([patch.target for patch in patches], flagged) == ([1], False)


def test_the_suspect_answers_its_backdoor(context, corner):
    row = SuspectJob((corner,)).run(context, False)
    assert (row["kind"], row["targets"], row["acc"], row["asr"]) == ("suspect", [0], 1.0, None)
    assert row["inversion_asr"] == 1.0
    assert (row["inversion_lift"], row["lift"]) == (1.0, None)


def test_a_model_that_always_answers_the_class_of_a_trigger_has_no_lift(context, corner):
    class Constant(nn.Module):
        def forward(self, images):
            return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(images), 4) + 0 * images.sum()

    row = measured(context, Constant(), (corner,))
    assert (row["inversion_asr"], row["inversion_lift"]) == (1.0, 0.0)


def test_a_trial_is_measured_on_held_out_samples(context, corner):
    job = TrialJob(3, Setting(1.0, 10.0, 0.1), rung=1, epochs=2, patches=(corner,))
    row = job.run(context, False)
    assert (row["kind"], row["trial"], row["rung"], row["epochs"]) == ("trial", 3, 1, 2)
    assert (row["distance_weight"], row["clean_weight"], row["epsilon"]) == (1.0, 10.0, 0.1)
    assert row["samples"] == len(context.held_out)
    assert row["distance"] > 0
    assert measured(context, context.model, (corner,))["acc"] == 1.0  # the suspect is as before


def test_a_repair_that_fails_is_a_row_with_its_reason(context, corner, monkeypatch):
    def fails(*_, **__):
        raise ValueError("the loss is inf")

    monkeypatch.setattr("d3fast.audit.pilot.trial.detoxify", fails)
    row = TrialJob(0, Setting(1.0, 10.0, 0.1), 0, 1, (corner,)).run(context, False)
    assert (row["kind"], row["reason"]) == ("failed", "the loss is inf")


def test_jobs_and_their_context_can_be_sent_to_a_process(context, corner):
    job = TrialJob(0, Setting(1.0, 10.0, 0.1), 0, 1, (corner,))
    assert pickle.loads(pickle.dumps(job)).name == job.name == "trial-0-rung-0"
    sent = pickle.loads(pickle.dumps(replace(context, augment=None)))
    assert sent.options == context.options
