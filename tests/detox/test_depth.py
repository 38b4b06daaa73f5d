# SPDX-License-Identifier: Apache-2.0
"""An automatic restart takes the deepest repair within the limit, also when it is resumed."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.data import ImageData
from d3fast.detox import Checkpointing
from d3fast.detox.depth import deepest_within
from d3fast.models import preact_resnet_tiny
from d3fast.optim.blocks import restart_depths
from d3fast.training.loop import fit

AUTO = D3Config(restart="auto", max_acc_drop=1.0)


@dataclass(frozen=True)
class Result:
    acc_drop: float
    restart: int


@dataclass(frozen=True)
class Shared(Result):
    distillation: float


@pytest.fixture
def suspect():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return preact_resnet_tiny(3, 1).eval()


def chosen(suspect, drops):
    """Return the restart chosen where a restart of d blocks costs ``drops[d]`` points."""
    tried = []

    def attempt(config, saved):
        tried.append(config.restart)
        return Result(drops[config.restart], config.restart)

    return deepest_within(suspect, AUTO, attempt, None).restart, tried


@pytest.mark.parametrize(
    ("drops", "restart", "tried"),
    [
        ({0: 0.0, 2: 1.0}, 2, [0, 2]),
        ({0: 5.0, 2: 6.0}, 2, [0, 2]),
        ({0: -1.0, 2: 0.5, 1: -0.5}, 1, [0, 2, 1]),
        ({0: 0.0, 2: 9.0, 1: 1.5}, 0, [0, 2, 1]),
    ],
)
def test_the_limit_counts_from_the_repair_without_a_restart(suspect, drops, restart, tried):
    assert chosen(suspect, drops) == (restart, tried)


@pytest.mark.parametrize(("depth", "share"), [(2, 0.6), (1, 0.2), (0, 0.2)])
def test_only_the_deepest_restart_learns_much_from_the_suspect(suspect, depth, share):
    drops = {2: 5.0, 1: 5.0, 0: 0.0, depth: 0.0}

    def attempt(config, saved):
        return Shared(drops[config.restart], config.restart, config.distillation)

    found = deepest_within(suspect, replace(AUTO, distillation=0.6), attempt, None)
    assert (found.restart, found.distillation) == (depth, share)


def test_a_network_of_few_layers_restarts_none():
    assert restart_depths(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == (0,)


def test_it_needs_a_limit():
    with pytest.raises(ValueError, match="restart='auto' decides by max_acc_drop, got None"):
        D3Config(restart="auto")


@pytest.fixture
def samples():
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(48, 1, 8, 8, generator=draws)
    labels = (3 * images.mean(dim=(1, 2, 3)) * 1.9).long().clamp(0, 2)
    return ImageData(images, labels, ("a", "b", "c"))


@pytest.fixture
def trained(suspect, samples):
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(suspect.parameters(), 0.01)
    loader, cpu = samples.batches(16), torch.device("cpu")
    fit(suspect, loader, loss, optimizer, epochs=15, device=cpu, progress=False)
    return suspect


class Cut(Exception):
    """Ends a repair in the middle."""


def repair(model, samples, config, *, path=None, resume=False, cut_after=None):
    epochs = 0

    def count(epoch, model):
        nonlocal epochs
        epochs += 1
        if epochs == cut_after:
            raise Cut

    draws = torch.Generator().manual_seed(0)
    saved = None if path is None else Checkpointing(path, resume, (draws,))
    return detoxify(
        copy.deepcopy(model),
        samples.batches(16, draws),
        config,
        samples.batches(16),
        progress=False,
        on_epoch=None if cut_after is None else count,
        checkpointing=saved,
    )


SHORT = D3Config(restart="auto", max_acc_drop=0.0, epochs=2, lr=1e-4, warm_start="near")


def test_the_result_says_which_restart_was_chosen(trained, samples):
    for limit, restart in ((100.0, 2), (0.0, 0)):
        config = D3Config(restart="auto", max_acc_drop=limit, epochs=1, lr=1e-8, averaging=0.0)
        assert repair(trained, samples, config).config.restart == restart


@pytest.mark.parametrize("cut_after", [2, 3, 4])
def test_an_interrupted_search_resumes_to_the_same_bits(trained, samples, tmp_path, cut_after):
    whole = repair(trained, samples, SHORT, path=tmp_path / "whole.pt")
    path = tmp_path / "state.pt"
    with pytest.raises(Cut):
        repair(trained, samples, SHORT, path=path, cut_after=cut_after)
    resumed = repair(trained, samples, SHORT, path=path, resume=True)
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_state_of_another_repair_is_refused(trained, samples, tmp_path):
    path = tmp_path / "state.pt"
    with pytest.raises(Cut):
        repair(trained, samples, SHORT, path=path, cut_after=2)
    other = D3Config(restart="auto", max_acc_drop=0.0, epochs=3)
    with pytest.raises(ValueError, match="another repair"):
        repair(trained, samples, other, path=path, resume=True)
