"""Crops, flips and rotations, checked by hand on tiny images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.data import AUGMENTATIONS, DATASETS, Augment, Augmented, ImageData
from d3fast.data.augment import rotate, shift_and_flip

IMAGE = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8)[None, None]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _moved(down, right, flip=False, padding="zeros", images=IMAGE):
    one = torch.tensor
    return shift_and_flip(images, one([down]), one([right]), one([flip]), padding)[0, 0].tolist()


@pytest.mark.parametrize(
    ("down", "right", "flip", "padding", "wanted"),
    [
        (0, 0, False, "zeros", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (1, 0, False, "zeros", [[0, 0, 0], [1, 2, 3], [4, 5, 6]]),
        (-2, 0, False, "zeros", [[7, 8, 9], [0, 0, 0], [0, 0, 0]]),
        (0, 1, False, "zeros", [[0, 1, 2], [0, 4, 5], [0, 7, 8]]),
        (1, -1, False, "zeros", [[0, 0, 0], [2, 3, 0], [5, 6, 0]]),
        (0, 0, True, "zeros", [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        (0, 1, True, "zeros", [[2, 1, 0], [5, 4, 0], [8, 7, 0]]),
        (9, 0, False, "zeros", [[0] * 3] * 3),
        (1, 0, False, "reflect", [[4, 5, 6], [1, 2, 3], [4, 5, 6]]),
        (-2, 0, False, "reflect", [[7, 8, 9], [4, 5, 6], [1, 2, 3]]),
        (0, -1, True, "reflect", [[2, 3, 2], [5, 6, 5], [8, 9, 8]]),
    ],
)
def test_an_image_is_moved_and_then_flipped_by_known_numbers(down, right, flip, padding, wanted):
    assert _moved(down, right, flip, padding) == wanted
    assert _moved(down, right, flip, padding, IMAGE.float()) == wanted


def test_all_channels_move_together_and_each_image_by_its_own_numbers():
    images = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    down, right, flip = torch.tensor([1, -1]), torch.tensor([0, 2]), torch.tensor([False, True])
    moved = shift_and_flip(images, down, right, flip)
    assert torch.equal(moved[0, :, 1:], images[0, :, :-1])
    assert not moved[0, :, 0].any()
    assert torch.equal(moved[1, :, :-1, :3], images[1, :, 1:, :3].flip(-1))
    assert not moved[1, :, -1].any()
    assert not moved[1, :, :, 3:].any()


@given(size=st.integers(2, 9), seed=st.integers(0, 2**32))
def test_flipping_twice_and_moving_there_and_back_give_the_image_again(size, seed):
    images = torch.rand(3, 2, size, size + 1, generator=_generator(seed))
    none, flip = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.bool)
    flipped = shift_and_flip(images, none, none, flip)
    assert torch.equal(flipped, images.flip(-1))
    assert torch.equal(shift_and_flip(flipped, none, none, flip), images)
    there = shift_and_flip(images, none + 1, none, ~flip)
    back = shift_and_flip(there, none - 1, none, ~flip)
    assert torch.equal(back[:, :, :-1], images[:, :, :-1])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_right_angles_turn_the_pixels_counter_clockwise(degrees):
    images = torch.rand(2, 3, 5, 5, generator=_generator())
    turned = rotate(images, torch.full((2,), float(degrees)))
    torch.testing.assert_close(
        turned, torch.rot90(images, degrees // 90, (2, 3)), atol=1e-5, rtol=0
    )


def test_a_rotation_by_0_degrees_is_the_same_image():
    images = torch.randint(256, (2, 3, 6, 5), generator=_generator(), dtype=torch.uint8)
    assert torch.equal(rotate(images, torch.zeros(2)), images)


def test_lengths_are_kept_when_an_oblong_image_is_turned():
    # A bar of 1x5 pixels in the middle of 7x9 stands upright after a quarter turn.
    image = torch.zeros(1, 1, 7, 9)
    image[0, 0, 3, 2:7] = 1
    wanted = torch.zeros(1, 1, 7, 9)
    wanted[0, 0, 1:6, 4] = 1
    torch.testing.assert_close(rotate(image, torch.tensor([90.0])), wanted, atol=1e-5, rtol=0)


def test_every_image_is_turned_by_its_own_angle_within_the_limit():
    line = torch.zeros(64, 1, 33, 33)
    line[:, :, :, 16] = 1  # upright: where its upper half leans tells the angle
    turned = Augment(crop=0, flip=False, rotation=20)(line, _generator())[:, 0, 4]
    place = (turned * torch.arange(33)).sum(1) / turned.sum(1)
    degrees = torch.rad2deg(torch.atan((16 - place) / 12))
    assert degrees.abs().max() <= 20.5
    assert degrees.min() < -15
    assert degrees.max() > 15


@pytest.mark.parametrize("options", [{}, {"rotation": 30.0}, {"padding": "reflect", "rotation": 9}])
def test_shape_type_device_and_input_are_kept(options):
    for images in (
        torch.randint(256, (5, 3, 8, 7), generator=_generator(), dtype=torch.uint8),
        torch.rand(5, 3, 8, 7, generator=_generator()),
    ):
        before = images.clone()
        changed = Augment(crop=2, **options)(images, _generator())
        assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
        assert changed.device == images.device
        assert changed.is_contiguous()
        assert changed.min() >= 0
        assert changed.max() <= (1 if images.is_floating_point() else 255)
        assert torch.equal(images, before)
        assert not torch.equal(changed, images)


def test_every_shift_and_both_sides_are_drawn_equally_often():
    images = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 2], images[:, 0, 2, 3] = 2, 1  # the bright pixel, and one to its right
    changed = Augment(crop=1)(images, _generator())
    where = (changed == 2).flatten(1).float().argmax(1)
    counts = where.bincount(minlength=25)
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1000
    assert ((counts.reshape(5, 5) - expected).abs() <= 150).all()  # five standard deviations
    unflipped = ((changed[..., :-1] == 2) & (changed[..., 1:] == 1)).flatten(1).any(1)
    assert abs(int(unflipped.sum()) - 4500) <= 240


def test_the_same_seed_gives_the_same_bits_and_the_next_call_others():
    images = torch.rand(16, 3, 8, 8, generator=_generator())
    augment = Augment(crop=2, rotation=15)
    draws = _generator(5)
    first, second = augment(images, draws), augment(images, draws)
    assert torch.equal(first, augment(images, _generator(5)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, augment(images, _generator(6)))


def test_with_everything_off_the_batch_comes_back():
    images = torch.rand(2, 1, 3, 3)
    assert Augment(crop=0, flip=False)(images, _generator()) is images


def test_an_empty_batch_stays_empty():
    assert Augment(rotation=5)(torch.zeros(0, 3, 8, 8), _generator()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"crop": -1}, "crop must be an integer >= 0, got -1"),
        ({"crop": 1.5}, r"crop must be an integer >= 0, got 1\.5"),
        ({"rotation": -3}, "rotation must be finite and >= 0, got -3"),
        ({"rotation": 181.0}, r"rotation must be <= 180, got 181\.0"),
        ({"padding": "mirror"}, "padding must be one of 'zeros', 'reflect', got 'mirror'"),
    ],
)
def test_options_out_of_range_are_refused(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        Augment(**options)


@pytest.mark.parametrize(
    ("augment", "images", "error_text"),
    [
        (
            Augment(),
            torch.zeros(3, 8, 8),
            r"images must be \(N, C, H, W\) .* got shape \(3, 8, 8\)",
        ),
        (Augment(), torch.zeros(1, 3, 8, 8, dtype=torch.long), r"of torch\.int64"),
        (Augment(8, padding="reflect"), torch.zeros(1, 3, 8, 9), "crop=8 cannot be .* 8x9 images"),
    ],
)
def test_images_that_cannot_be_augmented_are_refused(augment, images, error_text):
    with pytest.raises(ValueError, match=error_text):
        augment(images, _generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu_the_same_draws_are_made():
    images = torch.randint(256, (8, 3, 16, 16), generator=_generator(), dtype=torch.uint8)
    there = Augment()(images.cuda(), _generator())
    assert there.is_cuda
    assert torch.equal(there.cpu(), Augment()(images, _generator()))
    with pytest.raises(ValueError, match="generator must be one of the CPU, got one of cuda"):
        Augment()(images.cuda(), torch.Generator("cuda"))


def test_the_recipes_are_for_data_sets_of_the_registry_and_flip_no_digit_or_road_sign():
    assert set(AUGMENTATIONS) == set(DATASETS) - {"folder", "npz"}  # who knows what is in those
    assert not AUGMENTATIONS["digits"].flip
    assert not AUGMENTATIONS["gtsrb"].flip
    assert AUGMENTATIONS["cifar10"] == Augment(crop=4, flip=True)


def _passes(augment, seed=0, passes=3):
    images = torch.randint(256, (40, 1, 6, 6), dtype=torch.uint8, generator=_generator(1))
    loader = ImageData(images, torch.arange(40), ("x",) * 40).batches(16, _generator(seed))
    if augment is not None:
        loader = Augmented(loader, augment, _generator(seed + 100))
    batches = [list(loader) for _ in range(passes)]
    return (
        [torch.cat([labels for _, labels in batch]) for batch in batches],
        [torch.cat([images for images, _ in batch]) for batch in batches],
    )


def test_augmentation_leaves_the_order_of_the_images_as_it_is():
    plain, augmented = _passes(None), _passes(Augment(crop=2))
    assert all(torch.equal(a, b) for a, b in zip(plain[0], augmented[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain[1], augmented[1], strict=True))
    assert augmented[1][0].dtype == torch.float32
    assert augmented[1][0].max() <= 1


def test_every_pass_is_augmented_anew_and_the_seed_decides_how():
    orders, passes = _passes(Augment(crop=2))
    by_label = [images[order.argsort()] for order, images in zip(orders, passes, strict=True)]
    assert not torch.equal(by_label[0], by_label[1])
    assert not torch.equal(by_label[1], by_label[2])
    again, other = _passes(Augment(crop=2)), _passes(Augment(crop=2), seed=9)
    assert all(torch.equal(a, b) for a, b in zip(passes, again[1], strict=True))
    assert not torch.equal(by_label[0], other[1][0][other[0][0].argsort()])


def test_a_single_image_is_augmented_anew_too():
    data = ImageData(torch.full((1, 1, 9, 9), 255, dtype=torch.uint8), torch.tensor([0]), ("a",))
    loader = Augmented(data.batches(4), Augment(crop=4), _generator(0))
    seen = {tuple(images.flatten().tolist()) for _ in range(8) for images, _ in loader}
    assert len(seen) > 4


def test_the_seed_decides_the_draws_and_not_the_order_alone():
    data = ImageData(torch.full((1, 1, 9, 9), 255, dtype=torch.uint8), torch.tensor([0]), ("a",))
    firsts = [
        next(iter(Augmented(data.batches(1), Augment(crop=4), _generator(s))))[0] for s in range(4)
    ]
    assert len({tuple(images.flatten().tolist()) for images in firsts}) > 1
