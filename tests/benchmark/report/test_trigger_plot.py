"""The figure of the triggers."""

import torch

from d3fast.attacks import BadNets
from d3fast.benchmark.report.trigger_plot import trigger_figure
from d3fast.data import ImageData

DATA = ImageData(torch.zeros(4, 1, 8, 8), torch.arange(4), ("a", "b", "c", "d"))


def shown(figure):
    return [axes.get_images()[0].get_array() for axes in figure.axes]


def test_a_strip_has_clean_triggered_and_difference_per_image():
    attack = BadNets(target=0, size=2, margin=0)
    figure = trigger_figure({"first": attack, "second": attack}, DATA, images=2)
    clean, triggered, difference = shown(figure)[:3]
    assert len(figure.axes) == 2 * 2 * 3
    assert clean.max() == 0.0
    assert (triggered.sum(), triggered[-2:, -2:].min()) == (4.0, 1.0)
    assert (difference[0, 0], difference[-1, -1]) == (0.5, 1.0)
    assert [figure.axes[i].get_ylabel() for i in (0, 6)] == ["first", "second"]


def test_images_of_targets_are_left_out():
    attacks = {name: BadNets(target=t, size=1, margin=0) for name, t in (("a", 0), ("b", 2))}
    assert len(trigger_figure(attacks, DATA).axes) == 2 * 2 * 3
