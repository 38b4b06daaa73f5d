"""The models that take the tests with a known trigger."""

import pytest
import torch

from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, run_attacks
from d3fast.benchmark.repair_jobs import DefenseSpec, RepairJob
from d3fast.benchmark.subjects import load_subject, subject_name, why_missing
from d3fast.results.jobs import RunDir
from tests.benchmark.small import learned_spec

BASE = learned_spec()
PRESET = AttackPreset(BASE, (("badnets", None),))
SUSPECT = AttackJob(PRESET.spec(0, "badnets", None))
REPAIR = RepairJob(SUSPECT, "d3", DefenseSpec("d3", ({"epochs": 1},)).all_options(0), 40, 20)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("subjects"))
    run_attacks(PRESET, run_dir, seeds=[0], progress=False)
    return run_dir


@pytest.mark.parametrize(
    ("subject", "name"), [(REPAIR, "d3"), (SUSPECT, "suspect"), (SUSPECT.clean_job, "clean")]
)
def test_each_kind_of_model_has_a_name_and_is_loaded(run_dir, subject, name):
    assert subject_name(subject) == name
    cpu = torch.device("cpu")
    model, attack = load_subject(subject, SUSPECT, BASE.splits(), run_dir, cpu, False)
    assert attack.target == 0
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_the_three_models_differ(run_dir):
    cpu = torch.device("cpu")
    subjects = (REPAIR, SUSPECT, SUSPECT.clean_job)
    models = [load_subject(s, SUSPECT, BASE.splits(), run_dir, cpu, False)[0] for s in subjects]
    sums = {float(model.head.weight.detach().sum()) for model in models}
    assert len(sums) == 3


def test_a_subject_without_a_row_is_an_error(run_dir):
    assert why_missing(SUSPECT, SUSPECT, "the test", run_dir.folder) is None
    with pytest.raises(ValueError, match="has to be run before the test"):
        why_missing(REPAIR, SUSPECT, "the test", run_dir.folder)
