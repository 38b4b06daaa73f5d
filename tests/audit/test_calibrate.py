"""A whole calibration: jobs, rows, and a second run that continues the first."""

from dataclasses import replace

import pytest
import torch

from d3fast.attacks import TrainConfig
from d3fast.audit.architecture import architecture_digest
from d3fast.audit.calibrate import (
    CalibrationOptions,
    calibration_input,
    run_calibration,
    training_jobs,
)
from d3fast.audit.calibration import parse_calibration
from d3fast.audit.calibration_jobs import CalibrationInput
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS, WEIGHT_DETECTORS
from d3fast.audit.inspect import InspectOptions, inspect_model
from d3fast.audit.inversion import InversionOptions
from d3fast.audit.resolve import open_audit
from d3fast.hub import Request, Samples
from d3fast.hub.factory import unfilled_suspect
from d3fast.models import load_weights
from d3fast.results.store import Results
from d3fast.testing.toys import template_samples as samples
from tests.audit.calibrations import linear

QUICK = CalibrationOptions(
    models=2,
    backdoored=1,
    recipes="digits",
    training=TrainConfig(epochs=1, batch_size=16),
    inspection=InspectOptions(inversion=InversionOptions(steps=2, batch_size=2)),
)


def run(folder, options=QUICK):
    given = CalibrationInput(linear((1, 8, 8), 10), samples(40), folder)
    rows = run_calibration(given, options, name="linear", data="dots", progress=False)
    return parse_calibration(Results("", {}, rows), 64 * "0")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    return folder, run(folder)


def test_every_model_has_a_score_of_every_detector(first):
    _, found = first
    assert [model.attack for model in found.models] == [None, None, "badnets"]
    assert set(found.detectors) == {*DEFAULT_DETECTORS, *WEIGHT_DETECTORS}
    about = found.about
    assert (about.train, about.inspected, about.shape, about.classes) == (30, 10, (1, 8, 8), 10)
    assert about.architecture == architecture_digest(linear((1, 8, 8), 10))


def test_scores_are_those_of_a_model_alone_where_a_calibration_fits_it(
    first, tmp_path, monkeypatch
):
    _, found = first
    for module in ("inspect", "weights"):
        monkeypatch.setattr(f"d3fast.audit.{module}.fitting_calibration", lambda *_, **__: found)
    assert run(tmp_path).models == found.models


def test_a_second_run_trains_only_what_is_missing(first, monkeypatch):
    folder, found = first
    trained = []
    original = training_jobs.__globals__["TrainJob"].run

    def counted(job, *args):
        trained.append(job.seed)
        return original(job, *args)

    monkeypatch.setattr("d3fast.audit.calibration_jobs.TrainJob.run", counted)
    again = run(folder, replace(QUICK, models=3))
    assert trained == [1002]
    assert (again.models[:2], again.models[3]) == (found.models[:2], found.models[2])


def test_seeds_are_disjoint_from_those_of_benchmarks_and_of_backdoored_models(tmp_path):
    given = CalibrationInput(linear((1, 8, 8), 10), samples(40), tmp_path)
    jobs = training_jobs(given, replace(QUICK, models=50, backdoored=5))
    seeds = [job.seed for job in jobs]
    assert min(seeds) >= 1000
    assert len(set(seeds)) == 55
    assert [job.attack for job in jobs[50:]] == ["badnets", "blended"] * 2 + ["badnets"]
    assert [job.target for job in jobs[50:]] == [0, 0, 1, 1, 2]


def test_samples_that_cannot_be_split_or_compared_are_refused(tmp_path):
    given = CalibrationInput(linear((1, 8, 8), 10), samples(40), tmp_path)
    with pytest.raises(ValueError, match="train must leave some of 40 samples"):
        run_calibration(given, replace(QUICK, train=40), name="", data="", progress=False)
    with pytest.raises(ValueError, match="detectors compare classes, the samples have 1"):
        run_calibration(replace(given, data=few(1)), QUICK, name="", data="", progress=False)


def few(classes):
    """Samples of the first classes alone."""
    data = samples(400)
    kept = data.subset((data.labels < classes).nonzero()[:, 0])
    return replace(kept, classes=data.classes[:classes])


def test_models_of_two_classes_are_compared_where_their_own_classes_are_too_few(tmp_path):
    given = CalibrationInput(linear((1, 8, 8), 2), few(2), tmp_path)
    options = replace(QUICK, models=19, backdoored=0)
    rows = run_calibration(given, options, name="linear", data="dots", progress=False)
    calibration = parse_calibration(Results("", {}, rows), 64 * "0")
    assert all(score.value is None for model in calibration.clean for score in model.scores)
    model = linear((1, 8, 8), 2)
    load_weights(model, training_jobs(given, options)[0].weights(tmp_path))
    clean = inspect_model(
        model, few(2), options=options.inspection, calibration=calibration, progress=False
    )
    assert not clean.verdict.suspicious
    with torch.no_grad():
        model[1].weight[1, 3] += 50.0  # one pixel decides for class 1
    found = inspect_model(
        model, few(2), options=options.inspection, calibration=calibration, progress=False
    )
    assert (found.verdict.suspicious, found.verdict.targets) == (True, (1,))
    assert found.calibrated.p_value == 1 / 20
    alone = inspect_model(model, few(2), options=options.inspection, progress=False)
    assert "without a calibration" in alone.verdict.text


@pytest.mark.parametrize(
    ("options", "message"),
    [({"models": 0}, "models"), ({"attacks": ("magic",)}, "attacks"), ({"train": 0}, "train")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CalibrationOptions(**options)


def test_the_architecture_of_an_audit_is_built_by_its_factory(tmp_path):
    audit = open_audit(
        Request("preact_resnet_tiny"), Samples.of(samples()), resolver=unfilled_suspect
    )
    given = calibration_input(audit, tmp_path)
    assert given.factory == "preact_resnet_tiny"
    other = replace(audit, suspect=replace(audit.suspect, spec="some/folder"))
    assert calibration_input(other, tmp_path).factory is None
    with pytest.raises(ValueError, match="labels"):
        calibration_input(replace(audit, labelled=False), tmp_path)
