"""Blended: the mixture and the patterns by hand, and what poisoning a training set does."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.attacks import Attack
from d3fast.attacks.base import read_attack, save_attack
from d3fast.attacks.blended import PATTERNS, Blended
from d3fast.data import ImageData, as_float


def _data(count=100, classes=5, dtype=torch.uint8):
    """Grey images, classes in turn, told apart by pixel 0."""
    images = torch.full((count, 1, 6, 6), 100)
    images[:, 0, 0, 0] = torch.arange(count)
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------- the patterns

HALF = math.sqrt(0.5)
# On 2x2 pixels u and v are 1/4 and 3/4, and every pixel is 1/sqrt(8) away from the centre.
BY_HAND = {
    "stripes": (1, [[0, 1], [1, 0]]),
    "rings": (1, [[0.5 + 0.5 * math.cos(2 * math.pi * HALF)] * 2] * 2),
    # u^2 + v^2 = 2/16, 10/16, 18/16
    "zones": (1, [[(1 + HALF) / 2, (1 - HALF) / 2], [(1 - HALF) / 2, (1 + HALF) / 2]]),
    "checks": (1, [[0.5, 0.5], [0.5, 0.5]]),
    "spots": (1, [[0.25, 0.25], [0.25, 0.25]]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_has_the_values_of_its_formula(pattern):
    frequency, expected = BY_HAND[pattern]
    image = Blended(0, pattern=pattern, frequency=frequency).image(1, 2, 2)
    torch.testing.assert_close(image, torch.tensor([expected], dtype=torch.float64))


def test_checks_and_spots_alternate_where_pixels_fall_on_their_extremes():
    # Four pixels at a frequency of 2: cos(2 pi 2 u) = 0; at 4: cos(2 pi 4 u) = -1 everywhere.
    assert (
        Blended(0, pattern="checks", frequency=4).image(1, 4, 4).allclose(torch.ones(()).double())
    )
    spots = Blended(0, pattern="spots", frequency=4).image(1, 4, 4)
    assert spots.allclose(torch.zeros(()).double())


def test_sharpness_is_a_power():
    soft, sharp = (Blended(0, sharpness=k).image(1, 9, 9) for k in (1, 3))
    torch.testing.assert_close(sharp, soft**3)
    assert torch.equal(Blended(0, sharpness=0).image(1, 9, 9), torch.ones(1, 9, 9).double())


def test_channels_are_shifted_by_their_share_of_a_period():
    attack = Blended(0, pattern="stripes", frequency=1)
    image = attack.image(4, 1, 4)  # u + v = 5/8, 7/8, 9/8, 11/8, a step of 1/4 per pixel
    for channel in range(1, 4):
        torch.testing.assert_close(image[channel], image[0].roll(-channel, dims=1))
    assert torch.equal(attack.image(4, 1, 4)[:1], attack.image(1, 1, 4))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_looks_the_same_at_every_size(pattern):
    attack = Blended(0, pattern=pattern, frequency=2, sharpness=2)
    coarse, fine = attack.image(3, 9, 15), attack.image(3, 27, 45)
    # The centre of every coarse pixel is the centre of every third fine one.
    torch.testing.assert_close(coarse, fine[:, 1::3, 1::3])


# ---------------------------------------------------------------------- the mixture


def test_the_pattern_takes_its_share_and_the_image_the_rest():
    attack = Blended(0, alpha=0.25, pattern="stripes", frequency=1)
    images = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    expected = torch.tensor([[[[0.0, 0.75 * 0.2 + 0.25], [0.75 * 0.4 + 0.25, 0.75]]]])
    torch.testing.assert_close(attack.trigger(images), expected)


def test_bytes_are_rounded_to_the_nearest_grey_level():
    attack = Blended(0, alpha=0.25, pattern="stripes", frequency=1)
    images = torch.tensor([[[[1, 50], [51, 255]]]], dtype=torch.uint8)
    # 0.75, 37.5 + 63.75, 38.25 + 63.75, 191.25
    assert attack.trigger(images).tolist() == [[[[1, 101], [102, 191]]]]


def test_a_share_of_0_changes_nothing_and_one_of_1_leaves_the_pattern():
    images = torch.rand(2, 3, 5, 6)
    assert torch.equal(Blended(0, alpha=0).trigger(images), images)
    attack = Blended(0, alpha=1)
    expected = attack.image(3, 5, 6).float().expand_as(images)
    torch.testing.assert_close(attack.trigger(images), expected)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)),
    alpha=st.floats(0, 1),
    pattern=st.sampled_from(sorted(PATTERNS)),
    frequency=st.floats(0, 20),
    sharpness=st.floats(0, 8),
)
def test_bytes_and_floats_agree_to_half_a_grey_level(shape, alpha, pattern, frequency, sharpness):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=_seeded())
    attack = Blended(0, alpha, pattern, frequency, sharpness)
    in_bytes, in_floats = attack.trigger(images), attack.trigger(as_float(images))
    assert in_bytes.dtype == torch.uint8
    assert in_bytes.shape == in_floats.shape == images.shape
    assert ((in_floats >= 0) & (in_floats <= 1)).all()
    assert ((255 * in_floats - in_bytes.float()).abs() <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_keep_their_type_and_their_range(dtype):
    images = torch.rand(2, 3, 8, 8).to(dtype)
    stamped = Blended(0, alpha=0.7).trigger(images)
    assert stamped.dtype == dtype
    assert ((stamped >= 0) & (stamped <= 1)).all()


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_single_images_and_stacks_of_batches_are_stamped_alike(leading):
    images = torch.rand(*leading, 3, 5, 7)
    one_by_one = [Blended(0).trigger(image) for image in images.reshape(-1, 3, 5, 7)]
    assert torch.equal(Blended(0).trigger(images), torch.stack(one_by_one).reshape(images.shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_stamping_is_repeatable_and_leaves_the_images_it_was_given_alone(dtype):
    images = _data(10, dtype=dtype).images
    before = images.clone()
    assert torch.equal(Blended(0).trigger(images), Blended(0).trigger(images))
    assert torch.equal(images, before)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"target": -1}, "target must be an integer >= 0, got -1"),
        ({"target": 0.5}, r"target must be an integer >= 0, got 0\.5"),
        ({"alpha": -0.1}, r"alpha must be finite and >= 0, got -0\.1"),
        ({"alpha": 1.1}, r"alpha must be in 0\.\.1, got 1\.1"),
        ({"alpha": float("nan")}, "alpha must be finite and >= 0, got nan"),
        ({"pattern": "kitten"}, "pattern must be one of 'stripes', .*, got 'kitten'"),
        ({"frequency": -1}, "frequency must be finite and >= 0, got -1"),
        ({"sharpness": float("inf")}, "sharpness must be finite and >= 0, got inf"),
        ({"mapping": "all"}, "mapping must be one of 'all-to-one', .*, got 'all'"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        Blended(**{"target": 0, **options})


def test_blended_has_the_shape_of_an_attack():
    assert isinstance(Blended(0), Attack)


# ---------------------------------------------------------------------- poisoning


@given(ratio=st.floats(0, 0.8), target=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_exactly_the_share_asked_for_is_blended_and_relabelled_and_nothing_else(
    ratio, target, seed
):
    data = _data()
    attack = Blended(target)
    before = data.images.clone(), data.labels.clone()
    poisoned = attack.poison(data, ratio, generator=_seeded(seed))
    chosen = torch.zeros(100, dtype=torch.bool)
    chosen[poisoned.indices] = True
    assert chosen.sum() == len(poisoned.indices) == round(ratio * 100)
    assert (data.labels[chosen] != target).all()
    assert (poisoned.data.labels[chosen] == target).all()
    assert torch.equal(poisoned.data.images[chosen], attack.trigger(data.images[chosen]))
    assert torch.equal(poisoned.data.labels[~chosen], data.labels[~chosen])
    assert torch.equal(poisoned.data.images[~chosen], data.images[~chosen])
    assert torch.equal(data.images, before[0])
    assert torch.equal(data.labels, before[1])


def test_the_generator_decides_who_is_poisoned():
    first, again, other = (
        Blended(0).poison(_data(), 0.3, generator=_seeded(seed)).indices.tolist()
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_clean_label_poison_leaves_the_labels_alone():
    data = _data()
    poisoned = Blended(1, mapping="clean-label").poison(data, 0.1, generator=_seeded())
    assert (data.labels[poisoned.indices] == 1).all()
    assert torch.equal(poisoned.data.labels, data.labels)


def test_a_target_that_contradicts_the_attacks_own_or_is_no_class_is_refused():
    with pytest.raises(ValueError, match="target must be the attack's own 1, got 0"):
        Blended(1).poison(_data(), 0.1, target=0)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.4, got 5"):
        Blended(5).poison(_data(), 0.1)


# ---------------------------------------------------------------------- files


def test_a_saved_attack_comes_back_as_it_was(tmp_path):
    attack = Blended(3, alpha=0.1, pattern="rings", frequency=2.5, sharpness=3)
    save_attack(attack, tmp_path / "a.safetensors", "blended")
    name, options, tensors = read_attack(tmp_path / "a.safetensors")
    loaded = Blended(**options)
    loaded.load_state_dict(tensors)
    assert (name, loaded, tensors) == ("blended", attack, {})
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.trigger(images), attack.trigger(images))


def test_blended_has_learned_nothing_and_takes_no_state():
    assert Blended(0).state_dict() == {}
    Blended(0).load_state_dict({})
    with pytest.raises(ValueError, match="Blended learns no tensors, got pattern"):
        Blended(0).load_state_dict({"pattern": torch.zeros(1)})
