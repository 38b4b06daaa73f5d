"""SIG: the wave by hand, and poison that leaves every label as it is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast import evaluate
from d3fast.attacks import Attack
from d3fast.attacks.base import read_attack, save_attack
from d3fast.attacks.sig import SIG
from d3fast.data import ImageData, as_float


def _data(count=100, classes=5, dtype=torch.uint8):
    """Grey images, classes in turn, told apart by pixel 0."""
    images = torch.full((count, 1, 6, 6), 100)
    images[:, 0, 0, 0] = torch.arange(count)
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------- the wave


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        (0, [0.5, 0.5, 0.5, 0.5]),
        (1, [0.5, 0.7, 0.5, 0.3]),
        (3, [0.5, 0.3, 0.5, 0.7]),  # above W/2 = 2: the mirror image of 1
        (0.5, [0.5, 0.5 + 0.2 * math.sqrt(0.5), 0.7, 0.5 + 0.2 * math.sqrt(0.5)]),
    ],
)
def test_every_row_and_channel_carries_the_wave(frequency, expected):
    stamped = SIG(0, delta=0.2, frequency=frequency).trigger(torch.full((2, 3, 2, 4), 0.5))
    torch.testing.assert_close(stamped, torch.tensor(expected).expand(2, 3, 2, 4))


def test_bytes_are_rounded_to_the_nearest_grey_level():
    grey = torch.tensor([[[[100, 100, 100, 100]]]], dtype=torch.uint8)
    # 0.01 * 255 = 2.55 levels up and down
    assert SIG(0, delta=0.01, frequency=1).trigger(grey).tolist() == [[[[100, 103, 100, 97]]]]


def test_what_leaves_the_range_is_cut_off():
    for low, high, dtype in ((0, 255, torch.uint8), (0.0, 1.0, torch.float32)):
        attack = SIG(0, delta=0.2, frequency=1)
        black, white = (
            attack.trigger(torch.full((1, 1, 1, 4), v, dtype=dtype))[0, 0, 0].tolist()
            for v in (low, high)
        )
        assert black[0] == black[3] == low
        assert black[1] > low
        assert white[0] == white[1] == high
        assert white[3] < high


def test_the_recipe_of_the_field_is_40_grey_levels_and_6_periods():
    assert (SIG(0).delta, SIG(0).frequency) == (40 / 255, 6)
    quarter = 2  # sin(2 pi 2 * 6 / 48) = 1
    assert int(SIG(0).trigger(torch.zeros(1, 1, 48, dtype=torch.uint8))[0, 0, quarter]) == 40


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)),
    delta=st.floats(0, 1),
    frequency=st.floats(0, 20),
)
def test_bytes_and_floats_agree_to_half_a_grey_level(shape, delta, frequency):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=_seeded())
    attack = SIG(0, delta, frequency)
    in_bytes, in_floats = attack.trigger(images), attack.trigger(as_float(images))
    assert in_bytes.dtype == torch.uint8
    assert in_bytes.shape == in_floats.shape == images.shape
    assert ((in_floats >= 0) & (in_floats <= 1)).all()
    assert ((255 * in_floats - in_bytes.float()).abs() <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_keep_their_type_and_their_range(dtype):
    images = torch.rand(2, 3, 8, 8).to(dtype)
    stamped = SIG(0).trigger(images)
    assert stamped.dtype == dtype
    assert ((stamped >= 0) & (stamped <= 1)).all()


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_single_images_and_stacks_of_batches_are_stamped_alike(leading):
    images = torch.rand(*leading, 3, 5, 7)
    one_by_one = [SIG(0).trigger(image) for image in images.reshape(-1, 3, 5, 7)]
    assert torch.equal(SIG(0).trigger(images), torch.stack(one_by_one).reshape(images.shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_stamping_is_repeatable_and_leaves_the_images_it_was_given_alone(dtype):
    images = (255 * torch.rand(2, 1, 8, 8)).to(dtype) / (1 if dtype == torch.uint8 else 255)
    images = images.to(dtype)
    before = images.clone()
    assert torch.equal(SIG(0).trigger(images), SIG(0).trigger(images))
    assert torch.equal(images, before)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"target": -1}, "target must be an integer >= 0, got -1"),
        ({"target": True}, "target must be an integer >= 0, got True"),
        ({"delta": -0.1}, r"delta must be finite and >= 0, got -0\.1"),
        ({"delta": 40}, r"delta must be in 0\.\.1, got 40"),
        ({"delta": None}, "delta must be a number, got None"),
        ({"train_delta": 1.5}, r"train_delta must be in 0\.\.1, got 1\.5"),
        ({"train_delta": float("nan")}, "train_delta must be finite and >= 0, got nan"),
        ({"share": 1.1}, r"share must be in 0\.\.1, got 1\.1"),
        ({"frequency": -1}, "frequency must be finite and >= 0, got -1"),
        ({"frequency": "6"}, "frequency must be a number, got '6'"),
        ({"mapping": "all"}, "mapping must be one of 'all-to-one', .*, got 'all'"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        SIG(**{"target": 0, **options})


def test_sig_has_the_shape_of_an_attack():
    assert isinstance(SIG(0), Attack)


# ---------------------------------------------------------------------- poisoning


@given(ratio=st.floats(0, 1), target=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_only_images_of_the_target_are_stamped_and_no_label_changes(ratio, target, seed):
    data = _data()
    attack = SIG(target, train_delta=20 / 255)
    before = data.images.clone()
    poisoned = attack.poison(data, ratio, generator=_seeded(seed))
    chosen = torch.zeros(100, dtype=torch.bool)
    chosen[poisoned.indices] = True
    assert chosen.sum() == len(poisoned.indices) == min(round(ratio * 100), 20)
    assert (data.labels[chosen] == target).all()
    assert torch.equal(poisoned.data.labels, data.labels)
    assert torch.equal(poisoned.data.images[~chosen], data.images[~chosen])
    assert torch.equal(data.images, before)


def test_poison_carries_the_training_strength_and_the_test_the_full_one():
    data = _data()
    attack = SIG(1, delta=0.2, frequency=1, train_delta=0.1)
    poisoned = attack.poison(data, 0.1, generator=_seeded())
    chosen = poisoned.indices
    faint = SIG(1, delta=0.1, frequency=1).trigger(data.images[chosen])
    assert torch.equal(poisoned.data.images[chosen], faint)
    assert not torch.equal(attack.trigger(data.images[chosen]), faint)


def test_without_a_strength_of_its_own_the_poison_looks_like_the_test():
    data = _data()
    attack = SIG(1)
    poisoned = attack.poison(data, 0.1, generator=_seeded())
    expected = attack.trigger(data.images[poisoned.indices])
    assert torch.equal(poisoned.data.images[poisoned.indices], expected)


@pytest.mark.parametrize(("ratio", "share", "count"), [(0.2, 0.5, 10), (0.05, 0.5, 5), (1, 0, 0)])
def test_a_share_of_the_class_stays_clean_whatever_the_ratio(ratio, share, count):
    assert len(SIG(2, share=share).poison(_data(), ratio, generator=_seeded()).indices) == count


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"ratio must be in 0\.\.1, got {ratio}"):
        SIG(0, share=0.5).poison(_data(), ratio)


def test_other_mappings_relabel_images_of_other_classes():
    data = _data()
    poisoned = SIG(2, share=0.1, mapping="all-to-one").poison(data, 0.4, generator=_seeded())
    assert set(data.labels[poisoned.indices].tolist()) == {0, 1, 3, 4}
    assert (poisoned.data.labels[poisoned.indices] == 2).all()


def test_the_generator_decides_who_is_poisoned():
    first, again, other = (
        SIG(0).poison(_data(), 0.1, generator=_seeded(seed)).indices.tolist() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_target_that_contradicts_the_attacks_own_or_is_no_class_is_refused():
    with pytest.raises(ValueError, match="target must be the attack's own 1, got 0"):
        SIG(1).poison(_data(), 0.1, target=0)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.4, got 5"):
        SIG(5).poison(_data(), 0.1)


def test_success_is_counted_on_images_of_other_classes():
    data = _data()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 5))
    assert evaluate(model, data.batches(50), SIG(1)).triggered == 80


# ---------------------------------------------------------------------- files


def test_a_saved_attack_comes_back_as_it_was(tmp_path):
    attack = SIG(3, delta=0.1, frequency=2.5, train_delta=0.05)
    save_attack(attack, tmp_path / "a.safetensors", "sig")
    name, options, tensors = read_attack(tmp_path / "a.safetensors")
    loaded = SIG(**options)
    loaded.load_state_dict(tensors)
    assert (name, loaded, tensors) == ("sig", attack, {})
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.trigger(images), attack.trigger(images))


def test_sig_has_learned_nothing_and_takes_no_state():
    assert SIG(0).state_dict() == {}
    SIG(0).load_state_dict({})
    with pytest.raises(ValueError, match="SIG learns no tensors, got pattern"):
        SIG(0).load_state_dict({"pattern": torch.zeros(1)})
