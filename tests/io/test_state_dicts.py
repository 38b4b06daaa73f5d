# SPDX-License-Identifier: Apache-2.0
"""Where the weights lie in a file: found where all names fit, and nowhere else."""

import time

import pytest
import torch

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.state_dicts import find_weights, shared_prefix, state_dicts


def tensors(*names):
    return {name: TensorEntry((1,), torch.float32, lambda: torch.ones(1)) for name in names}


def test_an_average_over_training_comes_first_and_the_outer_dictionary_last():
    held = {"state_dict": tensors("a"), "state_dict_ema": tensors("a"), "epoch": 1}
    assert [keys for keys, _ in state_dicts(held)] == [("state_dict_ema",), ("state_dict",), ()]


def test_a_dictionary_that_holds_itself_ends():
    held = tensors("a")
    held["model"] = held
    assert [keys for keys, _ in state_dicts(held)] == [()]


def test_numbers_and_texts_between_the_tensors_are_left_out():
    (_, found), *_ = state_dicts({**tensors("a"), "epoch": 3, 1: OtherEntry("a set")})
    assert list(found) == ["a"]


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["a.b", "a.c"], "a."),
        (["a.b.c", "a.b.d"], "a.b."),
        (["ab.c", "ad.c"], ""),
        (["a.b", "a.b.c"], "a."),
        (["a.b.c"], "a.b."),
        ([], ""),
    ],
)
def test_the_parts_that_all_names_share(names, prefix):
    assert shared_prefix(names) == prefix


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["a.w", "b.w"], ""),
        (["x.a.w", "x.b.w"], "x."),
        (["x.a.w", "x.b.w", "y.a.w"], "x."),
        (["x.y.a.w", "x.y.b.w", "x.c"], "x.y."),
    ],
)
def test_a_prefix_is_removed_where_the_rest_are_the_names(names, prefix):
    place = find_weights(tensors(*names), [["a.w"], ["b.w"]], [])
    assert place.prefix == prefix
    assert place.beside == len(names) - 2


@pytest.mark.parametrize(
    "names", [["x.a.w"], ["x.a.w", "y.b.w"], ["x.a.w", "x.b.w", "x.c"], ["a.w", "b.w", "c"], []]
)
def test_names_that_do_not_fit_are_found_nowhere(names):
    with pytest.raises(LookupError):
        find_weights(tensors(*names), [["a.w"], ["b.w"]], [])


def test_two_copies_under_two_prefixes_are_refused():
    with pytest.raises(ValueError, match=r"twice: under 'x\.' and 'y\.'"):
        find_weights(tensors("x.a", "y.a"), [["a"]], [])


def test_one_name_of_a_tied_weight_is_enough_and_counters_may_lack():
    place = find_weights(tensors("m.out"), [["emb", "out"]], ["steps"])
    assert place.prefix == "m."


def test_ten_thousand_prefixes_with_all_names_and_one_more_take_no_time():
    names = [f"p{i}.{name}" for i in range(10_000) for name in ("a", "b", "c", "extra")]
    held, start = tensors(*names), time.process_time()
    with pytest.raises(LookupError):
        find_weights(held, [["a"], ["b"], ["c"]], [])
    assert time.process_time() - start < 3
