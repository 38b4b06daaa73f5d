# SPDX-License-Identifier: Apache-2.0
"""The contract of a defence: options, the suspect and its copy, draws, held-out data, refusals."""

import copy
import dataclasses
import inspect
import json
import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from d3fast.benchmark.repair_jobs import DefenseSpec, make_defense
from d3fast.defenses import D3, Defense, DefenseResult, Pipeline
from d3fast.detox import D3Config
from d3fast.testing.rules import Rule, check, raises, spec_of
from d3fast.testing.toys import batches, conv_model

_LEAKS = ("test", "attack", "trigger", "target")
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_post_accumulate_grad_hooks",
)


@dataclass(frozen=True)
class DefenseCase:
    """A defence under test, and what it does otherwise than most.

    Attributes:
        make: the class, a frozen dataclass whose options all have defaults.
        options: of a quick instance that changes the model.
        epochs: length of the history of the quick instance.
        invalid: values of options that it must refuse, by option.
        needs_held_out: it makes a choice by ``clean_val`` and refuses to run without.
        records_accuracy: its history has the held-out accuracy of every epoch.
        other_passes: passes over the clean samples beside the epochs of the history.
        changes_frozen: weights without ``requires_grad`` change too.
        moves_without_steps: weights change otherwise than by gradients too, so that clipping does
            not keep the model in its place.
    """

    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 2
    invalid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    needs_held_out: bool = False
    records_accuracy: bool = True
    other_passes: int = 0
    changes_frozen: bool = False
    moves_without_steps: bool = False

    def rules(self) -> Sequence[Rule]:
        """Return the rules that apply."""
        held_out = (
            a_choice_without_held_out_data_is_refused
            if self.needs_held_out
            else held_out_data_changes_nothing
        )
        quick = self.quick()
        clips = hasattr(getattr(quick, "config", quick), "max_grad_norm")
        clips = clips and not self.moves_without_steps
        return (*_RULES, held_out, *([clipped_gradients_move_nothing] if clips else []))

    def quick(self) -> Any:
        """Return the quick instance."""
        return self.make(**self.options)

    def repair(
        self,
        model: nn.Module | None = None,
        clean: Iterable[Any] | None = None,
        held_out: Iterable[Any] | None = None,
    ) -> DefenseResult:
        """Return the result of the quick instance on the model and samples of the contract."""
        result: DefenseResult = self.quick()(
            model or conv_model(),
            batches() if clean is None else clean,
            held_out or batches(1),
            progress=False,
        )
        return result


def check_defense(make: Callable[..., Any], **options: Any) -> None:
    """Apply all rules to a defence.

    Args:
        make: the class.
        options: the other fields of ``DefenseCase``.

    Raises:
        AssertionError: the rules that it breaks.

    Example:
        >>> from d3fast.defenses import FineTuning
        >>> check_defense(FineTuning, options={"epochs": 2}, invalid={"epochs": [0]})
    """
    check(DefenseCase(make, **options))


def _same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (_, a), b in pairs)


def it_is_called_like_all_defences(case: DefenseCase) -> None:
    """The arguments of the call are those of ``Defense``."""
    assert _arguments(case.make) == _arguments(Defense)


def _arguments(made: Any) -> list[tuple[Any, ...]]:
    parameters = inspect.signature(made.__call__).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def no_option_lets_test_data_or_a_trigger_in(case: DefenseCase) -> None:
    """A defence has clean samples and nothing else."""
    names = {field.name for field in dataclasses.fields(case.make())}
    assert not {name for name in names if any(word in name for word in _LEAKS)}


def options_are_frozen_and_have_defaults(case: DefenseCase) -> None:
    """A defence is a frozen dataclass; its call does not change it."""
    defense = case.make()
    for each in dataclasses.fields(defense):
        with raises(each.name, dataclasses.FrozenInstanceError):
            setattr(defense, each.name, None)


def it_has_a_seed_and_says_what_happens(case: DefenseCase) -> None:
    """``seed`` is 0 by default, ``on_epoch`` is ``None``."""
    defense = case.make()
    assert getattr(defense, "config", defense).seed == 0
    assert defense.on_epoch is None


def an_invalid_option_is_named_with_its_value(case: DefenseCase) -> None:
    """An option out of range is refused by name and value."""
    for option, values in case.invalid.items():
        for value in values:
            with raises(rf"^{option} must .* got {re.escape(repr(value))}"):
                case.make(**{option: value})


def it_is_made_again_from_its_written_options(case: DefenseCase) -> None:
    """A job of the benchmark holds the options, and workers make the defence from them."""
    name = spec_of(case.make)
    options = DefenseSpec(name).all_options(seed=0)
    json.dumps(options)
    again = make_defense(name, options)
    assert again == case.make()
    assert pickle.loads(pickle.dumps(again)) == again


# The suspect and the copy.


def the_suspect_is_not_changed(case: DefenseCase) -> None:
    """Weights, modes, flags, gradients and hooks of the suspect stay."""
    model = conv_model().train()
    model[1].eval()
    model.get_parameter("0.bias").requires_grad_(False)
    before, flags = copy.deepcopy(model), [m.training for m in model.modules()]
    case.repair(model)
    assert _same(model, before)
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert all(p.grad is None for p in model.parameters())
    assert not _hooks(model)


def the_repaired_model_is_a_changed_copy_in_eval_mode(case: DefenseCase) -> None:
    """The result shares no memory with the suspect."""
    model = conv_model().train()
    repaired = case.repair(model).model
    assert not any(module.training for module in repaired.modules())
    pairs = list(zip(model.parameters(), repaired.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    shared = {t.data_ptr() for t in model.state_dict().values()}
    assert shared.isdisjoint(t.data_ptr() for t in repaired.state_dict().values())


def all_but_the_numbers_of_the_repaired_model_is_the_suspects(case: DefenseCase) -> None:
    """Names, shapes, dtypes, settings of modules and flags stay; no hook is left."""
    model = conv_model()
    model.get_parameter("0.bias").requires_grad_(False)
    repaired = case.repair(model).model
    theirs, ours = model.state_dict(), repaired.state_dict()
    assert list(theirs) == list(ours)
    for key, tensor in theirs.items():
        assert (tensor.shape, tensor.dtype) == (ours[key].shape, ours[key].dtype), key
    assert [_settings(m) for m in model.modules()] == [_settings(m) for m in repaired.modules()]
    for before, after in zip(model.parameters(), repaired.parameters(), strict=True):
        assert (type(after), after.requires_grad) == (nn.Parameter, before.requires_grad)
        assert after.grad is None
    assert not _hooks(repaired)


def _settings(module: nn.Module) -> tuple[type, dict[str, Any]]:
    """Kernel size, momentum, track_running_stats, ...; not what tensors and modules are in it."""
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    return type(module), own


def _hooks(model: nn.Module) -> list[Any]:
    """All hooks on modules and parameters."""
    holders = [*model.modules(), *model.parameters()]
    return [hooks for holder in holders for key in _HOOKS if (hooks := getattr(holder, key, None))]


def frozen_weights_stay_where_they_are(case: DefenseCase) -> None:
    """Weights without ``requires_grad`` keep values and flag; the others change."""
    model = conv_model()
    model[3:5].requires_grad_(False)
    repaired = case.repair(model).model
    ours = [repaired.get_parameter(f"{at}.{name}") for at in (3, 4) for name in ("weight", "bias")]
    pairs = zip(model[3:5].parameters(), ours, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) != case.changes_frozen
    assert not any(p.requires_grad for p in ours)
    assert not all(
        torch.equal(a, b) for a, b in zip(model.parameters(), repaired.parameters(), strict=True)
    )


# Random numbers and held-out data.


def two_runs_give_the_same_bits_and_leave_global_generators_alone(case: DefenseCase) -> None:
    """The seed decides everything, the order of a shuffling loader included."""
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    shuffled = DataLoader(TensorDataset(images, labels), batch_size=6, shuffle=True)
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(case.repair(clean=shuffled))
            assert torch.equal(torch.get_rng_state(), before)
    first, second = results
    assert _same(first.model, second.model)
    assert first.history == second.history


def held_out_data_changes_nothing(case: DefenseCase) -> None:
    """A defence that makes no choice is the same without ``clean_val``."""
    without = case.quick()(conv_model(), batches(), None, progress=False)
    assert _same(without.model, case.repair().model)
    assert all(e.val_accuracy is None for e in without.history)


def a_choice_without_held_out_data_is_refused(case: DefenseCase) -> None:
    """A defence that makes a choice says that it needs ``clean_val``."""
    with raises(rf"^{case.make.__name__} .* clean_val"):
        case.quick()(conv_model(), batches(), None, progress=False)


def held_out_accuracy_is_recorded(case: DefenseCase) -> None:
    """Every record of the history has the accuracy on ``clean_val``, a share."""
    recorded = [e.val_accuracy for e in case.repair().history]
    if case.records_accuracy:
        assert all(0 <= accuracy <= 1 for accuracy in recorded if accuracy is not None)
        assert None not in recorded
    else:
        assert recorded == [None] * case.epochs


# The result.


def the_result_says_how_long_it_took_and_what_happened(case: DefenseCase) -> None:
    """``on_epoch`` sees every record as it is made, and the model in eval mode."""
    started = time.perf_counter()
    seen: list[tuple[Any, bool]] = []
    watched = dataclasses.replace(case.quick(), on_epoch=lambda e, m: seen.append((e, m.training)))
    result = watched(conv_model(), batches(), batches(1), progress=False)
    assert 0 < result.seconds <= time.perf_counter() - started
    assert [(e, False) for e in result.history] == seen
    assert [e.epoch for e in result.history] == list(range(1, case.epochs + 1))


def the_clean_samples_are_read_once_per_epoch(case: DefenseCase) -> None:
    """A loader that augments gives every epoch new images."""
    clean = _Watched(batches())
    epochs = len(case.repair(clean=clean).history)
    assert clean.passes == epochs + case.other_passes


class _Watched:
    def __init__(self, parts: list[Any]) -> None:
        self.parts, self.passes = parts, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.parts)


def d3_may_follow(case: DefenseCase) -> None:
    """In a pipeline the second defence starts from the model of the first."""
    d3 = D3(D3Config(epochs=2))
    both = Pipeline(case.quick(), d3)(conv_model(), batches(), batches(1), progress=False)
    by_hand = d3(case.repair().model, batches(), batches(1), progress=False)
    assert _same(both.model, by_hand.model)
    assert [e.epoch for e in both.history] == list(range(1, case.epochs + 3))


# What is refused.


def a_broken_suspect_is_refused_by_the_name_of_its_weight(case: DefenseCase) -> None:
    """NaN and inf in the weights are found before the repair."""
    model = conv_model()
    with torch.no_grad():
        model.get_parameter("4.bias")[0] = torch.inf
    with raises(r"the model's 4\.bias holds NaN or inf"):
        case.repair(model)


def a_loader_that_yields_nothing_is_refused(case: DefenseCase) -> None:
    """An empty loader is no repair."""
    with raises("clean_loader yields nothing"):
        case.repair(clean=[])


def labels_that_are_no_class_are_refused(case: DefenseCase) -> None:
    """A label out of range is refused by its value."""
    for label in (3, -1):
        (images, labels), second = batches()
        labels[2] = label
        with raises(rf"clean_loader holds label {label}\b.* classes 0\.\.2"):
            case.repair(clean=[second, (images, labels)])


def images_with_nan_are_refused(case: DefenseCase) -> None:
    """NaN in the images is an error of the data, not of the defence."""
    first, (images, labels) = batches()
    images[0, 0, 0, 0] = torch.nan
    with raises("clean_loader"):
        case.repair(clean=[first, (images, labels)])


def clipped_gradients_move_nothing(case: DefenseCase) -> None:
    """``max_grad_norm`` next to zero leaves the first layer where it is."""
    start = conv_model().get_parameter("0.weight")

    def moved(max_grad_norm: float | None) -> torch.Tensor:
        options = {"max_grad_norm": max_grad_norm, "weight_decay": 0.0}
        made = case.quick()
        if hasattr(made, "config"):
            made = dataclasses.replace(made, config=dataclasses.replace(made.config, **options))
        else:
            made = dataclasses.replace(made, **options)
        result = made(conv_model(), batches(), batches(1), progress=False)
        return (result.model.get_parameter("0.weight") - start).abs().max()

    assert moved(None) > 1e-5
    assert moved(1e-9) <= 1e-7


_RULES: tuple[Rule, ...] = (
    it_is_called_like_all_defences,
    no_option_lets_test_data_or_a_trigger_in,
    options_are_frozen_and_have_defaults,
    it_has_a_seed_and_says_what_happens,
    an_invalid_option_is_named_with_its_value,
    it_is_made_again_from_its_written_options,
    the_suspect_is_not_changed,
    the_repaired_model_is_a_changed_copy_in_eval_mode,
    all_but_the_numbers_of_the_repaired_model_is_the_suspects,
    frozen_weights_stay_where_they_are,
    two_runs_give_the_same_bits_and_leave_global_generators_alone,
    held_out_accuracy_is_recorded,
    the_result_says_how_long_it_took_and_what_happened,
    the_clean_samples_are_read_once_per_epoch,
    d3_may_follow,
    a_broken_suspect_is_refused_by_the_name_of_its_weight,
    a_loader_that_yields_nothing_is_refused,
    labels_that_are_no_class_are_refused,
    images_with_nan_are_refused,
)
