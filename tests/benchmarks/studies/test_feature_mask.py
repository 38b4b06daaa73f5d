"""Study of the feature mask: development models alone, what a job measures, areas, the table."""

import pytest
import torch
from torch import nn

from benchmarks.studies import feature_mask as study
from benchmarks.studies.inspection_cost import Shape
from benchmarks.studies.inspection_plans import DEVELOPMENT, PLANS
from benchmarks.studies.inspection_rates import CLEAN, EVERY
from d3fast.audit.detectors.context import InspectionContext
from d3fast.defenses.bti_dbf import InversionByFeatures
from d3fast.detox import save_weights
from d3fast.io.files import make_folder
from d3fast.results.jobs import RunDir
from d3fast.results.store import Results
from d3fast.testing.toys import Templates, template_samples

SHORT = InversionByFeatures(mask_steps=1, steps=1)
OBJECTIVES = sorted({variant.objective for variant in study.VARIANTS.values()})


def test_no_model_that_a_table_of_rates_counts_takes_part():
    seeds = {*study.SEEDS, *study.CLEAN_SEEDS}
    assert min(seeds) >= min(DEVELOPMENT)
    counted = [plan for name, plan in PLANS.items() if name != "development"]
    assert not any(seeds & {*plan.backdoored, *plan.clean, *plan.sparse} for plan in counted)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_scan_has_a_number_and_a_share_per_class_and_repeats(objective):
    data = template_samples()
    context = InspectionContext(Leaning(0.5).eval(), data.images, data.labels, 10)
    scan = study.FeatureScan(objective, SHORT)
    statistics, shares = scan(context)
    assert (len(statistics), len(shares)) == (10, 10)
    assert all(0 <= share <= 1 for share in shares)
    assert scan(context) == (statistics, shares)


class Leaning(nn.Module):
    """Templates, but brighter images are of class 6."""

    def __init__(self, usual):
        super().__init__()
        self.body, self.usual = Templates(False), usual

    def forward(self, images):
        brighter = images.flatten(1).mean(dim=1) - self.usual
        return self.body(images) + 150 * brighter[:, None] * torch.eye(10)[6]


def test_without_a_mask_the_generator_finds_a_steep_direction():
    data = template_samples()
    model = Leaning(data.images.mean()).eval()
    context = InspectionContext(model, data.images, data.labels, 10)
    options = InversionByFeatures(steps=200, lr=1e-2, bound=0.1)
    statistics, _ = study.FeatureScan("margin", options)(context)
    assert max(range(10), key=statistics.__getitem__) == 6


def test_a_scan_leaves_the_model_alone():
    data, model = template_samples(), Templates(True).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    context = InspectionContext(model.requires_grad_(False), data.images, data.labels, 10)
    study.FeatureScan("published", SHORT)(context)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("detector", [study.FeatureScan("margin", SHORT), "head"])
def test_a_job_has_one_statistic_per_class(tmp_path, detector):
    source = next(job for attack, job in study.sources() if attack == CLEAN)
    make_folder(tmp_path / "models")
    save_weights(source.spec.initial_model(source.spec.splits()), source.weights(tmp_path))
    row = study.TryJob(source, detector).run(RunDir(tmp_path), progress=False)
    assert len(row["statistics"]) == 10
    assert row["cpu_seconds"] > 0


def test_a_cost_is_measured_on_random_weights(tmp_path):
    shape = Shape("preact_resnet_narrow", 12, (1, 8, 8))
    row = study.ScanCostJob(shape, study.FeatureScan("margin", SHORT)).run(RunDir(tmp_path), False)
    assert row["cpu_seconds"] > 0


def test_a_clean_model_is_not_compared_with_itself():
    clean = [[0.0, float(at), 0.5, 1.0] for at in range(6)]
    high, usual = [0.0, 2.0, 0.5, 50.0], [0.0, 2.5, 0.5, 1.0]
    area, named = study.area_by_class([high, usual], clean)
    assert named[0] == 3
    assert 0.5 < area < 1


def _rows():
    rows = []
    for attack, target, high in ((CLEAN, None, 0.0), ("sig", 1, 9.0), ("badnets", 2, 9.0)):
        for seed in range(3):
            numbers = [0.1 * seed, 0.2, 0.3, 0.25 * seed]
            if target is not None:
                numbers[target] += high
            told = {"variant": "a", "attack": attack, "target": target, "statistics": numbers}
            value = {"value": high + seed, "named": target, "cpu_seconds": 2.0}
            rows.append({"kind": "try", **told, **value})
    return rows


def test_areas_are_of_every_attack_and_of_all():
    found = {row["attack"]: row for row in study.areas(_rows())}
    assert list(found) == [EVERY, "sig", "badnets"]
    assert found[EVERY]["by_class"] == found[EVERY]["by_score"] == 1.0
    assert (found["sig"]["named_by_class"], found["sig"]["models"]) == (3, 3)


def test_the_table_has_a_line_per_variant_with_its_cost():
    rows = [*study.areas(_rows()), {"kind": "cost", "variant": "a", "cpu_seconds": 77.4}]
    line = study.feature_mask_table(Results("", {}, rows)).splitlines()[-1]
    assert line == "| a | 1.00 | 1.00 | 1.00 | 1.00 | 6 of 6 | 2.0 | 77 |"
