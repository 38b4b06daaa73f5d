"""Clean samples that are no fair draw: a rare class, corrupted images."""

import pytest
import torch

from d3fast.benchmark.clean_shift import CORRUPTIONS, CleanShift
from d3fast.data import ImageData


def samples(count=60):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return ImageData(images, torch.arange(count) % 3, ("a", "b", "c"))


def test_a_tenth_of_the_rare_class_is_left_and_all_of_the_others_in_their_order():
    left = CleanShift(rare_class=1).apply(samples(), seed=0)
    assert left.labels.bincount().tolist() == [20, 2, 20]
    kept = [any(torch.equal(one, other) for other in left.images) for one in samples().images]
    assert torch.equal(left.images, samples().images[torch.tensor(kept)])


def test_at_least_one_sample_of_the_rare_class_is_left():
    assert CleanShift(rare_class=2).apply(samples(6), seed=0).labels.bincount().tolist() == [
        2,
        2,
        1,
    ]


def test_the_seed_draws_which_samples_are_left():
    first, same, other = (CleanShift(rare_class=1).apply(samples(), seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, same.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_pixels_and_nothing_else(name):
    data = samples()
    shifted = CleanShift(corruption=name).apply(data, seed=0)
    assert (shifted.images.shape, shifted.images.dtype) == (data.images.shape, torch.uint8)
    assert torch.equal(shifted.labels, data.labels)
    assert shifted.classes == data.classes
    changes = (shifted.images.float() - data.images.float()).abs().amax(dim=(1, 2, 3))
    assert bool((changes > 10).all())
    again = CleanShift(corruption=name).apply(data, seed=0)
    assert torch.equal(shifted.images, again.images)


@pytest.mark.parametrize("name", ["blur", "contrast"])
def test_an_image_of_one_grey_stays_as_it_is(name):
    grey = ImageData(torch.full((2, 1, 8, 8), 0.25), torch.tensor([0, 1]), ("a", "b"))
    shifted = CleanShift(corruption=name).apply(grey, seed=0)
    torch.testing.assert_close(shifted.images, grey.images)


def test_both_shifts_go_together():
    both = CleanShift(rare_class=0, corruption="contrast").apply(samples(), seed=0)
    rare = CleanShift(rare_class=0).apply(samples(), seed=0)
    expected = CleanShift(corruption="contrast").apply(rare, seed=0)
    assert torch.equal(both.images, expected.images)


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({}, "a shift needs rare_class or corruption, got neither"),
        ({"rare_class": -1}, "rare_class must be an integer >= 0, got -1"),
        ({"corruption": "fog"}, "corruption must be one of 'noise', .*, got 'fog'"),
    ],
)
def test_a_shift_that_cannot_be_is_refused(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        CleanShift(**options)


def test_a_rare_class_that_the_samples_lack_is_refused():
    with pytest.raises(ValueError, match="rare_class must be a class with samples, got 3"):
        CleanShift(rare_class=3).apply(samples(), seed=0)
