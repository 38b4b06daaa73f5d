"""The token sweep tries every token, within its budget."""

import torch
from torch import nn

from d3fast.audit.detectors.text_context import open_text_context
from d3fast.audit.detectors.token_sweep import TokenSweep
from tests.text.tiny import TRIGGER, WORDS, text_data, trained

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts the rows that a model is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, ids):
        self.rows += len(ids)
        return self.model(ids)


def test_the_cost_is_bounded_and_the_word_is_found_among_many_at_once():
    model = Counting(trained(backdoor=True))
    with open_text_context(model, text_data(), CPU) as context:
        model.rows = 0
        found = TokenSweep(rows=64, checks=16)(context)
        assert model.rows <= 7 * 64
    assert WORDS[found[2].tokens[0]] == TRIGGER


def test_a_vocabulary_smaller_than_the_budget_is_tried_alone():
    with open_text_context(trained(backdoor=True), text_data(), CPU) as context:
        found = TokenSweep(rows=4096)(context)
    assert WORDS[found[2].tokens[0]] == TRIGGER


def test_two_texts_are_enough():
    data = text_data().subset(torch.tensor([0, 1]))
    with open_text_context(trained(backdoor=True), data, CPU) as context:
        assert len(TokenSweep()(context)) == 4
