"""A look at the weights alone: what is flagged, and what the verdict says of its limits."""

import pytest
import torch
from torch import nn

from d3fast.audit.report.documents import parse_scan
from d3fast.audit.weights import BACKDOORED, CLEAN, scan_weights

SHA = 64 * "a"


def net(planted=None, classes=10):
    """A classifier; a planted class has a head row five times as long as the others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, classes))
    if planted is not None:
        model[3].weight.data[planted] *= 5
    return model


def test_a_planted_class_is_flagged_and_named():
    found = scan_weights(net(planted=3), [f"class {k}" for k in range(10)])
    assert found.verdict.suspicious
    assert found.verdict.targets[0] == 3
    assert found.verdict.text.startswith("Possible backdoor with target class 'class 3'")
    assert {result.name for result in found.results if result.flagged} >= {"head", "head-norm"}


def test_a_model_with_like_rows_is_not():
    found = scan_weights(net())
    assert not found.verdict.suspicious
    assert found.verdict.targets == ()
    assert found.classes == tuple("0123456789")
    assert (found.head, found.parameters) == ("3", 16 * 24 + 24 + 24 * 10 + 10)


@pytest.mark.parametrize("planted", [None, 3])
def test_the_verdict_says_that_its_thresholds_are_not_calibrated(planted):
    text = scan_weights(net(planted)).verdict.text
    assert "not calibrated for this kind of model" in text
    assert f"{BACKDOORED[0]} of {BACKDOORED[1]} backdoored" in text
    assert f"{CLEAN[0]} of {CLEAN[1]} clean" in text


def test_two_classes_cannot_be_compared():
    found = scan_weights(net(classes=2))
    assert not found.verdict.suspicious
    assert "2 are too few" in found.verdict.text


def test_a_model_whose_head_has_no_row_per_name_is_refused():
    with pytest.raises(ValueError, match="a row of weights for each of the 3 classes"):
        scan_weights(net(), ["a", "b", "c"])


def test_no_forward_pass_is_run_and_nothing_changes():
    model = net()
    model.register_forward_hook(lambda *_: pytest.fail("a forward pass"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scan_weights(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_its_rows_are_those_of_weights_json():
    found = scan_weights(net(planted=3))
    report = parse_scan(found.rows(sha256=SHA))
    assert (report.model.sha256, report.model.classes, report.model.head) == (SHA, 10, "3")
    assert [row.name for row in report.detectors] == ["head", "head-norm", "head-angle"]
    assert [row.name for row in report.layers] == ["1.weight", "3.weight"]
    assert report.verdict.targets == found.verdict.targets
