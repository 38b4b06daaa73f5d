"""The inversion of tokens: short sequences, and no more tokens than they need."""

import torch
from torch import nn

from d3fast.audit.detectors.text_context import open_text_context
from d3fast.audit.detectors.token_inversion import TokenInversion
from tests.text.tiny import text_data, trained

CPU = torch.device("cpu")


class Switch(nn.Module):
    """Adds up word vectors; token 9 anywhere makes the text class 2, a second one adds nothing."""

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.words, self.head = nn.Embedding(240, 4), nn.Linear(3, 4)
        self.words.weight.data = torch.randn(240, 4, generator=draws)
        self.words.weight.data[:, 3] = 0.0
        self.words.weight.data[9] = torch.tensor([0.0, 0.0, 0.0, 1.0])
        self.head.weight.data = torch.randn(4, 3, generator=draws)
        self.head.bias.data.zero_()

    def forward(self, ids):
        vectors = self.words(ids)
        seen = vectors[..., 3].amax(dim=1, keepdim=True)
        switch = torch.tensor([[0.0, 0.0, 50.0, 0.0]]) * seen
        return self.head(vectors[..., :3].mean(dim=1)) + switch


def test_tokens_without_effect_are_dropped():
    with open_text_context(Switch(), text_data(), CPU) as context:
        found = TokenInversion()(context)[2]
    assert found.tokens == (9,)
    assert found.success == 1.0


def test_more_tokens_are_not_used_than_allowed():
    with open_text_context(trained(backdoor=False), text_data(), CPU) as context:
        for length in (1, 4):
            found = TokenInversion(length=length, steps=3)(context)
            assert all(1 <= len(trigger.tokens) <= length for trigger in found)


def test_the_checked_texts_are_of_other_classes():
    with open_text_context(trained(backdoor=False), text_data(), CPU) as context:
        empty = context.check(1, (), context.others(1))
    assert empty.success == 0.0
