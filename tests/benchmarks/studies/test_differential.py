"""Study of the differential detector: development models alone, and what a job measures."""

from benchmarks.studies import differential as study
from benchmarks.studies.inspection_plans import DEVELOPMENT, PLANS
from d3fast.audit.detectors.differential import DifferentialShift
from d3fast.detox import save_weights
from d3fast.io.files import make_folder
from d3fast.results.jobs import RunDir


def test_no_model_that_a_table_of_rates_counts_takes_part():
    seeds = {s for models in study.MODELS.values() for own in models.values() for s in own}
    assert min(seeds) >= min(DEVELOPMENT)
    counted = [PLANS[name] for name in study.MODELS]
    assert not any(seeds & {*plan.backdoored, *plan.clean, *plan.sparse} for plan in counted)


def test_a_job_has_one_statistic_per_class(tmp_path):
    source = study.source_of("digits", study.CLEAN, 100)
    make_folder(tmp_path / "models")
    save_weights(source.spec.initial_model(source.spec.splits()), source.weights(tmp_path))
    quick = DifferentialShift(epochs=1, steps=1)
    row = study.TryJob(source, quick, samples=40).run(RunDir(tmp_path), progress=False)
    assert len(row["statistics"]) == 10


def test_the_sparse_models_have_few_poisoned_images():
    assert study.source_of("digits", study.SPARSELY, 100).spec.ratio == study.SPARSE
    assert study.source_of("digits", "sig", 100).spec.ratio > study.SPARSE
