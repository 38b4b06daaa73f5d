"""A repair that restarts blocks: before the first step, reproducibly, and nothing else moves."""

import pytest
import torch

from d3fast import D3Config, detoxify
from d3fast.detox.toml_file import read_config
from d3fast.models import preact_resnet_tiny
from d3fast.optim.blocks import restart_names


@pytest.fixture
def suspect():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return preact_resnet_tiny(3, 1).eval()


@pytest.fixture
def samples():
    draw = torch.Generator().manual_seed(1)
    return [(torch.rand(8, 1, 8, 8, generator=draw), torch.arange(8) % 3)]


def repaired(model, samples, **options):
    config = D3Config(**{"epochs": 1, "lr": 1e-8, "averaging": 0.0, **options})
    return detoxify(model, samples, config, progress=False).model


def test_the_last_blocks_start_anew_at_their_old_norm(suspect, samples):
    model = repaired(suspect, samples, restart=2)
    restarted = set(restart_names(suspect, 2))
    before = dict(suspect.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.norm(), before[name].norm(), rtol=1e-4, atol=1e-4)
        moved = not torch.allclose(weight, before[name], atol=1e-4)
        assert moved == (name in restarted or name == "head.weight"), name


def test_a_restart_repeats_by_its_seed(suspect, samples):
    first = repaired(suspect, samples, restart=1, seed=4)
    again = repaired(suspect, samples, restart=1, seed=4)
    other = repaired(suspect, samples, restart=1, seed=5)
    name = "blocks.2.conv1.weight"
    weights = [model.get_parameter(name) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)


def test_the_suspect_is_not_changed(suspect, samples):
    before = {name: value.clone() for name, value in suspect.state_dict().items()}
    repaired(suspect, samples, restart=3)
    assert all(torch.equal(value, before[name]) for name, value in suspect.state_dict().items())


def test_a_regular_expression_restarts_what_it_names(suspect, samples):
    model = repaired(suspect, samples, restart=r"blocks\.0\.conv1", warm_start="near")
    name = "blocks.0.conv1.weight"
    assert not torch.allclose(model.get_parameter(name), suspect.get_parameter(name), atol=1e-3)


@pytest.mark.parametrize(("restart", "value"), [(-1, "-1"), (1.5, "1.5"), (True, "True")])
def test_a_number_of_blocks_that_cannot_be_is_refused(restart, value):
    with pytest.raises(ValueError, match=f"restart.*{value}"):
        D3Config(restart=restart)


def test_more_blocks_than_there_are_is_refused_before_the_repair(suspect, samples):
    with pytest.raises(ValueError, match=r"restart.*got 9"):
        repaired(suspect, samples, restart=9)


@pytest.mark.parametrize(("text", "restart"), [("2", 2), ('"blocks"', "blocks")])
def test_a_toml_file_sets_it(tmp_path, text, restart):
    file = tmp_path / "d3.toml"
    file.write_text(f"restart = {text}\n")
    assert read_config(file).restart == restart
