"""Contract of every defence in the registry. A new defence is a line in SHORT and in INVALID."""

import copy
import dataclasses
import inspect
import re
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from d3fast.defenses import DEFENSES, Defense, Pipeline
from tests.defenses.short import SHORT, make_loader, make_model

# Options that must be rejected; the error names option and value.
NAN = float("nan")
SGD = {"epochs": [0], "seed": [-1], "lr": [-1.0], "momentum": [NAN], "max_grad_norm": [-1.0]}
INVALID = {
    "fine-tuning": {**SGD, "weight_decay": [float("inf")]},
    "fine-pruning": {**SGD, "max_acc_drop": [-0.1, 10], "step": [0.0, 1.5]},
    "nad": {**SGD, "teacher_epochs": [0], "decay_epoch": [0], "betas": [()], "layers": [("a",)]},
    "neural-cleanse": {**SGD, "stamped": [0.0, 1.5], "threshold": [NAN]},
    "anp": {
        "eps": [-0.1],
        "alpha": [1.5],
        "max_acc_drop": [2.0],
        "lr": [NAN],
        "inner_steps": [0],
        "steps": [0],
        "seed": [-1],
    },
    "ft-sam": {**SGD, "rho": [-0.5, NAN], "label_smoothing": [1.5, -0.1]},
    "i-bau": {
        "rounds": [0],
        "iterations": [0],
        "radius": [-1.0],
        "ascent_steps": [0],
        "share": [0.0, 1.5],
        "seed": [-1],
    },
    "sau": {"epochs": [0], "steps": [0], "radius": [-0.2], "shared_weight": [NAN], "seed": [-1]},
    "fst": {**SGD, "alpha": [-0.1], "averaging": [1.5], "distillation": [1.0, -0.1]},
    "tsbd": {
        **SGD,
        "unlearn_epochs": [0],
        "neurons": [1.5, -0.1],
        "weights": [NAN],
        "radius": [-1.0],
        "share": [1.5],
    },
    "bti-dbf": {**SGD, "every": [0]},
    "pam": {**SGD, "rho": [-0.5], "share": [0.0, 1.5]},
    "d3": {},  # takes a configuration, which is tested in tests/detox
}

# Exceptions to the contract, and their reasons.
CHOOSES_BY_HELD_OUT_DATA = {
    "fine-pruning": "how many channels go",
    "anp": "the threshold of the masks",
}
RECORDS_NO_HELD_OUT_ACCURACY = {"anp": "masks are no model before the threshold is chosen"}
MORE_PASSES_THAN_EPOCHS = {
    "fine-pruning": (1, "activity of the channels"),
    "nad": (2, "a batch to find the layers, one epoch of the teacher"),
    "neural-cleanse": (1, "images that patches are searched on"),
    "tsbd": (1, "the unlearning"),
    "bti-dbf": (1, "images that triggers are inverted on"),
    "pam": (1, "images that triggers are inverted on"),
    "anp": (1, "counts the batches of a loader without a length"),
}
CHANGES_FROZEN_WEIGHTS = {"fine-pruning": "pruning is no training: a channel goes, frozen or not"}

each = pytest.mark.parametrize("name", DEFENSES)
each_class = pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)


def _repair(name, model=None, clean=None, held_out=None):
    return SHORT[name](
        model or make_model(),
        make_loader() if clean is None else clean,
        held_out or make_loader(1),
        progress=False,
    )


def _same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (_, a), b in pairs)


def test_every_defence_is_tested_here():
    assert set(SHORT) == set(INVALID) == set(DEFENSES)
    assert all(type(SHORT[name]) is DEFENSES[name] for name in DEFENSES)


@each_class
def test_all_defences_are_called_alike(make):
    theirs = inspect.signature(make.__call__)
    assert theirs == inspect.signature(Defense.__call__)
    assert list(theirs.parameters) == [
        "self",
        "model",
        "clean_train",
        "clean_val",
        "device",
        "progress",
    ]


@each_class
def test_no_option_lets_test_data_or_a_trigger_in(make):
    names = {field.name for field in dataclasses.fields(make)}
    assert not {n for n in names if any(w in n for w in ("test", "attack", "trigger", "target"))}


@each_class
def test_options_are_frozen_and_have_defaults(make):
    defense = make()
    for field in dataclasses.fields(make):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(defense, field.name, None)


@each_class
def test_every_defence_has_a_seed_and_says_what_happens(make):
    defense = make()
    assert getattr(defense, "config", defense).seed == 0
    assert defense.on_epoch is None


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (name, option, value)
        for name, options in INVALID.items()
        for option, values in options.items()
        for value in values
    ],
)
def test_an_invalid_option_is_named_with_its_value(name, option, value):
    with pytest.raises(ValueError, match=rf"^{option} must .* got {re.escape(repr(value))}"):
        DEFENSES[name](**{option: value})


# The suspect and the copy.


@each
def test_the_suspect_is_not_changed(name):
    model = make_model().train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    before, flags = copy.deepcopy(model), [m.training for m in model.modules()]
    _repair(name, model)
    assert _same(model, before)
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert all(p.grad is None for p in model.parameters())
    assert not _hooks(model)


@each
def test_the_repaired_model_is_a_changed_copy_in_eval_mode(name):
    model = make_model().train()
    repaired = _repair(name, model).model
    assert not any(module.training for module in repaired.modules())
    pairs = list(zip(model.parameters(), repaired.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    shared = {t.data_ptr() for t in model.state_dict().values()}
    assert shared.isdisjoint(t.data_ptr() for t in repaired.state_dict().values())


@each
def test_all_but_the_numbers_of_the_repaired_model_is_the_suspects(name):
    model = make_model()
    model[0].bias.requires_grad_(False)
    repaired = _repair(name, model).model
    theirs, ours = model.state_dict(), repaired.state_dict()
    assert list(theirs) == list(ours)
    for key, tensor in theirs.items():
        assert (tensor.shape, tensor.dtype) == (ours[key].shape, ours[key].dtype), key
    assert [_settings(m) for m in model.modules()] == [_settings(m) for m in repaired.modules()]
    for before, after in zip(model.parameters(), repaired.parameters(), strict=True):
        assert (type(after), after.requires_grad) == (nn.Parameter, before.requires_grad)
        assert after.grad is None
    assert not _hooks(repaired)


def _settings(module):
    """Kernel size, momentum, track_running_stats, ...; not what tensors and modules are in it."""
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    return type(module), own


def _hooks(model):
    """All hooks on modules and parameters."""
    holders = [*model.modules(), *model.parameters()]
    named = [
        (key, hooks)
        for holder in holders
        for key in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
            "_post_accumulate_grad_hooks",
        )
        if (hooks := getattr(holder, key, None))
    ]
    return named


@each
def test_frozen_weights_stay_where_they_are(name):
    model = make_model()
    model[3:5].requires_grad_(False)
    repaired = _repair(name, model).model
    pairs = zip(model[3:5].parameters(), repaired[3:5].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) == (name not in CHANGES_FROZEN_WEIGHTS)
    assert not any(p.requires_grad for p in repaired[3:5].parameters())
    assert not all(
        torch.equal(a, b) for a, b in zip(model.parameters(), repaired.parameters(), strict=True)
    )


# Random numbers.


@each
def test_two_runs_give_the_same_bits_and_leave_global_generators_alone(name):
    images, labels = (torch.cat(parts) for parts in zip(*make_loader(), strict=True))
    shuffled = DataLoader(TensorDataset(images, labels), batch_size=6, shuffle=True)
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(_repair(name, clean=shuffled))
            assert torch.equal(torch.get_rng_state(), before)
    first, second = results
    assert _same(first.model, second.model)
    assert first.history == second.history


# Held-out data.


@pytest.mark.parametrize("name", [n for n in DEFENSES if n not in CHOOSES_BY_HELD_OUT_DATA])
def test_held_out_data_changes_nothing(name):
    without = SHORT[name](make_model(), make_loader(), None, progress=False)
    assert _same(without.model, _repair(name).model)
    assert all(e.val_accuracy is None for e in without.history)


@pytest.mark.parametrize("name", CHOOSES_BY_HELD_OUT_DATA)
def test_a_choice_without_held_out_data_is_refused(name):
    with pytest.raises(ValueError, match=r"^(FinePruning|ANP) .* clean_val"):
        SHORT[name](make_model(), make_loader(), None, progress=False)


@each
def test_held_out_accuracy_is_recorded(name):
    recorded = [e.val_accuracy for e in _repair(name).history]
    if name in RECORDS_NO_HELD_OUT_ACCURACY:
        assert recorded == [None, None]
    else:
        assert all(0 <= accuracy <= 1 for accuracy in recorded)


# The result.


@each
def test_the_result_says_how_long_it_took_and_what_happened(name):
    started = time.perf_counter()
    seen = []
    watched = dataclasses.replace(SHORT[name], on_epoch=lambda e, m: seen.append((e, m.training)))
    result = watched(make_model(), make_loader(), make_loader(1), progress=False)
    assert 0 < result.seconds <= time.perf_counter() - started
    assert [(e, False) for e in result.history] == seen
    assert [e.epoch for e in result.history] == [1, 2]


@each
def test_the_clean_samples_are_read_once_per_epoch(name):
    clean = _Watched(make_loader())
    epochs = len(_repair(name, clean=clean).history)
    more, _ = MORE_PASSES_THAN_EPOCHS.get(name, (0, ""))
    assert clean.passes == epochs + more


class _Watched:
    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


@each
def test_d3_may_follow(name):
    both = Pipeline(SHORT[name], SHORT["d3"])
    result = both(make_model(), make_loader(), make_loader(1), progress=False)
    by_hand = _repair("d3", _repair(name).model)
    assert _same(result.model, by_hand.model)
    assert [e.epoch for e in result.history] == [1, 2, 3, 4]


# What is refused.


@each
def test_a_broken_suspect_is_refused_by_the_name_of_its_weight(name):
    model = make_model()
    with torch.no_grad():
        model[4].bias[0] = torch.inf
    with pytest.raises(ValueError, match=r"the model's 4\.bias holds NaN or inf"):
        _repair(name, model)


@each
def test_a_loader_that_yields_nothing_is_refused(name):
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        _repair(name, clean=[])


@each
@pytest.mark.parametrize("label", [3, -1])
def test_labels_that_are_no_class_are_refused(name, label):
    (images, labels), second = make_loader()
    labels[2] = label
    with pytest.raises(ValueError, match=rf"clean_loader holds label {label}\b.* classes 0\.\.2"):
        _repair(name, clean=[second, (images, labels)])


@each
def test_images_with_nan_are_refused(name):
    first, (images, labels) = make_loader()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="clean_loader"):
        _repair(name, clean=[first, (images, labels)])


CLIPS = [
    name for name, made in SHORT.items() if hasattr(getattr(made, "config", made), "max_grad_norm")
]


@pytest.mark.parametrize("name", CLIPS)
def test_clipped_gradients_move_nothing_where_the_norm_is_next_to_nothing(name):
    def first_layer(max_grad_norm):
        options = {"max_grad_norm": max_grad_norm, "weight_decay": 0.0}
        made = SHORT[name]
        if hasattr(made, "config"):
            made = dataclasses.replace(made, config=dataclasses.replace(made.config, **options))
        else:
            made = dataclasses.replace(made, **options)
        return made(make_model(), make_loader(), make_loader(1), progress=False).model[0].weight

    start = make_model()[0].weight
    assert (first_layer(None) - start).abs().max() > 1e-5
    torch.testing.assert_close(first_layer(1e-9), start, rtol=0, atol=1e-7)


def test_what_fine_tunes_by_sgd_clips():
    assert set(CLIPS) == {
        "fine-tuning",
        "fine-pruning",
        "nad",
        "neural-cleanse",
        "ft-sam",
        "fst",
        "tsbd",
        "bti-dbf",
        "pam",
        "d3",
    }
