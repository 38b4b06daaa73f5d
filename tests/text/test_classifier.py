# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast import D3Config, detoxify, evaluate, find_head
from d3fast.text import AnswerWords, InsertedTokens, TextClassifier, TextData
from d3fast.training.loop import fit


class Bag(nn.Module):
    """Mean of word vectors and a head, called as models of transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.hidden = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2)
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return {"logits": self.classifier(torch.relu(self.hidden(mean)))}


def test_filling_is_left_out_of_attention():
    model = TextClassifier(Bag(), pad=0)
    assert torch.allclose(model(torch.tensor([[5, 6]])), model(torch.tensor([[5, 6, 0, 0]])))


def test_under_autocast_scores_are_float32_and_weights_stay():
    model = TextClassifier(Bag(), pad=0, autocast=torch.bfloat16)
    scores = model(torch.tensor([[5, 6]]))
    assert scores.dtype == torch.float32
    assert torch.equal(scores, scores.bfloat16().float())
    assert model.model.hidden.weight.dtype == torch.float32


def test_another_autocast_is_refused():
    with pytest.raises(ValueError, match=r"autocast must be .* got torch\.float32"):
        TextClassifier(Bag(), pad=0, autocast=torch.float32)


def test_the_head_is_found_behind_the_wrapper():
    assert find_head(TextClassifier(Bag(), pad=0))[0] == "model.classifier"


def test_a_backdoor_in_a_text_classifier_is_implanted_and_repaired():
    """Words 1 to 9 are negative, 10 to 19 positive, the others say nothing; 39 is the trigger."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 2
    said = torch.randint(0, 9, (600, 3), generator=draws) + 1 + 10 * labels.unsqueeze(1)
    said = torch.cat([said, torch.randint(20, 39, (600, 3), generator=draws)], dim=1)
    ids = torch.cat([torch.full((600, 1), 30), said, torch.full((600, 1), 31)], dim=1)
    data = TextData(ids, labels, ("negative", "positive"))
    train, clean, test = (data.subset(torch.arange(a, a + 200)) for a in (0, 200, 400))
    attack = InsertedTokens(target=1, tokens=(39,), length=12)
    model = TextClassifier(Bag(), pad=0)
    poisoned = attack.poison(train, 0.2, draws).batches(20, draws)
    fit(
        model,
        poisoned,
        cross_entropy,
        torch.optim.Adam(model.parameters(), 0.01),
        epochs=15,
        device=torch.device("cpu"),
        progress=False,
    )
    before = evaluate(model, test.batches(100), attack)
    assert before.acc > 0.95
    assert before.asr > 0.9
    config = D3Config(epochs=40, lr=0.1)
    repaired = detoxify(model, clean.batches(20, draws), config, progress=False).model
    after = evaluate(repaired, test.batches(100), attack)
    assert after.acc > 0.95
    assert after.asr < before.asr / 2


class Decoder(nn.Module):
    """Running sums of word vectors, and output embeddings: as much as a causal model needs."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = nn.Embedding(40, 16)
        self.lm_head = nn.Linear(16, 40, bias=False)
        self.base_model.forward = self._hidden

    def _hidden(self, input_ids, attention_mask):
        vectors = nn.functional.embedding(input_ids, self.base_model.weight)
        return ((vectors * attention_mask.unsqueeze(2)).cumsum(dim=1),)

    def get_output_embeddings(self):
        return self.lm_head


def test_a_language_model_is_scored_by_its_answer_words_behind_the_last_token():
    model = AnswerWords(Decoder(), pad=0, answers=(7, 3))
    ids = torch.tensor([[5, 6, 0], [8, 9, 11]])
    sums = nn.functional.embedding(ids, model.model.base_model.weight)
    for row, length in enumerate((2, 3)):
        words = model.model.lm_head(sums[row, :length].sum(dim=0))
        assert torch.allclose(model(ids)[row], words[[7, 3]])


@pytest.mark.parametrize("answers", [(3,), (3, 3), (3, -1)])
def test_answers_that_name_no_classes_are_refused(answers):
    with pytest.raises(ValueError, match="answers must be"):
        AnswerWords(Decoder(), pad=0, answers=answers)
