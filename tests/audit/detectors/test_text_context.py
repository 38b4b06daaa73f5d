"""What is inspected is checked first and left as it was; tokens are inserted where they belong."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.text_context import find_embedding, open_text_context
from d3fast.text import TextData
from tests.text.tiny import text_data, trained

CPU = torch.device("cpu")


@pytest.fixture
def context():
    with open_text_context(trained(backdoor=True), text_data(), CPU) as opened:
        yield opened


def test_tokens_stand_behind_the_special_token(context):
    rows = torch.tensor([[1, 50, 51, 2, 0], [1, 60, 2, 0, 0]])
    assert context.start == 1
    assert context.insert(rows, torch.tensor([7, 8])).tolist() == [
        [1, 7, 8, 50, 51, 2, 0],
        [1, 7, 8, 60, 2, 0, 0],
    ]


def test_without_a_common_first_token_they_stand_in_front():
    data = text_data()
    without = replace(data, ids=data.ids[:, 1:])
    with open_text_context(trained(backdoor=True), without, CPU) as context:
        assert context.insert(torch.tensor([[50, 2]]), torch.tensor([7])).tolist() == [[7, 50, 2]]


def test_a_soft_token_at_a_tokens_own_vector_gives_the_tokens_scores(context):
    rows, token = context.rows(torch.arange(5)), 9
    vectors = context.embedding.weight[token].expand(5, 2, -1)
    hard = context.scores(context.insert(rows, torch.tensor([token, token])))
    assert torch.allclose(context.soft_scores(rows, vectors), hard, atol=1e-5)
    assert not context.embedding._forward_hooks


def test_rows_are_no_wider_than_needed(context):
    lengths = (context.ids != 0).sum(dim=1)
    short = lengths.argsort()[:2]
    assert context.rows(short).shape == (2, int(lengths[short].max()))


def test_padding_and_what_the_tokenizer_calls_special_are_no_candidates():
    data, ordinary = text_data(), torch.tensor([0, 7, 9, 5000])
    with open_text_context(trained(backdoor=True), data, CPU, ordinary=ordinary) as context:
        assert context.candidates.tolist() == [7, 9]


def test_strength_1_is_as_sure_as_the_model_is_of_its_own_texts(context):
    for target in range(context.classes):
        own = (context.answers == target).nonzero()[:, 0]
        scores = context.scores(context.rows(own))
        others = scores.clone()
        others[:, target] = -torch.inf
        margin = scores[:, target] - others.amax(dim=1)
        assert context.trigger(target, (7,), margin.cpu()).strength == pytest.approx(1, abs=1e-4)


def test_the_model_is_frozen_inside_and_comes_back_as_it_was():
    model = copy.deepcopy(trained(backdoor=False)).train()
    with open_text_context(model, text_data(), CPU) as context:
        assert not context.model.training
        assert not any(param.requires_grad for param in context.model.parameters())
    assert model.training
    assert all(param.requires_grad for param in model.parameters())


class Constant(nn.Module):
    """Scores that do not depend on the text."""

    def __init__(self, *scores):
        super().__init__()
        self.words, self.values = nn.Embedding(300, 2), torch.tensor(scores)

    def forward(self, ids):
        return self.values.expand(len(ids), -1) + 0 * self.words(ids).sum()


class Blind(nn.Module):
    def forward(self, ids):
        return nn.functional.one_hot(ids[:, 1] % 4, 4).float()


def few(count):
    data = text_data()
    return data.subset(torch.arange(count) * 4)


@pytest.mark.parametrize(
    ("model", "data", "error_text"),
    [
        (Constant(1.0, 0.0, 0.0, 0.0), few(0), "inspection needs clean samples, got none"),
        (Constant(1.0, 0.0, 0.0, 0.0), few(3), "two or more classes, all are of 'sport'"),
        (Constant(1.0, 0.0, 0.0), text_data(), "the model has 3 classes, the samples have 4"),
        (Constant(float("nan"), 0.0, 0.0, 0.0), text_data(), "NaN or inf scores"),
        (Blind(), text_data(), "needs a model with an embedding of its token ids"),
    ],
)
def test_what_cannot_be_inspected_is_refused_in_one_line(model, data, error_text):
    with pytest.raises(ValueError, match=error_text), open_text_context(model, data, CPU):
        pass


def test_the_embedding_of_ids_is_told_from_that_of_positions():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.words = nn.Embedding(500, 2), nn.Embedding(30, 2)

        def forward(self, ids):
            at = torch.arange(ids.shape[1]).expand_as(ids)
            return (self.words(ids) + self.positions(at)).sum(dim=1)

    model = Model()
    assert find_embedding(model, torch.tensor([[3, 7]])) == (model.words, 500)


def test_a_full_row_loses_its_last_words_and_keeps_its_ends(context):
    short = replace(context, limit=5)
    rows = torch.tensor([[1, 50, 51, 52, 2], [1, 60, 2, 0, 0]])
    assert short.insert(rows, torch.tensor([7, 8])).tolist() == [[1, 7, 8, 50, 2], [1, 7, 8, 60, 2]]


@pytest.mark.parametrize(("family", "limit"), [("bert", 12), ("roberta", 12), ("gpt2", 12)])
def test_texts_as_long_as_the_model_has_positions_can_be_inspected(family, limit):
    pytest.importorskip("transformers", reason="makes a model")
    from d3fast.text import TextClassifier
    from tests.hub.text_makers import _auto

    length = {"n_positions": 12} if family == "gpt2" else {"max_position_embeddings": 12}
    if family == "roberta":
        length["max_position_embeddings"] += 1  # the first is that of the padding id
    inner = _auto(family, "AutoModelForSequenceClassification", num_labels=4, **length)
    inner.config.pad_token_id = 0
    ids = torch.randint(5, 200, (8, 12), generator=torch.Generator().manual_seed(0))
    data = TextData(ids, torch.arange(8) % 4, ("a", "b", "c", "d"))
    with open_text_context(TextClassifier(inner, 0), data, CPU) as context:
        assert context.limit == limit
        assert context.check(0, (7, 8, 9), torch.arange(8)).tokens == (7, 8, 9)


def test_ids_beyond_the_embeddings_are_refused():
    data = TextData(torch.full((4, 3), 5), torch.arange(4) % 2, ("a", "b"))
    model = Constant(1.0, 0.0)
    model.words = nn.Embedding(5, 2)
    with (
        pytest.raises(ValueError, match=r"token ids must be 0\.\.4 for this model, got 5 to 5"),
        open_text_context(model, data, CPU),
    ):
        pass
