# SPDX-License-Identifier: Apache-2.0
"""The tutorial shows what its committed documents say."""

import pytest

from d3fast.audit.report.card import card_lines
from d3fast.results.store import read_results
from docs.check.pages import RESULTS, page

PAGE = " ".join(page("own-model").split())


def rows(name):
    return read_results(RESULTS / f"own-model-{name}.json").rows


def only(found, **columns):
    (row,) = (row for row in found if columns.items() <= row.items())
    return row


def test_every_sentence_of_the_card_is_on_the_page():
    for line in card_lines(rows("card")):
        assert " ".join(line.split()) in PAGE


def test_the_repair_with_a_known_trigger_is_on_the_page():
    card, checked = rows("card"), rows("card-with-trigger")
    assert card_lines(checked)[1] in PAGE
    hashes = [only(found, kind="repair")["output_sha256"] for found in (card, checked)]
    assert hashes[0] == hashes[1]


def test_the_verdict_of_the_audit_and_the_advice_of_the_pilot_are_on_the_page():
    assert only(rows("inspect"), kind="verdict")["text"] in PAGE
    advice = only(rows("pilot"), kind="recommendation")
    assert f"Recommended: setting {advice['trial']}." in PAGE


@pytest.mark.parametrize("name", ["pilot", "card", "spectrum"])
def test_the_documents_are_of_one_checkpoint(name):
    settings = read_results(RESULTS / f"own-model-{name}.json").settings
    suspect = only(rows("inspect"), kind="model")["sha256"]
    assert suspect in str(settings)
