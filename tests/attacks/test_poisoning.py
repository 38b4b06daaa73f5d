"""Poisoning: candidates, counts and labels of any labelled data set."""

from types import SimpleNamespace

import pytest
import torch

from d3fast.attacks.poisoning import (
    capped_ratio,
    check_target,
    choose_poisoned,
    load_empty_state,
)


class Labels:
    """Data set without images."""

    labels = torch.arange(12) % 3
    classes = ("a", "b", "c")

    def __len__(self):
        return 12


def _chosen(mapping, ratio, target=1):
    attack = SimpleNamespace(target=target, mapping=mapping)
    return choose_poisoned(attack, Labels(), ratio, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mapping", "classes"),
    [("all-to-one", {0, 2}), ("all-to-all", {0, 1, 2}), ("clean-label", {1})],
)
def test_candidates_are_the_samples_whose_label_changes_or_those_of_the_target(mapping, classes):
    chosen = _chosen(mapping, 1 / 3 if mapping == "clean-label" else len(classes) / 3)
    assert set(Labels.labels[chosen].tolist()) == classes
    assert chosen.tolist() == sorted(chosen.tolist())


def test_without_a_generator_torchs_default_one_draws():
    attack = SimpleNamespace(target=1, mapping="all-to-one")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = choose_poisoned(attack, Labels(), 0.5, None)
    same = choose_poisoned(attack, Labels(), 0.5, torch.Generator().manual_seed(3))
    assert torch.equal(first, same)


@pytest.mark.parametrize(
    ("mapping", "ratio", "expected"),
    [("clean-label", 1.0, 3 / 12), ("clean-label", 0.1, 0.1), ("all-to-one", 1.0, 1.0)],
)
def test_clean_labels_leave_a_share_of_the_target_class_clean(mapping, ratio, expected):
    attack = SimpleNamespace(target=1, mapping=mapping)
    assert capped_ratio(attack, Labels(), ratio, share=0.9) == expected  # 3 of its 4 samples


def test_a_ratio_that_is_no_share_is_left_to_be_refused():
    attack = SimpleNamespace(target=1, mapping="clean-label")
    assert capped_ratio(attack, Labels(), 1.5, share=0.5) == 1.5


def test_check_target_returns_the_attacks_own():
    assert check_target(2, None, 3) == check_target(2, 2, 3) == 2


def test_an_attack_that_learns_nothing_takes_the_empty_state_only():
    load_empty_state(SimpleNamespace(), {})
    with pytest.raises(ValueError, match="SimpleNamespace learns no tensors, got pattern"):
        load_empty_state(SimpleNamespace(), {"pattern": torch.zeros(1)})
