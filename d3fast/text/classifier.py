# SPDX-License-Identifier: Apache-2.0
"""Wrappers that make transformers models modules from token ids to class scores.

``TextClassifier`` wraps a sequence classifier. ``AnswerWords`` wraps a causal language model and
uses its next-token scores of one word per class.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_integer


class TextClassifier(nn.Module):
    """Module from token ids to scores around a sequence classifier.

    ``param_groups`` and ``find_head`` look through the wrapper; names in the state get the prefix
    ``model.``.

    Args:
        model: a ``...ForSequenceClassification`` of transformers, or any module that takes
            ``input_ids`` and ``attention_mask`` and returns ``logits`` by key.
        pad: padding id; the attention mask excludes it.
        autocast: half type of the forward pass; scores are returned in float32. ``None`` computes
            in the dtype of the weights.

    Raises:
        ValueError: ``autocast`` is no half type.

    Example:
        >>> class Model(nn.Module):
        ...     def forward(self, input_ids, attention_mask):
        ...         return {"logits": torch.stack([input_ids.sum(1), attention_mask.sum(1)], 1)}
        >>> TextClassifier(Model(), pad=0)(torch.tensor([[5, 6, 0]]))
        tensor([[11.,  2.]])
    """

    def __init__(self, model: nn.Module, pad: int, autocast: torch.dtype | None = None) -> None:
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast must be torch.bfloat16 or float16, got {autocast}")
        super().__init__()
        self.model = model
        self.pad = pad
        self.autocast = autocast

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores (N, classes) of token ids (N, L) int64."""
        dtype = self.autocast or torch.bfloat16
        with torch.autocast(ids.device.type, dtype, enabled=self.autocast is not None):
            output = self.model(input_ids=ids, attention_mask=(ids != self.pad).long())
        scores: Tensor = output["logits"]
        return scores.float() if scores.dtype != torch.float64 else scores


class AnswerWords(nn.Module):
    """Module from token ids to scores around a causal language model, with one token per class.

    The hidden state of the last token of a row goes through the output embeddings. The next-token
    scores of the answer tokens are the class scores.

    Args:
        model: a ``...ForCausalLM`` of transformers, with ``base_model`` and
            ``get_output_embeddings``.
        pad: padding id at the end of a row.
        answers: one token id per class.

    Raises:
        ValueError: fewer than two answers, a repeated one, or one that is no id.
    """

    def __init__(self, model: nn.Module, pad: int, answers: tuple[int, ...]) -> None:
        super().__init__()
        for answer in answers:
            check_integer("answers", answer, 0)
        if len(set(answers)) != len(answers) or len(answers) < 2:
            raise ValueError(f"answers must be two or more different ids, got {answers}")
        self.model = model
        self.pad = pad
        self.answers = answers

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores (N, classes) of token ids (N, L) int64."""
        return answer_scores(self.model, ids, self.pad, self.answers)


def answer_scores(model: Any, ids: Tensor, pad: int, answers: Sequence[int]) -> Tensor:
    """Return the scores (N, classes) of one token per class after the last token of each row.

    Args:
        model: a ``...ForCausalLM`` of transformers, see ``AnswerWords``.
        ids: (N, L) int64, rows padded at the end.
        pad: padding id.
        answers: one token id per class.
    """
    mask = ids != pad
    hidden = model.base_model(input_ids=ids, attention_mask=mask.long())[0]  # (N, L, width)
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    rows = torch.arange(len(ids), device=ids.device)
    scores: Tensor = model.get_output_embeddings()(hidden[rows, last])[:, list(answers)]
    return scores.float() if scores.dtype != torch.float64 else scores
