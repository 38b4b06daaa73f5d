"""Narcissus: learning, bounds, strength, and what is poisoned. The rest is in test_contract.py."""

import pytest
import torch
from torch.nn import functional

from d3fast.attacks import Narcissus
from d3fast.data import as_float
from d3fast.testing.toys import linear_model, random_images


def _seeded():
    return torch.Generator().manual_seed(0)


def _learned(**options):
    attack = Narcissus(1, **{"steps": 20, "batch_size": 16, **options})
    attack.learn(random_images(), model=linear_model(), progress=False)
    return attack


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3])
def test_the_pattern_reaches_the_limit_and_stays_within_it(limit):
    pattern = _learned(limit=limit).state_dict()["pattern"]
    assert (pattern.shape, pattern.dtype) == ((1, 8, 8), torch.float32)
    torch.testing.assert_close(pattern.abs().max(), torch.tensor(limit))


def test_the_pattern_makes_images_of_the_target_easier_for_the_surrogate():
    data, model = random_images(), linear_model()
    images = as_float(data.images[data.labels == 1])
    target = torch.ones(len(images), dtype=torch.long)

    def loss(images):
        with torch.no_grad():
            return float(functional.cross_entropy(model(images), target))

    losses = [loss(_learned(strength=1.0, steps=n).trigger(images)) for n in (1, 5, 20)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < loss(images)


def test_a_quiet_pattern_costs_other_classes_less():
    data, model = random_images(), linear_model()
    others = data.labels != 1

    def loss(attack):
        images = as_float(attack.trigger(data.images[others]))
        with torch.no_grad():
            return float(functional.cross_entropy(model(images), data.labels[others]))

    losses = [loss(_learned(quiet=quiet)) for quiet in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_images_of_other_classes_play_no_part_unless_it_is_quiet():
    data, model = random_images(), linear_model()
    patterns = []
    for images in (data, data.subset((data.labels == 1).nonzero().flatten())):
        attack = Narcissus(1, steps=3, batch_size=16)
        attack.learn(images, model=model, progress=False)
        patterns.append(attack.state_dict()["pattern"])
    assert torch.equal(*patterns)


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_in_use_the_pattern_is_multiplied_and_the_image_cut_to_its_range(strength):
    attack = _learned(strength=strength, limit=0.2)
    images = torch.rand(4, 1, 8, 8, generator=_seeded())
    expected = (images + strength * attack.state_dict()["pattern"]).clamp(0, 1)
    torch.testing.assert_close(attack.trigger(images), expected)


def test_only_images_of_the_target_carry_the_pattern_once_and_no_label_changes():
    data = random_images()
    attack = _learned(strength=3.0)
    poisoned = attack.poison(data, 0.1, generator=_seeded())
    changed = (poisoned.data.images != data.images).flatten(1).any(1)
    assert torch.equal(changed.nonzero().flatten(), poisoned.indices)
    assert len(poisoned.indices) == 10
    assert (data.labels[poisoned.indices] == 1).all()
    assert torch.equal(poisoned.data.labels, data.labels)
    added = as_float(poisoned.data.images[changed]) - as_float(data.images[changed])
    assert added.abs().max() <= attack.limit + 0.5 / 255


@pytest.mark.parametrize(("ratio", "share", "count"), [(0.2, 0.4, 10), (0.05, 0.4, 5), (1, 0, 0)])
def test_a_share_of_the_class_stays_clean_whatever_the_ratio(ratio, share, count):
    attack = _learned(share=share)
    assert len(attack.poison(random_images(), ratio, generator=_seeded()).indices) == count


def test_a_pattern_above_the_limit_is_refused_and_changes_nothing():
    attack = _learned(limit=0.2)
    before = attack.state_dict()["pattern"]
    with pytest.raises(ValueError, match=r"pattern must be within limit=0\.2, got 0\.3"):
        attack.load_state_dict({"pattern": torch.full((1, 8, 8), 0.3)})
    assert attack.state_dict()["pattern"] is before


def test_data_it_cannot_learn_from_is_refused():
    data = random_images()
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 4"):
        Narcissus(4).learn(data, progress=False)
    own = data.labels == 1
    members, others = (data.subset(mask.nonzero().flatten()) for mask in (own, ~own))
    with pytest.raises(ValueError, match="no image has the target class 1: nothing to learn from"):
        Narcissus(1).learn(others, progress=False)
    with pytest.raises(ValueError, match="every image has the target class 1: quiet must be 0"):
        Narcissus(1, quiet=1.0).learn(members, progress=False)
