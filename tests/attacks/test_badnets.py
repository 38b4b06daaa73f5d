"""BadNets: the patch by hand, and what poisoning a training set does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.attacks import Attack, BadNets
from d3fast.data import ImageData, as_float


def _data(count=100, classes=5, dtype=torch.uint8):
    """Images below the brightness of the patch, classes in turn, told apart by pixel 0."""
    images = torch.zeros(count, 1, 6, 6, dtype=torch.long)
    images[:, 0, 0, 0] = torch.arange(count)
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "margin", "expected"),
    [
        (2, 1, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        (2, 0, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
        (1, 3, [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (4, 0, [[1] * 4] * 4),
    ],
)
def test_the_patch_stands_margin_pixels_from_the_lower_right_corner(size, margin, expected):
    stamped = BadNets(0, size, margin).trigger(torch.zeros(1, 1, 4, 4))
    assert stamped[0, 0].tolist() == expected


def test_the_patch_is_white_in_bytes_and_floats_and_in_every_channel():
    for dtype, white in ((torch.uint8, 255), (torch.float32, 1.0), (torch.float64, 1.0)):
        stamped = BadNets(0).trigger(torch.zeros(2, 3, 5, 7, dtype=dtype))
        assert stamped.dtype == dtype
        assert stamped[:, :, 1:4, 3:6].unique().tolist() == [white]
        assert stamped.sum() == white * 2 * 3 * 9


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_single_images_and_stacks_of_batches_are_stamped_alike(leading):
    images = torch.rand(*leading, 3, 5, 7)
    one_by_one = [BadNets(0).trigger(image) for image in images.reshape(-1, 3, 5, 7)]
    assert torch.equal(BadNets(0).trigger(images), torch.stack(one_by_one).reshape(images.shape))


def test_pixels_outside_the_patch_stay_as_they_are():
    images = torch.rand(2, 1, 8, 8)
    stamped = BadNets(0, size=2, margin=0).trigger(images)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[6:, 6:] = False
    assert torch.equal(stamped[..., outside], images[..., outside])


@given(size=st.integers(1, 4), margin=st.integers(0, 4))
def test_stamping_bytes_or_floats_is_the_same(size, margin):
    images = torch.randint(0, 256, (3, 1, 8, 9), dtype=torch.uint8, generator=_seeded())
    attack = BadNets(0, size, margin)
    assert torch.equal(as_float(attack.trigger(images)), attack.trigger(as_float(images)))


def test_stamping_leaves_the_images_it_was_given_alone():
    images = torch.zeros(2, 1, 8, 8)
    BadNets(0).trigger(images)
    assert not images.any()


@pytest.mark.parametrize("shape", [(1, 1, 3, 8), (1, 1, 8, 3)])
def test_images_too_small_for_the_patch_are_refused(shape):
    size = f"{shape[2]}x{shape[3]}"
    with pytest.raises(ValueError, match=f"size=3 with margin=1 does not fit {size} images"):
        BadNets(0).trigger(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"target": -1}, "target must be an integer >= 0, got -1"),
        ({"target": 0.5}, r"target must be an integer >= 0, got 0\.5"),
        ({"target": True}, "target must be an integer >= 0, got True"),
        ({"target": "0"}, "target must be an integer >= 0, got '0'"),
        ({"target": np.float64(1)}, "target must be an integer >= 0"),
        ({"target": 0, "size": 0}, "size must be an integer >= 1, got 0"),
        ({"target": 0, "margin": -1}, "margin must be an integer >= 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        BadNets(**options)


def test_badnets_has_the_shape_of_an_attack():
    assert isinstance(BadNets(0), Attack)


# ---------------------------------------------------------------------- poisoning


@given(ratio=st.floats(0, 0.8), target=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_exactly_the_share_asked_for_is_stamped_and_relabelled_and_nothing_else(
    ratio, target, seed
):
    data = _data()
    attack = BadNets(target, size=2, margin=1)
    data_before = data.images.clone(), data.labels.clone()
    poisoned = attack.poison(data, ratio, generator=_seeded(seed))
    chosen = torch.zeros(100, dtype=torch.bool)
    chosen[poisoned.indices] = True
    assert chosen.sum() == len(poisoned.indices) == round(ratio * 100)
    assert (data.labels[chosen] != target).all()
    assert (poisoned.data.labels[chosen] == target).all()
    assert torch.equal(poisoned.data.images[chosen], attack.trigger(data.images[chosen]))
    assert torch.equal(poisoned.data.labels[~chosen], data.labels[~chosen])
    assert torch.equal(poisoned.data.images[~chosen], data.images[~chosen])
    assert torch.equal(poisoned.indices, poisoned.indices.sort().values)
    assert torch.equal(data.images, data_before[0])
    assert torch.equal(data.labels, data_before[1])


def test_float_images_are_poisoned_alike():
    in_bytes, in_floats = _data(), _data(dtype=torch.float32)
    attack = BadNets(1, size=2, margin=0)
    poisoned = [attack.poison(d, 0.2, generator=_seeded()) for d in (in_bytes, in_floats)]
    assert torch.equal(poisoned[0].indices, poisoned[1].indices)
    assert torch.equal(as_float(poisoned[0].data.images), poisoned[1].data.images)


def test_victims_come_from_all_other_classes():
    poisoned = BadNets(2, size=1, margin=0).poison(_data(), 0.4, generator=_seeded())
    assert set(_data().labels[poisoned.indices].tolist()) == {0, 1, 3, 4}


def test_the_generator_decides_who_is_poisoned():
    attack = BadNets(0, size=1, margin=0)
    first, again, other = (
        attack.poison(_data(), 0.3, generator=_seeded(seed)).indices.tolist() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_all_images_of_other_classes_can_be_poisoned_but_not_one_more():
    attack = BadNets(0, size=1, margin=0)
    assert len(attack.poison(_data(), 0.8, generator=_seeded()).indices) == 80
    with pytest.raises(ValueError, match=r"ratio=0\.81 of 100 samples needs 81 .* there are 80"):
        attack.poison(_data(), 0.81, generator=_seeded())


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"ratio must be in 0\.\.1, got {ratio}"):
        BadNets(0, size=1, margin=0).poison(_data(), ratio)


def test_a_target_that_is_no_class_of_the_data_is_refused():
    with pytest.raises(ValueError, match=r"target must be in 0\.\.4, got 5"):
        BadNets(5, size=1, margin=0).poison(_data(), 0.1)


def test_a_target_that_contradicts_the_attacks_own_is_refused():
    attack = BadNets(1, size=1, margin=0)
    assert len(attack.poison(_data(), 0.1, target=1).indices) == 10
    with pytest.raises(ValueError, match="target must be the attack's own 1, got 0"):
        attack.poison(_data(), 0.1, target=0)


def test_badnets_has_learned_nothing_and_takes_no_state():
    assert BadNets(0).state_dict() == {}
    BadNets(0).load_state_dict({})
    with pytest.raises(ValueError, match="BadNets learns no tensors, got pattern"):
        BadNets(0).load_state_dict({"pattern": torch.zeros(1)})
