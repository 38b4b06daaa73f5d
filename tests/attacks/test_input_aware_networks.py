"""The networks of the Input-aware attack: formulas by hand, sizes, and what the mask learns."""

import math

import pytest
import torch

from d3fast.attacks.input_aware_networks import (
    ImageToImage,
    Networks,
    blend,
    diversity,
    stamp,
    train_mask,
)
from d3fast.data import ImageData
from d3fast.runtime.seeding import generator, global_seed


def test_pattern_where_the_mask_is_1_image_where_it_is_0():
    images, patterns = torch.full((1, 2, 1, 3), 0.2), torch.full((1, 2, 1, 3), 0.6)
    masks = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    stamped = blend(images, patterns, masks)
    assert torch.allclose(stamped, torch.tensor([0.2, 0.4, 0.6]).expand(1, 2, 1, 3))


def test_diversity_is_the_distance_of_images_over_that_of_answers():
    images = torch.zeros(3, 1, 1, 2)
    images[1], images[2] = 1.0, 0.5
    answers = torch.zeros(3, 1, 1, 2)
    answers[1, ..., 0] = 1.0  # root mean square apart: sqrt(1/2), sqrt(1/2), 0
    root = math.sqrt(0.5)
    expected = torch.tensor([1.0 / root, 0.5 / root, 0.5 / 0.002]).mean()
    assert float(diversity(images, answers)) == pytest.approx(float(expected), rel=0.01)


def test_diversity_of_answers_all_alike_has_finite_slopes():
    answers = torch.zeros(3, 1, 2, 2, requires_grad=True)
    diversity(torch.rand(3, 1, 2, 2), answers).backward()
    assert answers.grad.isfinite().all()


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (28, 28), (32, 32)])
def test_the_networks_answer_in_the_size_of_the_images_within_0_and_1(size):
    answers = ImageToImage(3, 1, 4)(torch.rand(2, 3, *size))
    assert answers.shape == (2, 1, *size)
    assert answers.min() >= 0
    assert answers.max() <= 1


def _masks(density, seed=0, steps=100):
    images = torch.randint(0, 256, (40, 1, 8, 9), generator=generator(0, "images"))
    data = ImageData(images.to(torch.uint8), torch.zeros(40, dtype=torch.long), ("a",))
    with global_seed(0):
        networks = Networks(1, 4)
    options = {"steps": steps, "lr": 0.01, "batch_size": 16, "progress": False}
    train_mask(networks, data, density=density, seed=seed, **options)
    return networks, networks.masks(images / 255).detach()


@pytest.fixture(scope="module")
def sparse():
    return _masks(0.05)


def test_masks_are_trained_to_cover_no_more_than_their_share(sparse):
    assert 0 < sparse[1].mean() < 0.07
    assert 0.15 < _masks(0.5)[1].mean() < 0.55


def test_masks_are_the_networks_answers_pushed_to_0_and_1_from_a_half():
    with global_seed(0):
        networks, images = Networks(1, 4), torch.rand(5, 1, 8, 8)
    steep = torch.sigmoid(40 * (networks.mask(images) - 0.5))
    assert torch.allclose(networks.masks(images), steep, atol=1e-5)


def test_a_trained_mask_is_frozen_and_the_generator_is_not(sparse):
    assert not any(p.requires_grad for p in sparse[0].mask.parameters())
    assert all(p.requires_grad for p in sparse[0].generator.parameters())


def test_the_seed_decides_the_mask():
    first, again, other = (_masks(0.2, seed, steps=3)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_are_stamped_with_the_triggers_of_their_sources(sparse):
    images, sources = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    networks = sparse[0]
    expected = blend(images, networks.generator(sources), networks.masks(sources))
    assert torch.equal(stamp(networks, images, sources), expected)
    assert stamp(networks, images.double(), sources).dtype == torch.float64
