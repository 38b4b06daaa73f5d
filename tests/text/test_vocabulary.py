"""Tokens as text, and the ids that a trigger may consist of."""

import pytest

from d3fast.text.vocabulary import ordinary_ids, token_text
from tests.text.tiny import WORDS


class Tokenizer:
    """As much of a tokenizer as the functions use."""

    all_special_ids = (0, 3)

    def __init__(self, *tokens):
        self.tokens = tokens

    def __len__(self):
        return len(self.tokens)

    def convert_ids_to_tokens(self, ids):
        return [self.tokens[i] for i in ids]

    def decode(self, ids):
        return " ".join(self.tokens[i] for i in ids)


def test_special_reserved_and_missing_tokens_are_left_out():
    tokenizer = Tokenizer("[PAD]", "[unused7]", "film", "[SEP]", None, "<extra_id_3>", "##s")
    assert ordinary_ids(tokenizer).tolist() == [2, 6]


def test_a_tokenizer_of_transformers_gives_its_words():
    pytest.importorskip("transformers", reason="makes a tokenizer")
    from tests.text.tiny import tokenizer

    shown = {WORDS[i] for i in ordinary_ids(tokenizer()).tolist()}
    assert shown == set(WORDS[5:])
    assert token_text([WORDS.index("cf"), WORDS.index("food1")], tokenizer()) == "cf food1"


def test_hostile_tokens_become_one_short_printable_line():
    shown = token_text([0, 1], Tokenizer("<b>\x1b[2J\n", "x" * 1000), most=40)
    assert len(shown) < 60
    assert shown.isprintable()


def test_without_a_tokenizer_tokens_are_numbers():
    assert token_text([12935]) == "token 12935"
