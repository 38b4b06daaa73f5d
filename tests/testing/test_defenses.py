"""The contract of a defence finds what is broken; the defences here are one with one defect."""

import re
from dataclasses import dataclass

import pytest
import torch

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.testing import check_defense


@dataclass(frozen=True)
class Tuned:
    """Fine-tuning, as short as it gets."""

    epochs: int = 2
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    seed: int = 0
    on_epoch: OnEpoch | None = None

    def __post_init__(self):
        check_tuning(self)

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        def work(copy, where):
            title = "tuning"
            return tune(copy, clean_train, clean_val, self, where, title=title, progress=progress)

        return on_copy(model, device, work, self.seed)


@dataclass(frozen=True)
class InPlace(Tuned):
    """Changes the suspect."""

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        made = super().__call__(model, clean_train, clean_val, device=device, progress=progress)
        model.load_state_dict(made.model.state_dict())
        return DefenseResult(model.eval(), made.history, made.seconds)


@dataclass(frozen=True)
class Unseeded(Tuned):
    """Adds noise of the global generator."""

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        made = super().__call__(model, clean_train, clean_val, device=device, progress=progress)
        with torch.no_grad():
            for param in made.model.parameters():
                param += 0.001 * torch.randn_like(param)
        return made


@dataclass(frozen=True)
class Peeking(Tuned):
    """Chooses by held-out data without saying so."""

    trigger: str = ""

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        longer = Tuned(epochs=3) if clean_val else super()
        return longer.__call__(model, clean_train, clean_val, device=device, progress=progress)


@dataclass(frozen=True)
class Nothing(Tuned):
    """Gives the model back in train mode, hooked."""

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        model.register_forward_hook(lambda *_: None)
        return DefenseResult(model.train(), (), 0.0)


@dataclass
class Thawed:
    """No frozen dataclass, without a seed, and called otherwise."""

    rate: object = object()

    def __call__(self, model, samples):
        return model


def broken_by(make, **options):
    with pytest.raises(AssertionError) as caught:
        check_defense(make, **options)
    return set(re.findall(r"^  (\w+):", str(caught.value), re.MULTILINE))


def test_a_defence_without_a_defect_passes():
    check_defense(Tuned, invalid={"lr": [-1.0], "epochs": [0]})


def test_a_changed_suspect_is_found():
    assert broken_by(InPlace) >= {
        "the_suspect_is_not_changed",
        "the_repaired_model_is_a_changed_copy_in_eval_mode",
    }


def test_draws_of_a_global_generator_are_found():
    rule = "two_runs_give_the_same_bits_and_leave_global_generators_alone"
    assert rule in broken_by(Unseeded)


def test_a_hidden_choice_and_an_option_for_a_trigger_are_found():
    assert broken_by(Peeking) >= {
        "held_out_data_changes_nothing",
        "no_option_lets_test_data_or_a_trigger_in",
    }
    assert "a_choice_without_held_out_data_is_refused" in broken_by(Tuned, needs_held_out=True)


def test_a_defence_that_does_nothing_breaks_most_rules():
    assert broken_by(Nothing) >= {
        "the_suspect_is_not_changed",
        "the_repaired_model_is_a_changed_copy_in_eval_mode",
        "all_but_the_numbers_of_the_repaired_model_is_the_suspects",
        "frozen_weights_stay_where_they_are",
        "the_result_says_how_long_it_took_and_what_happened",
        "a_broken_suspect_is_refused_by_the_name_of_its_weight",
        "a_loader_that_yields_nothing_is_refused",
        "labels_that_are_no_class_are_refused",
        "images_with_nan_are_refused",
    }


def test_the_shape_of_a_defence_is_checked():
    assert broken_by(Thawed) >= {
        "it_is_called_like_all_defences",
        "options_are_frozen_and_have_defaults",
        "it_has_a_seed_and_says_what_happens",
        "it_is_made_again_from_its_written_options",
    }


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"other_passes": 1}, "the_clean_samples_are_read_once_per_epoch"),
        ({"records_accuracy": False}, "held_out_accuracy_is_recorded"),
        ({"changes_frozen": True}, "frozen_weights_stay_where_they_are"),
        ({"invalid": {"lr": [1.0]}}, "an_invalid_option_is_named_with_its_value"),
    ],
)
def test_an_exception_that_is_none_is_found(options, rule):
    assert broken_by(Tuned, **options) == {rule}
