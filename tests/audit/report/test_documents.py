"""The content of card.json, pilot.json, spectrum.json and weights.json."""

import pytest

from d3fast.audit.report.documents import (
    parse_card,
    parse_pilot,
    parse_scan,
    parse_spectrum,
    parse_suspect,
)
from tests.audit.report.documents import (
    OTHER_SHA,
    card_rows,
    pilot_rows,
    spectrum_rows,
    weights_rows,
)


def of_kinds(rows, *kinds):
    return [row for row in rows if row["kind"] in kinds]


def test_a_card_has_two_models_a_repair_its_epochs_and_distances():
    card = parse_card(card_rows())
    assert (card.suspect.suspicious, card.repaired.suspicious) == (True, False)
    assert (card.repair.epochs, len(card.epochs), len(card.distances.layers)) == (24, 24, 13)


def test_a_card_without_epochs_and_distances_is_whole():
    card = parse_card(of_kinds(card_rows(), "model", "repair"))
    assert (card.epochs, card.distances) == ((), None)


@pytest.mark.parametrize("kind", ["model", "repair"])
def test_a_card_without_models_or_repair_is_an_error(kind):
    rows = [row for row in card_rows() if row["kind"] != kind]
    with pytest.raises(ValueError, match="a suspect, a repaired model and a repair"):
        parse_card(rows)


@pytest.mark.parametrize("field", ["input_sha256", "output_sha256"])
def test_a_card_whose_hashes_do_not_match_is_an_error(field):
    with pytest.raises(ValueError, match="hashes"):
        parse_card(card_rows(**{field: OTHER_SHA}))


def test_an_inspection_has_a_suspect():
    with pytest.raises(ValueError, match="no suspect"):
        parse_suspect([])


def test_a_scan_has_a_model_and_a_verdict():
    found = parse_scan(weights_rows())
    assert (found.model.classes, len(found.detectors), len(found.layers)) == (10, 2, 1)
    for kind in ("scan", "verdict"):
        with pytest.raises(ValueError, match="a model and a verdict"):
            parse_scan([row for row in weights_rows() if row["kind"] != kind])


def test_two_results_of_one_weight_detector_are_an_error():
    rows = [{**row, "name": "head"} for row in weights_rows()]
    with pytest.raises(ValueError, match="two sign rows have the same name"):
        parse_scan(rows)


def test_a_pilot_has_trials():
    pilot = parse_pilot(pilot_rows())
    assert (len(pilot.trials), pilot.last_rung, pilot.trigger_known) == (9, 2, False)
    assert len(parse_pilot(of_kinds(pilot_rows(), "trial")).trials) == 9
    with pytest.raises(ValueError, match="no trial"):
        parse_pilot(of_kinds(pilot_rows(), "suspect"))


def test_a_spectrum_has_one_row_per_model_and_loss():
    found = parse_spectrum(spectrum_rows())
    assert (found.names, found.losses) == (["suspect", "repaired"], ["clean"])
    assert [row.model for row in found.of_loss("clean")] == found.names
    with pytest.raises(ValueError, match="one spectrum per model and loss"):
        parse_spectrum(of_kinds(spectrum_rows(), "model"))


def test_two_models_of_one_name_are_an_error():
    rows = [{**row, "model": "a"} for row in spectrum_rows()]
    with pytest.raises(ValueError, match="two model rows have the same name"):
        parse_spectrum(rows)


def test_the_number_of_models_is_limited_only_for_files():
    (row,) = of_kinds(spectrum_rows(), "model")[:1]
    (spectrum,) = of_kinds(spectrum_rows(), "spectrum")[:1]
    rows = [{**r, "model": f"m{i}"} for i in range(13) for r in (row, spectrum)]
    with pytest.raises(ValueError, match="rows of kind model must be at most 12, got 13"):
        parse_spectrum(rows)
    assert len(parse_spectrum(rows, max_models=13).models) == 13
