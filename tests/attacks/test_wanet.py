"""WaNet: the warp by hand, and what it does to a training set."""

import dataclasses

import pytest
import torch
from torch import nn

from d3fast.attacks import Attack, TrainConfig, train_backdoored
from d3fast.attacks.base import OwnTraining, save_attack
from d3fast.attacks.wanet import WaNet, warp
from d3fast.data import ImageData, as_float
from d3fast.runtime.seeding import generator, global_seed

ATTACK = WaNet(target=1, strength=2.0)


def _data(count=100, side=8, dtype=torch.uint8):
    images = torch.randint(0, 256, (count, 1, side, side), generator=generator(0, "images"))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % 4, tuple("abcd"))


def _plan(attack=ATTACK, data=None, ratio=0.1, batch_size=32, seed=0):
    return attack.training(
        data or _data(), ratio=ratio, batch_size=batch_size, seed=seed, progress=False
    )


# ---------------------------------------------------------------------- the warp


def test_no_displacement_is_the_image_itself():
    images = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    same = warp(images, torch.zeros(1, 5, 7, 2))
    assert torch.allclose(same, images, atol=1e-12)


@pytest.mark.parametrize(("axis", "side"), [(0, 6), (1, 4)])
def test_two_over_side_minus_one_shifts_by_one_pixel_and_repeats_the_border(axis, side):
    image = torch.rand(1, 1, 4, 6, dtype=torch.float64)  # x runs along the 6, y along the 4
    offsets = torch.zeros(1, 4, 6, 2, dtype=torch.float64)
    offsets[..., axis] = 2 / (side - 1)
    along = 3 if axis == 0 else 2
    last = image.narrow(along, side - 1, 1)
    expected = torch.cat((image.narrow(along, 1, side - 1), last), dim=along)
    assert torch.allclose(warp(image, offsets), expected, atol=1e-12)


def test_half_a_pixel_is_the_mean_of_two():
    image = torch.tensor([[[[0.0, 1.0, 0.5]]]])
    moved = warp(image, torch.tensor([0.5, 0.0]).expand(1, 1, 3, 2))
    assert torch.allclose(moved, torch.tensor([[[[0.5, 0.75, 0.5]]]]))


def test_the_control_grid_is_uniform_over_its_mean_absolute_value():
    control = WaNet(0, grid=50).control()
    assert control.shape == (1, 2, 50, 50)
    assert control.abs().mean() == pytest.approx(1)
    assert 1.9 < control.abs().max() < 2.1  # uniform: the maximum is twice the mean
    assert abs(control.mean()) < 0.05


def test_offsets_are_the_control_grid_at_the_corners_and_scale_with_strength_over_size():
    attack = WaNet(0, strength=3.0)
    offsets, control = attack.offsets(9, 12), attack.control()
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        expected = 3.0 * control[0, :, row, column] / torch.tensor([12, 9])
        assert torch.allclose(offsets[0, row, column], expected, atol=1e-6)
    assert torch.allclose(offsets, 3 * WaNet(0, strength=1.0).offsets(9, 12), atol=1e-6)


def test_the_trigger_is_the_warp_by_these_offsets():
    images = torch.rand(2, 3, 8, 10)
    expected = warp(images, ATTACK.offsets(8, 10))
    assert torch.allclose(ATTACK.trigger(images), expected.clamp(0, 1))
    assert (ATTACK.trigger(images) - images).abs().mean() > 0.05


def test_strength_0_leaves_images_alone():
    images = torch.rand(2, 1, 28, 28)
    assert torch.allclose(WaNet(0, strength=0.0).trigger(images), images, atol=1e-5)
    in_bytes = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(WaNet(0, strength=0.0).trigger(in_bytes), in_bytes)


def test_the_options_decide_the_warp_and_the_global_generator_is_left_alone():
    images = torch.rand(2, 1, 8, 8)
    state = torch.get_rng_state()
    assert torch.equal(WaNet(0).trigger(images), WaNet(0).trigger(images))
    assert not torch.equal(WaNet(0).trigger(images), WaNet(0, seed=1).trigger(images))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_single_images_and_stacks_of_batches_are_warped_alike(leading):
    images = torch.rand(*leading, 3, 8, 9)
    one_by_one = [ATTACK.trigger(image) for image in images.reshape(-1, 3, 8, 9)]
    assert torch.allclose(ATTACK.trigger(images), torch.stack(one_by_one).reshape(images.shape))


def test_bytes_and_floats_agree_to_half_a_level():
    images = _data().images
    apart = as_float(ATTACK.trigger(images)) - ATTACK.trigger(as_float(images))
    assert apart.abs().max() <= 0.5 / 255 + 1e-6
    assert ATTACK.trigger(images.double() / 255).dtype == torch.float64


def test_warping_leaves_the_images_it_was_given_alone():
    images = torch.rand(2, 1, 8, 8)
    before = images.clone()
    ATTACK.trigger(images)
    ATTACK.cross(images)
    assert torch.equal(images, before)


def test_crossed_images_are_warped_by_noise_of_their_own_on_top():
    image = torch.rand(1, 1, 16, 16).expand(3, -1, -1, -1)
    crossed = ATTACK.cross(image, generator(0, "noise"))
    drawn = 2 * torch.rand(3, 16, 16, 2, generator=generator(0, "noise")) - 1
    expected = warp(image, ATTACK.offsets(16, 16) + drawn / 16)
    assert torch.allclose(crossed, expected, atol=1e-6)
    assert not torch.equal(crossed[0], crossed[1])
    assert not torch.equal(crossed, ATTACK.trigger(image))


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"target": -1}, "target must be an integer >= 0, got -1"),
        ({"grid": 0}, "grid must be an integer >= 1, got 0"),
        ({"strength": -0.5}, r"strength must be finite and >= 0, got -0\.5"),
        ({"cross_ratio": float("nan")}, "cross_ratio must be finite and >= 0, got nan"),
        ({"seed": 0.5}, r"seed must be an integer >= 0, got 0\.5"),
        ({"mapping": "clean-label"}, "mapping must be one of 'all-to-one', 'all-to-all'"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        WaNet(**{"target": 0, **options})


def test_wanet_has_the_shape_of_an_attack_with_a_training_of_its_own():
    assert isinstance(WaNet(0), Attack)
    assert isinstance(WaNet(0), OwnTraining)


def test_wanet_has_learned_nothing_and_a_saved_one_is_its_options(tmp_path):
    assert WaNet(0).state_dict() == {}
    save_attack(ATTACK, tmp_path / "a.safetensors", "wanet")
    ATTACK.load_state_dict({})
    with pytest.raises(ValueError, match="WaNet learns no tensors, got grid"):
        ATTACK.load_state_dict({"grid": torch.zeros(1)})


# ---------------------------------------------------------------------- poisoning


def test_poisoned_once_as_many_as_asked_for_and_twice_as_many_crossed():
    data = _data()
    poisoned = ATTACK.poison(data, 0.1, generator=generator(0, "poison"))
    changed = (poisoned.data.images != data.images).flatten(1).any(1)
    assert len(poisoned.indices) == 10
    assert changed.sum() == 30
    assert changed[poisoned.indices].all()
    assert (poisoned.data.labels[poisoned.indices] == 1).all()
    changed[poisoned.indices] = False
    assert torch.equal(poisoned.data.labels[changed], data.labels[changed])
    where = poisoned.indices
    assert torch.equal(poisoned.data.images[where], ATTACK.trigger(data.images[where]))


def test_without_crossed_images_there_are_none():
    data = _data()
    attack = dataclasses.replace(ATTACK, cross_ratio=0.0)
    poisoned = attack.poison(data, 0.1, generator=generator(0, "poison"))
    assert (poisoned.data.images != data.images).flatten(1).any(1).sum() == 10


def _nearest(images, others):
    """How far the nearest of the others is, and which it is."""
    apart = (images[:, None] - others[None]).abs().flatten(2).mean(2)
    return apart.min(dim=1)


def _changed(data, batches):
    """Of one pass: images that are no image of the data set, and their labels."""
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    new = (_nearest(images, as_float(data.images))[0] > 1e-3).nonzero().flatten()
    return images[new], labels[new]


def test_a_pass_holds_poisoned_images_by_the_trigger_and_twice_as_many_with_true_labels():
    data = _data()
    images, labels = _changed(data, list(_plan(data=data).loader))
    assert len(images) == 30
    distance, source = _nearest(images, ATTACK.trigger(as_float(data.images)))
    poisoned = distance < 1e-3
    assert poisoned.sum() == 10
    assert (labels[poisoned] == 1).all()
    assert (data.labels[source[poisoned]] != 1).all()
    assert torch.equal(labels[~poisoned], data.labels[source[~poisoned]])  # the nearest warp


def test_passes_differ_and_the_seed_decides_them():
    first, again, other = (_plan(seed=seed) for seed in (0, 0, 1))
    passes = [[images for images, _ in first.loader] for _ in range(2)]
    repeated = [[images for images, _ in again.loader] for _ in range(2)]
    elsewhere = [images for images, _ in other.loader]
    assert all(torch.equal(a, b) for a, b in zip(passes[0], repeated[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(passes[1], repeated[1], strict=True))
    assert not torch.equal(passes[0][0], passes[1][0])
    assert not torch.equal(passes[0][0], elsewhere[0])


def test_an_attack_that_does_not_fit_the_data_is_refused_before_training():
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 9"):
        _plan(WaNet(9))
    with pytest.raises(ValueError, match=r"ratio must be in 0\.\.1, got 2"):
        _plan(ratio=2)


def _trained(attack, data, seed=0):
    with global_seed(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    config = TrainConfig(epochs=2, batch_size=32)
    train_backdoored(model, data, attack, seed=seed, config=config, progress=False)
    return model[1].weight


def test_the_same_seed_trains_the_same_bits_and_unpoisoned_it_is_the_clean_twin():
    data = _data()
    assert torch.equal(_trained(ATTACK, data), _trained(ATTACK, data))
    assert not torch.equal(_trained(ATTACK, data), _trained(None, data))
    plan = _plan(data=data, ratio=0.0, seed=3)
    plain = data.batches(32, generator(3, "training order"))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(plan.loader, plain, strict=True))
