"""Pipeline: one defence after the other, on the same clean samples."""

import pytest
import torch
from torch import nn

from d3fast import D3Config
from d3fast.defenses import D3, FineTuning, Pipeline


def _loader():
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(8, 1, 2, 2, generator=draw), torch.arange(8) % 3)]


def _model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def test_it_equals_its_stages_run_by_hand():
    first, second = D3(D3Config(epochs=2)), FineTuning(epochs=3)
    model, loader = _model(), _loader()
    result = Pipeline(first, second)(model, loader, loader, progress=False)
    half = first(model, loader, loader, progress=False)
    whole = second(half.model, loader, loader, progress=False)
    assert torch.equal(result.model[1].weight, whole.model[1].weight)
    assert [e.loss for e in result.history] == [e.loss for e in half.history + whole.history]
    assert [e.epoch for e in result.history] == [1, 2, 3, 4, 5]


def test_the_suspect_is_not_changed():
    model = _model()
    before = model[1].weight.detach().clone()
    Pipeline(FineTuning(epochs=1))(model, _loader(), None, progress=False)
    assert torch.equal(model[1].weight, before)


def test_seconds_add_up():
    def stage(model, clean_train, clean_val, *, device=None, progress=True):
        result = FineTuning(epochs=1)(model, clean_train, clean_val, progress=False)
        return type(result)(result.model, result.history, 1.5)

    assert Pipeline(stage, stage)(_model(), _loader(), None, progress=False).seconds == 3.0


def test_a_pipeline_of_nothing_is_refused():
    with pytest.raises(ValueError, match="stages must be one defence or more, got none"):
        Pipeline()


def test_it_says_what_it_is_made_of():
    assert repr(Pipeline(FineTuning(epochs=7))).startswith("Pipeline(FineTuning(epochs=7")
