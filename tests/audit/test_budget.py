"""Plans that fit a budget: what is cut, in which order, and what is measured for it."""

from dataclasses import replace

import pytest
import torch

from d3fast.audit.budget import fit_epochs, fit_inspection, plan_inspection, plan_repair
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.repair import RepairOptions, prepare_repair
from d3fast.detox import D3Config
from tests.audit.audits import small_audit
from tests.text.tiny import text_data

WANTED = InspectOptions()


def test_what_fits_is_not_cut():
    assert fit_inspection(WANTED, 10, 500, 1e-5, 60.0) == (WANTED, ())
    assert fit_epochs(D3Config.auto(), 0.1, 60.0) == (D3Config.auto(), ())


def test_classes_are_cut_before_steps():
    chosen, cut = fit_inspection(WANTED, 1000, 500, 1e-3, 120.0)
    assert 20 < chosen.classes < 100
    assert chosen.inversion == WANTED.inversion
    assert cut == (f"triggers are searched for {chosen.classes} classes instead of 100",)


def test_steps_are_cut_where_few_classes_are_left():
    chosen, (cut,) = fit_inspection(WANTED, 10, 500, 1e-3, 20.0)
    assert 20 <= chosen.inversion.steps < 100
    assert "steps instead of 100" in cut


def test_an_inspection_that_cannot_be_shorter_says_how_long_it_takes():
    chosen, cut = fit_inspection(WANTED, 10, 500, 1.0, 1.0)
    assert chosen.inversion.steps == 20
    assert "minutes" in cut[-1]


def test_the_head_alone_costs_nothing_and_is_not_cut():
    head = InspectOptions(detectors=("head",))
    assert fit_inspection(head, 1000, 500, 1.0, 1.0) == (head, ())


@pytest.mark.parametrize("name", ["differential", "wave"])
def test_repairs_of_a_detector_leave_less_time_for_the_classes(name):
    more = replace(WANTED, detectors=(*WANTED.for_images(), name))
    few, _ = fit_inspection(more, 1000, 500, 1e-3, 240.0)
    many, _ = fit_inspection(WANTED, 1000, 500, 1e-3, 240.0)
    assert 20 <= few.classes < many.classes - 5


@pytest.mark.parametrize(("budget", "epochs", "recovery"), [(400, 12, 7), (0, 1, 0), (-9, 1, 0)])
def test_epochs_and_recovery_shrink_alike(budget, epochs, recovery):
    chosen, (cut,) = fit_epochs(D3Config.auto(), 10.0, budget)
    assert (chosen.epochs, chosen.recovery) == (epochs, recovery)
    assert f"at most {epochs} epochs instead of 50" in cut


@pytest.fixture
def audit():
    return small_audit()


def test_a_search_for_tokens_is_not_cut_and_that_is_said(audit):
    texts = replace(audit, data=text_data(8))
    chosen, (cut,) = plan_inspection(texts, WANTED, 1.0)
    assert chosen == WANTED
    assert "nothing is cut in the search for tokens" in cut


def weights(audit):
    (weight, _) = audit.model.parameters()
    return weight.detach().clone()


def test_a_repair_without_automatic_restart_takes_half_the_time():
    once = D3Config.auto(restart=0)
    assert fit_epochs(once, 10.0, 400.0)[0].epochs == 25


def test_an_inspection_is_planned_by_a_measurement_that_changes_no_weight(audit):
    before = weights(audit)
    assert plan_inspection(audit, WANTED, 600.0) == (WANTED, ())
    chosen, cut = plan_inspection(audit, WANTED, 1e-6)
    assert chosen.inversion.steps == 20
    assert cut
    assert torch.equal(before, weights(audit))


def test_a_repair_is_planned_by_an_epoch_that_leaves_model_and_order_as_they_were(audit):
    repair = prepare_repair(audit, RepairOptions(D3Config.auto()))
    generators = repair.samples.generators
    states = [each.get_state() for each in generators]
    before = weights(audit)
    planned, cut = plan_repair(repair, 600.0)
    assert (planned.options.config, cut) == (D3Config.auto(), ())
    short, (cut,) = plan_repair(repair, 1e-6)
    assert short.options.config.epochs == 1
    assert "1 epochs instead of 50" in cut
    assert torch.equal(before, weights(audit))
    assert all(map(torch.equal, states, [each.get_state() for each in generators]))
