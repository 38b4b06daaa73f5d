"""A calibration's file: read, matched with a model, turned into p-values."""

import json
import math

import pytest

from d3fast.audit.calibration import (
    SHIPPED,
    fitting_calibration,
    options_text,
    read_calibration,
    shipped_calibrations,
)
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS, WEIGHT_DETECTORS
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.inversion import InversionOptions
from d3fast.io.files import sha256
from d3fast.models import make_model
from d3fast.training.metrics import Metrics
from tests.audit.calibrations import CLASSES, NAMES, OPTIONS, linear, write_calibration

SAME = options_text(OPTIONS.inversion, OPTIONS.classes)


def results(**values):
    return [DetectorResult(name, values.get(name, 2.0), 5.9, 1, name) for name in NAMES]


@pytest.fixture
def calibration(tmp_path):
    return read_calibration(write_calibration(tmp_path / "linear.json"))


def test_a_file_is_read_back_with_its_digest(calibration, tmp_path):
    assert len(calibration.clean) == 39
    assert calibration.detectors == NAMES
    assert calibration.sha256 == sha256(tmp_path / "linear.json")


def test_scores_like_those_of_clean_models_flag_nothing(calibration):
    rated, found = calibration.apply(results(), 0.05, CLASSES)
    assert not any(result.flagged for result in rated)
    assert found.p_value > 0.05
    assert all(result.p_value > 0.2 for result in rated)


def test_one_outlier_flags_the_model_at_the_stated_rate(calibration):
    rated, found = calibration.apply(results(shift=40.0), 0.05, CLASSES)
    assert [result.name for result in rated if result.flagged] == ["shift"]
    assert (found.p_value, found.rate, found.models) == (1 / 40, 0.05, 39)
    shift = rated[2]
    assert (shift.p_value, shift.adjusted_p_value) == (1 / 40, 1 / 40)
    assert 3 < shift.threshold < 40


def test_a_rate_that_the_models_cannot_resolve_becomes_the_smallest_one(calibration):
    assert calibration.apply(results(), 0.001, CLASSES)[1].rate == 1 / 40


def test_infinite_scores_are_the_largest(calibration):
    rated, _ = calibration.apply(results(head=math.inf), 0.05, CLASSES)
    assert rated[1].flagged
    assert rated[1].p_value == 1 / 40


def test_the_backdoored_models_tell_the_detection_rate(calibration):
    _, found = calibration.apply(results(), 0.05, CLASSES)
    assert (found.found, found.backdoored, found.attacks) == (1, 2, ("badnets",))


def with_statistics(values, target):
    """Results of a model whose class ``target`` has the largest statistics."""
    return [
        DetectorResult(name, 2.0, 5.9, target, name, statistics=values, title=name)
        for name in NAMES
    ]


def test_a_class_is_compared_with_the_same_class_of_clean_models(tmp_path):
    names = (*CLASSES, "cow", "owl")
    path = write_calibration(tmp_path / "linear.json", classes=5, largest=1)
    calibration = read_calibration(path)
    # Class 1 has the largest statistics of every clean model.
    _, usual = calibration.apply(with_statistics((0.4, 9.5, 0.5, 0.6, 0.5), 1), 0.05, names)
    assert usual.p_value > 0.2
    rated, found = calibration.apply(with_statistics((0.4, 9.5, 8.5, 0.6, 0.5), 1), 0.05, names)
    assert found.p_value == 1 / 40
    assert {result.target for result in rated} == {2}
    assert rated[0].value > 10
    assert rated[0].meaning.startswith(
        "patch, against clean models: highest for 'dog', which is above the threshold"
    )


def test_two_classes_have_statistics_and_no_score(tmp_path):
    path = write_calibration(tmp_path / "two.json", classes=2, largest=1)
    given = [
        DetectorResult(name, None, 5.9, None, name, statistics=values, title=name)
        for name, values in zip(
            NAMES, [(0.4, 9.5), (9.5, 0.4), (0.5, 9.5), (0.6, 9.6)], strict=True
        )
    ]
    rated, found = read_calibration(path).apply(given, 0.05, CLASSES[:2])
    assert [result.name for result in rated if result.flagged] == ["head"]
    assert (rated[1].target, found.p_value) == (0, 1 / 40)


def test_without_statistics_of_every_model_the_scores_are_compared(tmp_path):
    path = write_calibration(tmp_path / "linear.json", classes=5, largest=1)
    document = json.loads(path.read_text())
    del document["rows"][1]["scores"][0]["statistics"]
    path.write_text(json.dumps(document))
    given = with_statistics((0.4, 9.5, 8.5, 0.6, 0.5), 1)
    rated, _ = read_calibration(path).apply(given, 0.05, (*CLASSES, "cow", "owl"))
    assert (rated[0].value, rated[0].target, rated[0].subject) == (2.0, 1, "patch")
    assert rated[1].target == 2


def test_statistics_of_another_number_of_classes_are_not_compared(tmp_path):
    calibration = read_calibration(write_calibration(tmp_path / "linear.json", largest=1))
    rated, _ = calibration.apply(with_statistics((0.0, 9.0, 8.0, 1.0), 1), 0.05, (*CLASSES, "cow"))
    assert {result.value for result in rated} == {2.0}


@pytest.mark.parametrize(
    ("correct", "images", "unlike"),
    [
        (900, 1000, False),
        (885, 1000, False),
        (915, 1000, False),
        (870, 1000, True),
        (930, 1000, True),
        (87, 100, False),  # the same share of a tenth of the samples is chance
        (1000, 1000, False),  # the model's own answers
    ],
)
def test_an_accuracy_further_away_than_chance_is_noted(calibration, correct, images, unlike):
    metrics = Metrics(correct, images, 0, 0, 0)
    _, found = calibration.apply(results(), 0.05, CLASSES, metrics)
    assert found.accuracies == ((correct / images, pytest.approx(0.9)) if unlike else None)
    assert calibration.apply(results(), 0.05, CLASSES)[1].accuracies is None


def test_a_detector_without_scores_flags_nothing_and_is_named(calibration):
    loud = DetectorResult("new", 99.0, 5.9, 1, "new")
    rated, found = calibration.apply([*results(), loud], 0.05, CLASSES)
    assert loud.flagged
    assert not rated[-1].flagged
    assert "no score" in rated[-1].meaning
    assert found.uncounted == ("new",)


def test_without_a_common_detector_it_says_nothing(calibration):
    given = [DetectorResult("new", 99.0, 5.9, 1, "new")]
    assert calibration.apply(given, 0.05, CLASSES) == (tuple(given), None)
    undefined = [DetectorResult("head", None, 5.9, None, "head")]
    assert calibration.apply(undefined, 0.05, CLASSES)[1] is None


def test_it_fits_its_own_architecture_images_and_options_alone(calibration):
    assert calibration.mismatch(linear(), (1, 2, 2), SAME) is None
    assert "architecture" in calibration.mismatch(linear(classes=4), (1, 2, 2), SAME)
    assert "images are 1x2x2" in calibration.mismatch(linear(), (1, 4, 1), SAME)
    longer = options_text(InversionOptions(steps=500), OPTIONS.classes)
    assert "options" in calibration.mismatch(linear(), (1, 2, 2), longer)
    assert calibration.mismatch(linear(), None, None) is None
    assert calibration.mismatch(linear(), (1, 2, 2), SAME, CLASSES) is None
    reason = calibration.mismatch(linear(), (1, 2, 2), SAME, CLASSES[::-1])
    assert reason == "its classes have other names, or another order"


def test_one_that_was_given_has_to_fit(calibration):
    assert fitting_calibration(calibration, linear(), (1, 2, 2), SAME) is calibration
    with pytest.raises(ValueError, match="does not fit: its models are of another architecture"):
        fitting_calibration(calibration, linear(classes=4), (1, 2, 2), SAME)
    assert fitting_calibration(None, linear(), (1, 2, 2), SAME) is None


@pytest.mark.parametrize("keep", [0, 1])
def test_a_file_without_clean_models_is_refused_by_name(tmp_path, keep):
    path = write_calibration(tmp_path / "few.json", models=2, backdoored=0)
    document = json.loads(path.read_text())
    document["rows"] = document["rows"][:keep]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"few\.json: a calibration must hold clean models"):
        read_calibration(path)


def test_a_hostile_score_is_refused(tmp_path):
    path = write_calibration(tmp_path / "bad.json", models=1)
    document = json.loads(path.read_text())
    document["rows"][1]["scores"][0]["value"] = "high"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"bad\.json: scored row"):
        read_calibration(path)


def test_shipped_calibrations_have_all_detectors_and_fit_the_default_options():
    assert len(shipped_calibrations()) == len(list(SHIPPED.glob("*.json")))
    options = InspectOptions()
    for found in shipped_calibrations():
        about = found.about
        assert set(found.detectors) >= {*DEFAULT_DETECTORS, *WEIGHT_DETECTORS}
        assert len(found.clean) >= 40
        assert min(model.seed for model in found.models) >= 1000
        model = make_model(about.model, about.classes, about.shape[0])
        default = options_text(options.inversion, options.classes)
        assert fitting_calibration(None, model, about.shape, default) is not None
