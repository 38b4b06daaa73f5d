"""Label mappings, what an attacker wants, poisons and counts as a hit, and margins of scores."""

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.attacks import BadNets
from d3fast.data import ImageData
from d3fast.training.labels import margins, target_labels

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
DATA = ImageData(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), LABELS, ("a", "b", "c"))


def attack(mapping):
    return BadNets(target=1, size=1, margin=0, mapping=mapping)


def test_all_to_all_shifts_every_class_by_one():
    assert target_labels(LABELS, 1, 3, "all-to-all").tolist() == [1, 1, 2, 2, 0, 0]


def test_an_unknown_mapping_is_refused():
    with pytest.raises(ValueError, match=r"mapping must be one of .*, got 'all'"):
        target_labels(LABELS, 1, 3, "all")
    with pytest.raises(ValueError, match=r"mapping must be one of .*, got 'all'"):
        attack("all")


def test_all_to_all_may_poison_every_image():
    poisoned = attack("all-to-all").poison(DATA, 1.0)
    assert poisoned.data.labels.tolist() == [1, 1, 2, 2, 0, 0]


class Shifts(nn.Module):
    """Reads the true label from one pixel; answers the next class when the corner is lit."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        label = (images[:, 0, 0, 0] * 255).round().long()
        lit = (images[:, 0, 3, 3] > 0.5).long()
        return nn.functional.one_hot((label + lit) % 3, 3).float()


def test_all_to_all_hits_are_counted_on_every_image():
    images = torch.zeros(6, 1, 4, 4)
    images[:, 0, 0, 0] = LABELS / 255
    measured = evaluate(Shifts(), [(images, LABELS)], attack("all-to-all"))
    assert (measured.triggered, measured.hits, measured.robust) == (6, 6, 0)
    one = evaluate(Shifts(), [(images, LABELS)], attack("all-to-one"))
    assert (one.triggered, one.hits, one.robust) == (4, 2, 0)


def test_a_plain_function_is_a_trigger_when_its_target_is_said():
    images = torch.zeros(6, 1, 4, 4)
    images[:, 0, 0, 0] = LABELS / 255
    light = attack("all-to-one").trigger
    loader = [(images, LABELS)]
    assert evaluate(Shifts(), loader, light, target=1) == evaluate(
        Shifts(), loader, attack("all-to-one")
    )
    with pytest.raises(ValueError, match="target must be given with a trigger that is a function"):
        evaluate(Shifts(), loader, light)
    with pytest.raises(ValueError, match="target must be the attack's own 1, got 2"):
        evaluate(Shifts(), loader, attack("all-to-one"), target=2)


def test_a_margin_is_the_distance_to_the_largest_other_score():
    scores = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0], [2.0, 2.0, 2.0]])
    assert margins(scores, torch.tensor([1, 0, 2])).tolist() == [2.0, -4.0, 0.0]
