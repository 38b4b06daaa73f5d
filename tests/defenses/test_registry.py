"""What every defence of the registry promises: one signature, clean data alone, a copy."""

import copy
import dataclasses
import inspect
import time

import pytest
import torch
from torch import nn

from d3fast import D3Config
from d3fast.defenses import D3, DEFENSES, Defense, FineTuning

# One short instance of each; a defence that is missing here fails the first test.
SHORT = {"d3": D3(D3Config(epochs=2)), "fine-tuning": FineTuning(epochs=2)}


def _loader(seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(12, 1, 2, 2, generator=draw)
    return [(images[i : i + 6], torch.arange(6) % 3) for i in (0, 6)]


def _model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def test_every_defence_is_tested_here():
    assert set(SHORT) == set(DEFENSES)
    assert all(type(SHORT[name]) is DEFENSES[name] for name in DEFENSES)


@pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)
def test_all_defences_are_called_alike(make):
    theirs = inspect.signature(make.__call__)
    assert theirs == inspect.signature(Defense.__call__)
    assert list(theirs.parameters) == [
        "self", "model", "clean_train", "clean_val", "device", "progress",
    ]  # fmt: skip


@pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)
def test_no_option_lets_test_data_or_a_trigger_in(make):
    names = {field.name for field in dataclasses.fields(make)}
    assert not {n for n in names if any(w in n for w in ("test", "attack", "trigger", "target"))}


@pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)
def test_options_are_frozen_and_have_defaults(make):
    defense = make()
    field = dataclasses.fields(make)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(defense, field, None)


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_a_defence_reads_each_loader_once_per_epoch(defense):
    clean, held_out = _Watched(_loader()), _Watched(_loader(1))
    defense(_model(), clean, held_out, progress=False)
    assert (clean.passes, held_out.passes) == (2, 2)


class _Watched:
    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_the_suspect_is_not_changed_and_the_repaired_copy_is(defense):
    model = _model().train()
    before = copy.deepcopy(model.state_dict())
    result = defense(model, _loader(), None, progress=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.training
    assert not any(module.training for module in result.model.modules())
    assert all(
        not torch.equal(a, b)
        for a, b in zip(result.model[3].parameters(), model[3].parameters(), strict=True)
    )


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_two_runs_give_the_same_bits(defense):
    first, second = (defense(_model(), _loader(), None, progress=False) for _ in range(2))
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert first.history == second.history


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_held_out_data_is_recorded_and_changes_nothing(defense):
    without = defense(_model(), _loader(), None, progress=False)
    result = defense(_model(), _loader(), _loader(1), progress=False)
    pairs = zip(without.model.parameters(), result.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(0 <= e.val_accuracy <= 1 for e in result.history)


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_the_result_says_how_long_it_took_and_what_happened(defense):
    started = time.perf_counter()
    seen = []
    watched = dataclasses.replace(defense, on_epoch=lambda e, m: seen.append((e, m.training)))
    result = watched(_model(), _loader(), None, progress=False)
    assert 0 < result.seconds <= time.perf_counter() - started
    assert [(e, False) for e in result.history] == seen
    assert [e.epoch for e in result.history] == [1, 2]


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_a_broken_suspect_is_refused_by_the_name_of_its_weight(defense):
    model = _model()
    with torch.no_grad():
        model[1].bias[0] = torch.inf
    with pytest.raises(ValueError, match=r"the model's 1\.bias holds NaN or inf"):
        defense(model, _loader(), None, progress=False)


@pytest.mark.parametrize("defense", SHORT.values(), ids=SHORT)
def test_a_loader_that_yields_nothing_is_refused(defense):
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        defense(_model(), [], None, progress=False)
