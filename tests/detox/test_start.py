"""Where a repair begins: random weights, or those of the base model."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from d3fast import D3Config, detoxify
from d3fast.detox.start import base_names
from d3fast.models import preact_resnet_tiny


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = preact_resnet_tiny(3, 1).eval()
        model.norm.running_mean.normal_()
        model.blocks[2].norm1.running_mean.normal_()
        return model


@pytest.fixture
def suspect():
    return network(0)


@pytest.fixture
def base(tmp_path):
    """A public model of the same body with another head."""
    state = network(1).state_dict()
    state["head.weight"], state["head.bias"] = torch.zeros(99, 64), torch.zeros(99)
    save_file(state, tmp_path / "base.safetensors")
    return str(tmp_path / "base.safetensors")


def repaired(model, **options):
    draw = torch.Generator().manual_seed(1)
    samples = [(torch.rand(8, 1, 8, 8, generator=draw), torch.arange(8) % 3)]
    frozen = {"epochs": 1, "lr": 1e-8, "averaging": 0.0, "batch_norm": "frozen"}
    return detoxify(model, samples, D3Config(**{**frozen, **options}), progress=False)


def test_restarted_blocks_begin_as_in_the_base_with_their_statistics(suspect, base):
    model = repaired(suspect, restart=2, base=base).model
    names = set(base_names(suspect, 2))
    assert {"blocks.1.conv1.weight", "blocks.2.norm1.running_mean"} <= names
    theirs, before = network(1).state_dict(), suspect.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not name.startswith("head"):
            expected = theirs[name] if name in names else before[name]
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_the_distance_is_still_that_from_the_suspect(suspect, base):
    options = {"base": base, "warm_start": "base", "track": "blocks.2.conv", "constraint": None}
    found = repaired(suspect, **options).history[-1].distance
    theirs, before = dict(network(1).named_parameters()), dict(suspect.named_parameters())
    names = [f"blocks.2.conv{number}.weight" for number in (1, 2)]
    expected = sum(float((theirs[name] - before[name]).detach().norm()) for name in names)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_regular_expression_names_what_comes_from_the_base(suspect, base):
    model = repaired(suspect, restart=r"^norm\.|blocks\.0\.conv1", base=base).model
    theirs = network(1)
    torch.testing.assert_close(model.norm.running_mean, theirs.norm.running_mean)
    torch.testing.assert_close(model.blocks[0].conv1.weight, theirs.blocks[0].conv1.weight)
    torch.testing.assert_close(model.blocks[1].conv1.weight, suspect.blocks[1].conv1.weight)


def test_a_base_without_the_tracked_weights_is_refused(suspect, base):
    with pytest.raises(ValueError, match=r"'head\.weight' has shape \(99, 64\), the model's \(3"):
        repaired(suspect, base=base, warm_start="base")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"warm_start": "base"}, "warm_start='base' needs base, a weight file, got None"),
        ({"base": 3, "restart": 1}, "base must be the path of a weight file, got 3"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        D3Config(**options)


def test_a_base_that_nothing_begins_at_is_refused(suspect, base):
    with pytest.raises(ValueError, match="is used by restart and by warm_start='base'"):
        repaired(suspect, base=base)


def test_result_files_hold_the_name_of_the_base_without_its_folder(suspect, base, tmp_path):
    repaired(suspect, restart=1, base=base).save(tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        config = json.loads(file.metadata()["d3fast.config"])
    assert config["base"] == "base.safetensors"
