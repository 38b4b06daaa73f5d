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
from d3fast.detox.depth import deepest_within, freed
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


@dataclass(frozen=True)
class Tracked(Result):
    track: str


@pytest.fixture
def suspect():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return preact_resnet_tiny(3, 1).eval()


def chosen(suspect, drops, finest=0.0):
    """Return the restart chosen where a restart of d blocks costs ``drops[d]`` points."""
    tried = []

    def attempt(config, saved):
        tried.append(config.restart)
        return Result(drops[config.restart], config.restart)

    return deepest_within(suspect, AUTO, attempt, None, finest).restart, tried


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


def test_a_loss_that_the_samples_do_not_resolve_does_not_count(suspect):
    drops = {0: 0.0, 2: 2.5, 1: 0.0}
    assert chosen(suspect, drops, finest=2.4) == (1, [0, 2, 1])
    assert chosen(suspect, drops, finest=2.5) == (2, [0, 2])


def test_texts_are_not_given_more_than_one_point():
    drops = {0: 0.0, 6: 1.5, 3: 0.0}
    assert searched(6, LAST_TWO, drops, finest=5.0)[0].restart == 3


@pytest.mark.parametrize(("depth", "share"), [(2, 0.6), (1, 0.2), (0, 0.2)])
def test_only_the_deepest_restart_learns_much_from_the_suspect(suspect, depth, share):
    drops = {2: 5.0, 1: 5.0, 0: 0.0, depth: 0.0}

    def attempt(config, saved):
        return Shared(drops[config.restart], config.restart, config.distillation)

    found = deepest_within(suspect, replace(AUTO, distillation=0.6), attempt, None)
    assert (found.restart, found.distillation) == (depth, share)


def test_a_network_of_few_layers_restarts_none():
    assert restart_depths(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == (0,)


@pytest.mark.parametrize("search", ["auto", "auto-all"])
def test_it_needs_a_limit(search):
    with pytest.raises(ValueError, match=f"restart='{search}' decides by max_acc_drop, got None"):
        D3Config(restart=search)


def blocks(count):
    """A network of so many blocks behind an embedding."""
    layers = [nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(count)]
    return nn.Sequential(nn.Embedding(9, 4), *layers, nn.Linear(4, 2))


def searched(count, track, drops, limit=5.0, finest=0.0):
    """Return the options chosen by "auto-all", and the numbers of blocks that were tried."""
    tried = []

    def attempt(config, saved):
        tried.append(config.restart)
        return Tracked(drops[config.restart], config.restart, config.track)

    config = D3Config(restart="auto-all", max_acc_drop=limit, track=track)
    return deepest_within(blocks(count), config, attempt, None, finest), tried


LAST_TWO = r"^([56]\.0|7)\.weight$"


@pytest.mark.parametrize(
    ("drops", "restart", "tried"),
    [
        ({0: 2.0, 6: 3.0}, 6, [0, 6]),
        ({0: 2.0, 6: 3.1, 3: 2.0}, 3, [0, 6, 3]),
        ({0: 2.0, 6: 30.0, 3: 4.0}, 0, [0, 6, 3]),
    ],
)
def test_all_blocks_come_first_and_may_cost_one_point_more_than_the_tracked(drops, restart, tried):
    found, order = searched(6, LAST_TWO, drops)
    assert (found.restart, order) == (restart, tried)


def test_a_limit_below_one_point_holds_for_all_blocks_too():
    assert searched(6, LAST_TWO, {0: 0.0, 6: 0.6, 3: 0.4}, limit=0.5)[0].restart == 3


def test_blocks_that_restart_are_not_tracked():
    deep, shallow = {0: 0.0, 6: 0.0, 3: 0.0}, {0: 0.0, 6: 9.0, 3: 9.0}
    assert searched(6, LAST_TWO, deep)[0].track == r"^(7\.weight)$"
    assert searched(6, LAST_TWO, shallow)[0].track == LAST_TWO


def test_a_restart_of_nothing_but_tracked_weights_is_not_tried():
    found, tried = searched(2, "linear", {0: 0.0})
    assert (found.restart, tried) == (0, [0])


@pytest.mark.parametrize(
    ("track", "restart", "kept"),
    [
        ("linear", 1, r"^(1\.0\.weight|3\.weight)$"),
        ("linear", 0, "linear"),
        ("2.0.weight", "^2", "2.0.weight"),
    ],
)
def test_options_are_freed_of_what_restarts_unless_nothing_is_left(track, restart, kept):
    config = D3Config(track=track, restart=restart)
    assert freed(blocks(2), config) == replace(config, track=kept)


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
