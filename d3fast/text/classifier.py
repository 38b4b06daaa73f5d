# SPDX-License-Identifier: Apache-2.0
"""Models of transformers as modules from token ids to scores: classifiers, and language models.

A language model is a classifier too, if it is asked for its next word and a word stands for each
class.
"""

from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_integer


class TextClassifier(nn.Module):
    """Wraps a model that takes ``input_ids`` and ``attention_mask`` and answers with ``logits``.

    ``param_groups`` and ``find_head`` look through the wrapper; names in the state get the prefix
    ``model.``.

    Args:
        model: a ``...ForSequenceClassification`` of transformers, or any module called like one.
        pad: id that fills a row up; attention leaves it out.
        autocast: compute the forward pass in this half type, scores come back in float32; ``None``
            computes in the weights' own dtype.

    Raises:
        ValueError: an ``autocast`` that is no half type.

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
        """Scores (N, classes) of token ids (N, L), int64."""
        kind = self.autocast or torch.bfloat16
        with torch.autocast(ids.device.type, kind, enabled=self.autocast is not None):
            answer = self.model(input_ids=ids, attention_mask=(ids != self.pad).long())
        scores: Tensor = answer["logits"]
        return scores.float() if scores.dtype != torch.float64 else scores


class AnswerWords(nn.Module):
    """Wraps a causal language model; its scores are those of the words that stand for the classes.

    The hidden state of the last token of a row goes through the output embeddings; the scores of
    the answer words among all next words are the scores of the classes.

    Args:
        model: a ``...ForCausalLM`` of transformers: with ``base_model`` and
            ``get_output_embeddings``.
        pad: id that fills a row up at its end.
        answers: one token id per class.

    Raises:
        ValueError: fewer than two answers, one twice, or one that is no id.
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
        """Scores (N, classes) of token ids (N, L), int64."""
        mask = ids != self.pad
        model: Any = self.model
        hidden = model.base_model(input_ids=ids, attention_mask=mask.long())[0]  # (N, L, width)
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        rows = torch.arange(len(ids), device=ids.device)
        scores: Tensor = model.get_output_embeddings()(hidden[rows, last])[:, list(self.answers)]
        return scores.float() if scores.dtype != torch.float64 else scores
