"""WaNet: the warp by hand, and crossed images."""

import pytest
import torch

from d3fast.attacks.wanet import WaNet, warp
from d3fast.data import ImageData, as_float
from d3fast.runtime.seeding import generator

ATTACK = WaNet(target=1, strength=2.0)


def _data(count=100, side=8, dtype=torch.uint8):
    images = torch.randint(0, 256, (count, 1, side, side), generator=generator(0, "images"))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % 4, tuple("abcd"))


def _plan(attack=ATTACK, data=None, ratio=0.1, batch_size=32, seed=0):
    return attack.training(
        data or _data(), ratio=ratio, batch_size=batch_size, seed=seed, progress=False
    )


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


def test_crossed_images_are_warped_by_noise_of_their_own_on_top():
    image = torch.rand(1, 1, 16, 16).expand(3, -1, -1, -1)
    crossed = ATTACK.cross(image, generator(0, "noise"))
    drawn = 2 * torch.rand(3, 16, 16, 2, generator=generator(0, "noise")) - 1
    expected = warp(image, ATTACK.offsets(16, 16) + drawn / 16)
    assert torch.allclose(crossed, expected, atol=1e-6)
    assert not torch.equal(crossed[0], crossed[1])
    assert not torch.equal(crossed, ATTACK.trigger(image))


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
