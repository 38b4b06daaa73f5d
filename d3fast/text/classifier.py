# SPDX-License-Identifier: Apache-2.0
"""``TextClassifier``: a sequence classifier of transformers as a module from ids to scores."""

import torch
from torch import Tensor, nn


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
