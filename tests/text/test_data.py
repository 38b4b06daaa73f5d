# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from d3fast.text import TextData, encode


def data() -> TextData:
    ids = torch.tensor([[1, 5, 2, 0], [1, 5, 6, 2], [1, 2, 0, 0]])
    return TextData(ids, torch.tensor([0, 1, 0]), ("-", "+"))


def test_batches_are_cut_to_their_longest_row():
    assert [ids.tolist() for ids, _ in data().batches(2)] == [
        [[1, 5, 2, 0], [1, 5, 6, 2]],
        [[1, 2]],
    ]


def test_a_generator_draws_another_order_in_every_pass_and_the_same_run_twice():
    def passes(seed):
        batches = data().batches(1, torch.Generator().manual_seed(seed))
        return [[labels.tolist() + ids.tolist() for ids, labels in batches] for _ in range(8)]

    runs = passes(0)
    assert runs == passes(0)
    assert len({str(one) for one in runs}) > 1
    assert all(sorted(map(str, one)) == sorted(map(str, runs[0])) for one in runs)


def test_subset_keeps_rows_and_labels_together():
    part = data().subset(torch.tensor([2, 1]))
    assert part.ids.tolist() == [[1, 2, 0, 0], [1, 5, 6, 2]]
    assert part.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.zeros(3, 4)}, "ids must be"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, r"labels must be \(3,\)"),
        ({"labels": torch.tensor([0, 2, 0])}, "labels must be in 0..1, got 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    given = {"ids": data().ids, "labels": data().labels, "classes": ("-", "+"), **change}
    with pytest.raises(ValueError, match=message):
        TextData(**given)


class Letters:
    """A tokenizer of single letters, called as those of transformers are."""

    pad_token_id, padding_side = 0, "right"

    def __call__(self, texts, padding, truncation, max_length, return_tensors):
        assert padding == "max_length"
        assert truncation
        rows = [[1, *map(ord, text[: max_length - 2]), 2] for text in texts]
        filled = [own + [0] * (max_length - len(own)) for own in rows]
        return {"input_ids": torch.tensor(filled)}


def test_encode_gives_rows_of_one_length_and_the_tokenizers_filling():
    made = encode(["ab", "abcdef"], [0, 1], Letters(), classes=("-", "+"), length=5)
    assert made.ids.tolist() == [[1, 97, 98, 2, 0], [1, 97, 98, 99, 2]]
    assert made.pad == 0


def test_encode_refuses_other_numbers_of_labels_and_filling_on_the_left():
    with pytest.raises(ValueError, match=r"labels must be 1.* got 2"):
        encode(["a"], [0, 1], Letters(), classes=("-", "+"), length=5)
    left = Letters()
    left.padding_side = "left"
    with pytest.raises(ValueError, match=r"padding_side .* got 'left'"):
        encode(["a"], [0], left, classes=("-",), length=5)
