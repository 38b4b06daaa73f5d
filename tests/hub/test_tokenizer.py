# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a folder is the owner's, read without code; a bad one is one line."""

import json

import pytest

from d3fast.hub.tokenizer import read_tokenizer
from tests.hub.text_makers import edit
from tests.text.tiny import LENGTH, texts, tokenizer


@pytest.fixture
def folder(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path


def test_it_gives_the_ids_of_the_owners(folder):
    found, notes = read_tokenizer(folder)
    made, _ = texts(5)
    assert found(made)["input_ids"] == tokenizer()(made)["input_ids"]
    assert (found.model_max_length, notes) == (LENGTH, ())


def test_it_pads_on_the_right(folder):
    edit(folder / "tokenizer_config.json", padding_side="left")
    found, notes = read_tokenizer(folder)
    assert found.padding_side == "right"
    assert "padded on the right" in notes[0]


def test_a_vocabulary_of_word_pieces_is_enough(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))
    found, _ = read_tokenizer(folder)
    assert found("films")["input_ids"] == [2, 5, 6, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "Horoscope"}},
        {"model": None},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"added_tokens": [{"id": -1}]},
    ],
)
def test_what_the_library_cannot_build_is_one_line(changes, folder):
    edit(folder / "tokenizer.json", **changes)
    with pytest.raises(ValueError, match="cannot be used") as caught:
        read_tokenizer(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, -5, "long"])
def test_a_length_that_makes_no_sense_is_refused(length, folder):
    edit(folder / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ValueError, match=r"model_max_length|cannot be used"):
        read_tokenizer(folder)
