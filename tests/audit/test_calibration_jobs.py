"""Jobs of a calibration: a model is trained on one part and scored on the other."""

import pytest
import torch

from d3fast.attacks import TrainConfig
from d3fast.audit import inspect_model
from d3fast.audit.calibration_jobs import CalibrationInput, ScoreJob, TrainJob
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.inversion import InversionOptions
from d3fast.audit.weights import scan_weights
from d3fast.models import load_weights
from d3fast.models.preact_resnet import PreActResNet
from d3fast.testing.toys import template_samples as samples
from tests.audit.calibrations import linear

SHAPE = (1, 8, 8)
QUICK = InversionOptions(steps=3, batch_size=4)


@pytest.fixture
def given(tmp_path):
    return CalibrationInput(linear(SHAPE, 10), samples(60), tmp_path)


def train_job(seed=1000, **changes):
    training = TrainConfig(epochs=2, batch_size=8)
    return TrainJob(seed, 64 * "a", 64 * "b", 40, training, **changes)


def score_job(model, detector):
    return ScoreJob(model, detector, QUICK, 20, 100)


def test_each_seed_has_its_own_weights_and_its_own_samples(given):
    assert not torch.equal(given.initial_model(0)[1].weight, given.initial_model(1)[1].weight)
    (train, left), (others, _) = given.parts(40, 0), given.parts(40, 1)
    assert (len(train), len(left)) == (40, 20)
    assert train.labels.bincount().tolist() == [4] * 10
    assert not torch.equal(train.images, others.images)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in left.images)


def test_a_factory_builds_the_initial_weights_that_it_would(tmp_path):
    given = CalibrationInput(linear(), samples(), tmp_path, "preact_resnet_tiny", (0.5,), (0.2,))
    model = given.initial_model(0)
    assert isinstance(model.inner, PreActResNet)
    assert (model.mean, model.std) == ((0.5,), (0.2,))


def test_a_model_is_trained_measured_and_saved(given):
    job = train_job()
    row = job.run(given, False)
    assert row["seed"] == 1000
    assert row["acc"] > 0.3  # a guess: 0.1
    assert row["asr"] is None
    load_weights(given.initial_model(0), job.weights(given.folder))


def test_a_backdoored_one_has_its_success_rate_too(given):
    job = train_job(attack="badnets", recipes="digits", target=3, ratio=0.5)
    assert job.run(given, False)["asr"] > 0.5
    assert "badnets" in job.name


@pytest.mark.parametrize("detector", ["head", "margin", "head-norm"])
def test_a_score_is_that_of_an_inspection_with_samples_that_were_not_trained_on(given, detector):
    job = train_job()
    job.run(given, False)
    row = score_job(job, detector).run(given, False)
    model = given.initial_model(0)
    load_weights(model, job.weights(given.folder))
    if detector == "head-norm":
        expected = scan_weights(model).results[1]
    else:
        options = InspectOptions(inversion=QUICK, detectors=(detector,))
        left = given.parts(40, 1000)[1]
        expected = inspect_model(model, left, options=options, seed=1000, progress=False).results[0]
    assert row["value"] == pytest.approx(expected.value, rel=1e-3)
    assert row["target"] == expected.target
