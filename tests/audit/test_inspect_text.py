"""The whole inspection of a text classifier, with a planted word and without."""

import pytest

from d3fast.audit import inspect_model
from d3fast.audit.inspect_text import TextInspectOptions, inspect_text
from d3fast.audit.model_report import parse_model_report
from d3fast.results.store import Results, read_results
from d3fast.training.metrics import Metrics
from tests.text.tiny import CLASSES, TARGET, TRIGGER, text_data, trained

SHA = 64 * "0"


class Words:
    """As much of a tokenizer as an inspection uses."""

    all_special_ids = (0, 1, 2, 3, 4)

    def __len__(self):
        from tests.text.tiny import WORDS

        return len(WORDS)

    def convert_ids_to_tokens(self, ids):
        from tests.text.tiny import WORDS

        return [WORDS[i] for i in ids]

    def decode(self, ids):
        return " ".join(self.convert_ids_to_tokens(ids))


@pytest.fixture(scope="module")
def planted():
    return inspect_text(trained(backdoor=True), text_data(), tokenizer=Words(), progress=False)


@pytest.fixture(scope="module")
def clean():
    return inspect_text(trained(backdoor=False), text_data(), tokenizer=Words(), progress=False)


def test_the_planted_word_is_found_and_its_class_named(planted):
    assert planted.verdict.suspicious
    assert planted.verdict.targets == (TARGET,)
    assert "'food'" in planted.verdict.text
    assert set(planted.texts[TARGET].split()) == {TRIGGER}


def test_without_it_nothing_is_found(clean):
    assert not clean.verdict.suspicious
    assert clean.verdict.targets == ()


def test_the_verdict_says_in_its_first_lines_that_it_is_not_calibrated(planted, clean):
    for found in (planted, clean):
        assert "not calibrated for this kind of model" in found.verdict.text


def test_seconds_and_accuracy_are_measured(clean):
    assert len(clean.seconds) == len(clean.results) == 2
    assert all(seconds > 0 for seconds in clean.seconds)
    assert clean.metrics.images == 96
    assert clean.metrics.acc > 0.9
    assert clean.head == "model.classifier"


def test_the_rows_are_what_report_and_monitor_read(planted, tmp_path):
    Results("d3fast inspect", {}, planted.rows(sha256=SHA)).write(tmp_path / "inspect.json")
    found = parse_model_report(read_results(tmp_path / "inspect.json").rows, "suspect")
    assert found.suspicious
    assert found.targets == (TARGET,)
    assert [row.name for row in found.inversions] == list(CLASSES)
    assert set(found.inversions[TARGET].tokens.split()) == {TRIGGER}
    assert [row.outlier for row in found.inversions] == [False, False, True, False]
    assert all(result.seconds > 0 for result in found.detectors)


def test_rows_may_be_of_a_repaired_model_with_other_counts(clean):
    rows = clean.rows("repaired", sha256=SHA, metrics=Metrics(correct=3, images=4))
    assert {row["role"] for row in rows} == {"repaired"}
    assert rows[0]["acc"] == 0.75


def test_fewer_texts_and_detectors_may_be_used(planted):
    few = TextInspectOptions(detectors=("token",), samples=24)
    found = inspect_text(trained(backdoor=True), text_data(), options=few, progress=False)
    assert [result.name for result in found.results] == ["token"]
    assert found.metrics.images == 96
    assert found.texts[TARGET].startswith("token ")


def test_inspect_model_takes_texts_too(planted):
    found = inspect_model(trained(backdoor=True), text_data(), tokenizer=Words(), progress=False)
    assert found.results == planted.results


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"samples": 0}, "samples must be an integer >= 1"),
        ({"detectors": ()}, "detectors must be one or more"),
        ({"detectors": ("token", "token")}, "detectors must be one or more, each once"),
        ({"detectors": ("patch",)}, "detectors must be one of 'token', 'phrase', got 'patch'"),
    ],
)
def test_options_out_of_range_are_refused(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        TextInspectOptions(**options)
