"""Modes and flags come back, after an error too."""

import pytest
from torch import nn

from d3fast.training.modes import eval_mode, frozen


@pytest.fixture
def model():
    """In train mode, but for its batch norm; one bias needs no gradient."""
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    made[1].eval()
    made[0].bias.requires_grad_(False)
    return made


def state(model):
    modes = [module.training for module in model.modules()]
    return modes, [param.requires_grad for param in model.parameters()]


@pytest.mark.parametrize("block", [eval_mode, frozen])
def test_everything_is_restored(model, block):
    before = state(model)
    with block(model):
        assert not any(state(model)[0])
    assert state(model) == before


@pytest.mark.parametrize("block", [eval_mode, frozen])
def test_everything_is_restored_after_an_error(model, block):
    before = state(model)
    with pytest.raises(KeyError), block(model):
        raise KeyError
    assert state(model) == before


def test_only_frozen_changes_the_flags(model):
    with eval_mode(model):
        assert any(state(model)[1])
    with frozen(model):
        assert not any(state(model)[1])
