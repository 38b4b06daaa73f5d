"""The query of an address is checked, and keeps the rest of itself in the addresses it makes."""

import pytest

from d3fast.view.query import NEWEST, Query, ordered, parse_query


def test_an_empty_query_is_the_newest_runs_first():
    assert parse_query("") == Query(sort=NEWEST)
    assert not parse_query("").reads_all


@pytest.mark.parametrize("text", ["q=x", "kind=demo", "sort=acc", "sort=-verdict"])
def test_what_needs_every_document_says_so(text):
    assert parse_query(text).reads_all


def test_a_button_pressed_twice_turns_the_order():
    assert parse_query("sort=acc").pressed("acc") == "-acc"
    assert parse_query("sort=-acc").pressed("acc") == "acc"
    assert (Query().pressed("acc"), Query().pressed("name")) == ("-acc", "name")


def test_of_a_hidden_field_and_a_button_the_button_counts():
    assert parse_query("sort=-written&sort=acc").sort == "acc"


@pytest.mark.parametrize(
    "text",
    ["kind=x", "sort=x", "page=x", "page=-1", "page=", "page=9999999", "&".join(["a=b"] * 99)],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"must be|fields"):
        parse_query(text)


def test_an_address_leads_back_to_the_same_query():
    query = Query('a&b"', "demo", "-acc", 3, ("audit/x y", "audit/ü"))
    assert parse_query(query.address().removeprefix("/?")) == query


def test_a_chosen_run_counts_once_and_long_texts_are_cut():
    assert parse_query("run=a&run=a&run=").runs == ("a",)
    assert len(parse_query("q=" + 1000 * "x").text) == 200


def test_what_has_no_value_stands_last_in_both_orders():
    values = [2, None, 1]
    assert ordered(values, lambda v: v, descending=False) == [1, 2, None]
    assert ordered(values, lambda v: v, descending=True) == [2, 1, None]
