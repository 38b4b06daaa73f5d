"""The whole inspection, on a planted shortcut and without one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast.audit import InspectOptions, inspect_model
from d3fast.audit.inspect_text import TextInspectOptions
from d3fast.audit.inversion import InversionOptions
from d3fast.audit.model_report import parse_model_report
from d3fast.results.store import Results, read_results
from d3fast.testing.toys import CLASSES, SHORTCUT, Templates, template_samples
from d3fast.training.metrics import Metrics

QUICK = InspectOptions(inversion=InversionOptions(steps=100, batch_size=16))
SHA = 64 * "0"


@pytest.fixture(scope="module")
def shortcut():
    return inspect_model(
        Templates(shortcut=True), template_samples(), options=QUICK, progress=False
    )


@pytest.fixture(scope="module")
def plain():
    return inspect_model(
        Templates(shortcut=False), template_samples(), options=QUICK, progress=False
    )


def test_a_planted_shortcut_is_found_and_its_class_named(shortcut):
    assert shortcut.verdict.suspicious
    assert shortcut.verdict.targets == (SHORTCUT,)
    assert "'d'" in shortcut.verdict.text
    flagged = {found.name for found in shortcut.results if found.flagged}
    assert "patch" in flagged
    assert "margin" in flagged
    assert SHORTCUT in shortcut.outliers


def test_without_the_shortcut_nothing_is_found(plain):
    assert not plain.verdict.suspicious
    assert plain.verdict.targets == ()
    assert "No detector flags this model. This does not rule" in plain.verdict.text


def test_the_shortcut_is_not_in_the_head_and_the_head_does_not_see_it(shortcut, plain):
    at = [found.name for found in plain.results].index("head")
    assert shortcut.results[at].value == plain.results[at].value


def test_accuracy_is_measured_on_all_samples(plain):
    assert (plain.metrics.correct, plain.metrics.images) == (60, 60)
    assert (plain.head, plain.parameters) == ("head", 650)


def test_fewer_samples_may_be_used_than_there_are():
    few = replace(QUICK, samples=20, detectors=("head",))
    found = inspect_model(Templates(False), template_samples(), options=few, progress=False)
    assert found.metrics.images == 60
    assert [result.name for result in found.results] == ["head"]


def test_the_same_seed_gives_the_same_findings():
    quick = InspectOptions(inversion=InversionOptions(steps=10), detectors=("patch", "shift"))
    once, again = (
        inspect_model(Templates(False), template_samples(), options=quick, seed=3, progress=False)
        for _ in range(2)
    )
    assert once.results == again.results


def test_the_rows_are_what_report_and_monitor_read(shortcut, tmp_path):
    rows = shortcut.rows(sha256=SHA)
    Results("d3fast inspect", {}, rows).write(tmp_path / "inspect.json")
    found = parse_model_report(read_results(tmp_path / "inspect.json").rows, "suspect")
    assert found.suspicious
    assert found.targets == (SHORTCUT,)
    assert found.verdict.text == shortcut.verdict.text
    assert [result.name for result in found.detectors] == ["patch", "head", "shift", "margin"]
    assert [inverted.name for inverted in found.inversions] == list(CLASSES)
    assert found.class_name(SHORTCUT) == "d"


def test_only_the_four_smallest_patches_have_a_picture(shortcut):
    rows = [row for row in shortcut.rows(sha256=SHA) if row["kind"] == "inversion"]
    with_picture = {row["target"] for row in rows if row["picture"]}
    smallest = sorted(rows, key=lambda row: row["norm"])[:4]
    assert with_picture == {row["target"] for row in smallest}


def test_rows_may_be_of_a_repaired_model_with_other_counts(plain):
    rows = plain.rows("repaired", sha256=SHA, metrics=Metrics(correct=3, images=4))
    assert {row["role"] for row in rows} == {"repaired"}
    assert rows[0]["acc"] == 0.75


def test_what_is_infinite_is_null(plain):
    first = replace(plain.results[0], value=math.inf)
    endless = replace(plain, indices=(math.inf,) * 10, results=(first, *plain.results[1:]))
    rows = endless.rows(sha256=SHA)
    assert all(row["index"] is None for row in rows if row["kind"] == "inversion")
    sign = next(row for row in rows if row["kind"] == "sign")
    assert sign["value"] is None
    assert sign["raised"]


def test_with_two_classes_the_verdict_says_that_it_says_nothing():
    data = template_samples()
    two = replace(data, labels=data.labels % 2, classes=("a", "b"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    quick = InspectOptions(inversion=InversionOptions(steps=5))
    found = inspect_model(model, two, options=quick, progress=False)
    assert not found.verdict.suspicious
    assert "This says nothing about it" in found.verdict.text
    assert all(result.value is None for result in found.results)


def test_detectors_of_texts_are_refused_for_images_and_the_reverse():
    with pytest.raises(ValueError, match=r"detectors must be one of 'patch', .* got 'token'"):
        InspectOptions(detectors=("token",)).for_images()
    with pytest.raises(ValueError, match=r"detectors must be one of 'token', .* got 'head'"):
        InspectOptions(detectors=("head",)).for_texts()
    with pytest.raises(ValueError, match="options must be InspectOptions for images"):
        inspect_model(
            Templates(False), template_samples(), options=TextInspectOptions(), progress=False
        )


def test_options_for_texts_take_what_was_changed():
    assert InspectOptions().for_texts() == TextInspectOptions()
    changed = InspectOptions(inversion=InversionOptions(steps=7), samples=5, detectors=("token",))
    for_texts = changed.for_texts()
    assert (for_texts.inversion.steps, for_texts.samples) == (7, 5)
    assert for_texts.detectors == ("token",)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(ValueError, match="no linear layer"):
        inspect_model(nn.Sequential(nn.Flatten(), nn.Tanh()), one_pixel_per_class(), progress=False)


def one_pixel_per_class():
    data = template_samples()
    return replace(data, images=data.images.flatten(2)[:, :, None, 4:14].contiguous())


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"rate": 0.0}, "rate must be > 0 and < 1, got 0.0"),
        ({"rate": math.nan}, "rate must be finite"),
        ({"outlier": -1.0}, "outlier must be finite and >= 0"),
        ({"samples": 0}, "samples must be an integer >= 1"),
        ({"detectors": ()}, "detectors must be one or more"),
        ({"detectors": ("head", "head")}, "detectors must be one or more, each once"),
        ({"detectors": ("luck",)}, "detectors must be one of 'patch', 'head', 'shift', 'margin'"),
    ],
)
def test_options_out_of_range_are_refused(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        InspectOptions(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_comes_to_the_same_verdict(shortcut):
    model = Templates(shortcut=True).to("cuda")
    found = inspect_model(model, template_samples(), options=QUICK, progress=False)
    assert found.verdict.targets == shortcut.verdict.targets


def test_triggers_are_inverted_for_the_detector_that_reads_them_alone(monkeypatch):
    monkeypatch.setattr("d3fast.audit.inspect.invert_all", None)
    found = inspect_model(
        Templates(True),
        template_samples(),
        options=InspectOptions(detectors=("head",)),
        progress=False,
    )
    assert (found.inversions, found.indices, found.outliers) == ((), (), ())
    assert [row["kind"] for row in found.rows(sha256=64 * "0")] == ["model", "sign", "verdict"]


def test_of_many_classes_a_sample_is_searched_that_has_the_likeliest_by_the_head():
    model = Templates(False)
    with torch.no_grad():
        model.head.weight[7] *= 3
    options = InspectOptions(
        inversion=InversionOptions(steps=5, batch_size=4), classes=4, detectors=("patch", "margin")
    )
    found, again = (
        inspect_model(model, template_samples(), options=options, progress=False) for _ in range(2)
    )
    assert found.searched == again.searched
    assert 7 in found.searched
    assert len(found.searched) == 4
    assert [inversion.target for inversion in found.inversions] == list(found.searched)
    assert all(result.target in found.searched for result in found.results)
    assert "searched for 4 of 10 classes" in found.verdict.text
