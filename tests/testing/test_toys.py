"""The toys are what the contracts take them for."""

import torch

from d3fast.testing import toys


def test_templates_get_their_samples_right_and_a_white_corner_wins_for_one_class():
    data = toys.template_samples()
    corner = data.images.clone()
    corner[:, :, :2, :2] = 1
    for shortcut in (False, True):
        model = toys.Templates(shortcut)
        assert torch.equal(model(data.images).argmax(1), data.labels)
        assert bool((model(corner).argmax(1) == toys.SHORTCUT).all()) == shortcut


def test_models_and_samples_are_the_same_each_time_and_draw_from_no_global_generator():
    state = torch.get_rng_state()
    for make in (toys.conv_model, toys.linear_model):
        first, second = make().state_dict(), make().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(toys.random_images().images, toys.random_images().images)
    assert torch.equal(toys.batches()[0][0], toys.batches()[0][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_every_class_of_the_templates_has_an_inversion():
    assert [found.target for found in toys.template_inversions()] == list(range(10))
