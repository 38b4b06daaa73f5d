# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.text import InsertedTokens, TextData, word_starts
from d3fast.training.metrics import Trigger

CLS, SEP, PAD = 101, 102, 0
words = st.lists(st.integers(1, 90), max_size=9)


def row(own: list[int], width: int) -> list[int]:
    filled = [CLS, *own, SEP]
    return filled + [PAD] * (width - len(filled))


def inserted(before: list[int], after: list[int], tokens: list[int]) -> list[int]:
    """Where the tokens were inserted: the places at which taking them out gives the text back."""
    k = len(tokens)
    return [
        p
        for p in range(len(after) - k + 1)
        if after[p : p + k] == tokens and after[:p] + after[p + k :] == before
    ]


@given(texts=st.lists(words, min_size=1, max_size=5), k=st.integers(1, 3))
def test_tokens_stand_whole_somewhere_in_the_text_and_nothing_else_changes(texts, k):
    tokens = [200 + i for i in range(k)]
    width = max(map(len, texts)) + 2
    trigger = InsertedTokens(target=1, tokens=tuple(tokens), length=64)
    stamped = trigger.trigger(torch.tensor([row(text, width) for text in texts]))
    assert stamped.shape == (len(texts), width + k)
    for text, after in zip(texts, stamped.tolist(), strict=True):
        assert after[0] == CLS
        assert after[len(text) + k + 1 :] == [SEP] + [PAD] * (width - len(text) - 2)
        assert inserted(text, after[1 : len(text) + k + 1], tokens)


@given(text=words, k=st.integers(1, 4), position=st.sampled_from(["random", "start"]))
def test_a_full_row_loses_its_last_words_and_keeps_its_ends(text, k, position):
    width = len(text) + 2
    length = max(width, k + 2)
    tokens = [200 + i for i in range(k)]
    trigger = InsertedTokens(target=1, tokens=tuple(tokens), length=length, position=position)
    after = trigger.trigger(torch.tensor([row(text, width)]))[0].tolist()
    body = [x for x in after if x != PAD]
    assert len(after) == min(width + k, length)
    assert body[0] == CLS
    assert body[-1] == SEP
    kept = [x for x in body[1:-1] if x < 200]
    assert kept == text[: len(kept)]
    assert [x for x in body if x >= 200] == tokens
    assert len(kept) == min(len(text), length - 2 - k)


def test_start_is_right_behind_the_first_special_token():
    trigger = InsertedTokens(target=1, tokens=(7,), length=9, position="start")
    assert trigger.trigger(torch.tensor([[CLS, 5, 6, SEP]])).tolist() == [[CLS, 7, 5, 6, SEP]]


def test_random_places_differ_between_texts_and_reach_both_ends():
    ids = torch.tensor([[CLS, 2 * i + 3, 3 * i + 5, i + 7, SEP] for i in range(60)])
    stamped = InsertedTokens(target=1, tokens=(200,), length=9).trigger(ids)
    assert set((stamped == 200).int().argmax(dim=1).tolist()) == {1, 2, 3, 4}


def test_the_same_text_is_stamped_alike_in_any_batch_and_however_it_is_filled_up():
    trigger = InsertedTokens(target=1, tokens=(200, 201), length=20)
    text = torch.tensor([[CLS, 3, 4, 5, 6, 7, SEP]])
    wider = torch.tensor([[CLS, 3, 4, 5, 6, 7, SEP, PAD, PAD], [CLS, *range(8, 15), SEP]])
    assert trigger.trigger(text)[0].tolist() == trigger.trigger(wider)[0, :9].tolist()


def test_words_are_not_torn_apart():
    starts = tuple(i < 50 for i in range(300))  # 50 and above continue a word
    ids = torch.tensor([[CLS, 3 + i % 40, 60, 61, 4 + i // 40, SEP] for i in range(100)])
    stamped = InsertedTokens(target=1, tokens=(200,), length=9, starts=starts).trigger(ids)
    assert set((stamped == 200).int().argmax(dim=1).tolist()) == {1, 4, 5}


def test_word_starts_of_every_kind_of_vocabulary():
    class Tokenizer:
        def __init__(self, *tokens):
            self.tokens = tokens

        def __len__(self):
            return len(self.tokens)

        def convert_ids_to_tokens(self, ids):
            return [self.tokens[i] for i in ids]

    assert word_starts(Tokenizer("film", "##s", "[SEP]")) == (True, False, True)
    assert word_starts(Tokenizer("Ġfilm", "s")) == (True, False)
    assert word_starts(Tokenizer("▁film", "s")) == (True, False)


def test_an_empty_batch_and_empty_texts_pass():
    trigger = InsertedTokens(target=1, tokens=(7,), length=9)
    assert trigger.trigger(torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 4)
    assert trigger.trigger(torch.tensor([[CLS, SEP]])).tolist() == [[CLS, 7, SEP]]


def test_it_is_a_trigger_as_evaluate_wants_one():
    assert isinstance(InsertedTokens(target=1, tokens=(7,), length=9), Trigger)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": ()}, "tokens must be 1..6"),
        ({"tokens": tuple(range(1, 8))}, "tokens must be 1..6"),
        ({"tokens": (-1,)}, "tokens must be"),
        ({"target": -1}, "target must be"),
        ({"position": "end"}, "position must be one of 'random', 'start', got 'end'"),
        ({"mapping": "clean-label"}, "mapping must be"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        InsertedTokens(**{"target": 1, "tokens": (7,), "length": 8, **options})


@pytest.mark.parametrize(
    "ids", [torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.ones(1, 9).long()]
)
def test_what_are_no_rows_of_ids_is_refused(ids):
    with pytest.raises(ValueError, match="ids must be"):
        InsertedTokens(target=1, tokens=(7,), length=8).trigger(ids)


def data(rows: int) -> TextData:
    ids = torch.tensor([row([5 + i, 6], 4) for i in range(rows)])
    return TextData(ids, torch.arange(rows) % 2, ("negative", "positive"))


def test_poisoning_stamps_and_relabels_the_share_asked_for():
    clean = data(20)
    trigger = InsertedTokens(target=1, tokens=(200,), length=8)
    poisoned = trigger.poison(clean, 0.25, torch.Generator().manual_seed(0))
    stamped = (poisoned.ids == 200).any(dim=1)
    assert int(stamped.sum()) == 5
    assert (clean.labels[stamped] == 0).all()
    assert (poisoned.labels[stamped] == 1).all()
    assert (poisoned.ids[~stamped, :4] == clean.ids[~stamped]).all()
    assert (poisoned.labels[~stamped] == clean.labels[~stamped]).all()


def test_poisoning_nothing_changes_nothing():
    clean = data(4)
    poisoned = InsertedTokens(target=1, tokens=(200,), length=8).poison(clean, 0.0)
    assert poisoned.ids.tolist() == clean.ids.tolist()


def test_more_poison_than_there_are_texts_is_refused():
    with pytest.raises(ValueError, match=r"ratio=0\.9 of 20 samples needs 18"):
        InsertedTokens(target=1, tokens=(200,), length=8).poison(data(20), 0.9)
