"""Loaders of clean samples for a repair."""

import pytest
import torch
from torch import nn

from d3fast.data import Augment, ImageData
from d3fast.detox import D3Config, detoxify, repair_samples, usual_augment
from d3fast.detox.samples import Unlabelled
from d3fast.text.data import TextData


@pytest.fixture
def data():
    images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return ImageData(images, torch.arange(10), tuple("abcdefghij"))


def labels(samples):
    return torch.cat([batch for _, batch in samples.loader]).tolist()


def test_every_pass_has_every_sample_in_another_order(data):
    samples = repair_samples(data, batch_size=4)
    first, second = labels(samples), labels(samples)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_the_same_seed_gives_the_same_batches(data):
    passes = [list(repair_samples(data, batch_size=4, seed=3).loader) for _ in range(2)]
    for (x, a), (y, b) in zip(*passes, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(a, b)


def test_the_generators_resume_a_pass(data):
    samples = repair_samples(data, batch_size=4)
    saved = [generator.get_state() for generator in samples.generators]
    want = list(samples.loader)
    for generator, state in zip(samples.generators, saved, strict=True):
        generator.set_state(state)
    for (x, _), (y, _) in zip(samples.loader, want, strict=True):
        assert torch.equal(x, y)


def test_without_augmentation_the_images_are_those_of_the_data(data):
    samples = repair_samples(data, batch_size=10, augment=Augment(crop=0, flip=False))
    images, order = next(iter(samples.loader))
    assert torch.equal(images, data.images[order])


def test_a_batch_size_below_one_is_refused_with_its_value(data):
    with pytest.raises(ValueError, match=r"batch_size .* 0"):
        repair_samples(data, batch_size=0)


@pytest.mark.parametrize(("side", "crop"), [(28, 3), (32, 4), (64, 8)])
def test_the_usual_shift_is_an_eighth_of_a_side(side, crop):
    assert usual_augment((1, side, side)) == Augment(crop=crop, flip=False)
    assert usual_augment((1, side, side), flip=True).flip


def test_unlabelled_batches_are_drawn_without_end_and_resume_with_their_generator(data):
    draw = torch.Generator().manual_seed(0)
    batches = iter(Unlabelled(data, 4, Augment(crop=1), draw))
    next(batches)
    state = draw.get_state()
    want = [next(batches) for _ in range(5)]  # more than the data holds
    draw.set_state(state)
    again = iter(Unlabelled(data, 4, Augment(crop=1), draw))
    assert all(torch.equal(next(again), batch) for batch in want)


def test_unlabelled_texts_are_trimmed_to_the_longest_of_a_batch():
    texts = TextData(torch.tensor([[1, 2, 0], [1, 2, 0]]), torch.tensor([0, 0]), ("a",))
    batch = next(iter(Unlabelled(texts, 3, None, torch.Generator())))
    assert batch.tolist() == [[1, 2]] * 3


@pytest.fixture
def repair(data):
    """Repairs a small model with the data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))

    def run(distillation, unlabelled):
        config = D3Config(epochs=1, distillation=distillation)
        return detoxify(model, data.batches(5), config, progress=False, unlabelled=unlabelled).model

    return run


def test_unlabelled_samples_teach_what_the_suspect_answers_on_them(repair, data):
    alone, taught = repair(0.5, None), repair(0.5, [data.images[:4], (data.images[4:], None)])
    assert not torch.equal(alone[1].weight, taught[1].weight)


def test_unlabelled_samples_without_distillation_are_refused(repair, data):
    with pytest.raises(ValueError, match="unlabelled samples need distillation > 0"):
        repair(0.0, [data.images])
    with pytest.raises(ValueError, match="unlabelled yields nothing"):
        repair(0.5, [])
