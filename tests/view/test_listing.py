"""The list: filter, order, pages; documents are read once, and only those that are shown."""

import os

import pytest

from d3fast.view import listing
from d3fast.view.listing import Library
from d3fast.view.query import Query
from tests.view.runs import audit, everything


@pytest.fixture
def library(tmp_path):
    everything(tmp_path)
    return Library(tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """Counts the documents that are read."""
    names = []
    read = listing.read_entry
    monkeypatch.setattr(listing, "read_entry", lambda run: names.append(run.name) or read(run))
    return names


def names(found):
    return [entry.run.name for entry in found.entries]


def test_words_must_all_stand_in_the_line(library):
    assert names(library.listing(Query(text="NET possible", sort="name"))) == ["net-one", "net-two"]
    assert library.listing(Query(text="net nowhere")).total == 0


def test_a_kind_is_shown_alone(library):
    found = library.listing(Query(kind="attacks", sort="name"))
    assert names(found) == ["attacks", "one-attack"]


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "attacks"), ("-name", "one-attack"), ("asr", "demo")]
)
def test_the_order_is_that_of_a_column(library, sort, first):
    assert names(library.listing(Query(sort=sort)))[0] == first


def test_the_newest_run_stands_first_and_only_one_page_is_read(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(listing, "PER_PAGE", 2)
    for number in range(5):
        folder = audit(tmp_path, f"net-{number}", "inspect")
        os.utime(folder / "inspect.json", (number, number))
    library = Library(tmp_path)
    found = library.listing(Query())
    assert names(found) == ["net-4", "net-3"]
    assert reads == ["net-4", "net-3"]
    assert (found.total, found.pages) == (5, 3)
    assert names(library.listing(Query(page=99))) == ["net-0"]


def test_a_document_is_read_again_when_it_has_changed(library, reads):
    library.listing(Query())
    library.listing(Query(text="net"))
    assert len(reads) == 6
    audit(library.root, "net-one", "inspect", seed=7)
    library.listing(Query())
    assert reads[6:] == ["net-one"]


def test_what_cannot_be_read_is_named_beside_the_rest(library):
    (library.root / "net-two" / "card.json").write_text("{")
    found = library.listing(Query())
    assert len(found.entries) == 5
    assert len(found.problems) == 1
    assert found.problems[0].startswith("net-two: card.json is no JSON")
