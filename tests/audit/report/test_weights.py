"""A look at the weights and a comparison of two models, on the terminal."""

import io

import torch
from rich.console import Console
from torch import nn

from d3fast.audit.difference import compare_weights
from d3fast.audit.report.weights import print_difference, print_scan
from d3fast.audit.weights import scan_weights


def shown(show, *arguments, **options):
    text = io.StringIO()
    show(*arguments, Console(file=text, width=120), **options)
    return text.getvalue()


def test_a_scan_shows_every_detector_and_the_verdict():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    model[1].weight.data[5] *= 9
    found = scan_weights(model, [f"c{k}\x1b" for k in range(8)])
    text = shown(print_scan, found)
    for result in found.results:
        assert result.name in text
    assert "not calibrated" in text
    assert "\x1b" not in text


def test_a_difference_shows_the_most_changed_tensors_and_what_does_not_match():
    base = {f"layer{i}.weight": torch.eye(4) for i in range(4)} | {"old\x1b": torch.zeros(1)}
    suspect = {name: (2 + i) * value for i, (name, value) in enumerate(base.items())}
    suspect = {name: value for name, value in suspect.items() if name.startswith("layer")}
    text = shown(print_difference, compare_weights(base, suspect, "layer3.weight"), most=2)
    assert "4 of 4 tensors differ" in text
    assert "layer3.weight" in text
    assert "layer0.weight" not in text
    assert "2 more" in text
    assert "Head rows changed most: class" in text
    assert "the suspect has no such tensor" in text
    assert "\x1b" not in text
