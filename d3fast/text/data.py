# SPDX-License-Identifier: Apache-2.0
"""Labelled texts as token ids, and batches trimmed to their longest row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from d3fast.runtime.checks import check_integer


@dataclass(frozen=True, eq=False)
class TextData:
    """Labelled rows of token ids.

    Attributes:
        ids: (N, L) int64, rows padded at the end with ``pad``.
        labels: (N,) int64 class indices.
        classes: names of the classes.
        pad: padding id.

    Raises:
        ValueError: inconsistent shapes or dtypes, or a label out of range.

    Example:
        >>> data = TextData(torch.tensor([[1, 5, 2], [1, 2, 0]]), torch.tensor([0, 1]), ("-", "+"))
        >>> len(data), [ids.tolist() for ids, _ in data.batches(1)]
        (2, [[[1, 5, 2]], [[1, 2]]])
    """

    ids: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    pad: int = 0

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != torch.int64:
            raise ValueError(
                f"ids must be (N, L) of int64, got shape {tuple(self.ids.shape)} of "
                f"{self.ids.dtype}"
            )
        if self.labels.shape != self.ids.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be ({len(self.ids)},) of int64, got shape "
                f"{tuple(self.labels.shape)} of {self.labels.dtype}"
            )
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if bool(wrong.any()):
            raise ValueError(
                f"labels must be in 0..{len(self.classes) - 1}, got {int(self.labels[wrong][0])}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def inputs(self) -> Tensor:
        """The token ids."""
        return self.ids

    def to(self, device: str | torch.device) -> "TextData":
        """Return the same data on another device."""
        return replace(self, ids=self.ids.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> "TextData":
        """Return the rows at the given indices, in that order."""
        where = indices.to(self.ids.device)
        return replace(self, ids=self.ids[where], labels=self.labels[where])

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> "TextBatches":
        """Return a loader of batches (ids, labels); see ``TextBatches``."""
        return TextBatches(self, batch_size, generator)


@dataclass(frozen=True, eq=False)
class TextBatches:
    """Loader of (ids, labels), each batch trimmed to its longest row.

    Attributes:
        data: the rows.
        batch_size: rows per batch; the last one may be smaller.
        generator: draws a new order for every pass; the order of the data if ``None``.

    Raises:
        ValueError: the batch size is below 1.
    """

    data: TextData
    batch_size: int
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, 1)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.data)
        order = torch.arange(count)
        if self.generator is not None:
            order = torch.randperm(count, generator=self.generator)
        for chosen in torch.split(order, self.batch_size):
            ids = self.data.ids[chosen]
            longest = int((ids != self.data.pad).sum(dim=1).max())
            yield ids[:, :longest], self.data.labels[chosen]


def encode(
    texts: Sequence[str],
    labels: Sequence[int],
    tokenizer: Any,
    *,
    classes: tuple[str, ...],
    length: int,
) -> TextData:
    """Tokenize texts into rows of ids.

    Args:
        texts: N texts.
        labels: N class indices.
        tokenizer: a tokenizer of transformers that pads on the right.
        classes: names of the classes.
        length: maximum number of tokens per text, special tokens included; longer texts are cut.

    Raises:
        ValueError: the numbers of texts and labels differ; the tokenizer pads on the left.
    """
    if len(texts) != len(labels):
        raise ValueError(f"labels must be {len(texts)}, one per text, got {len(labels)}")
    if tokenizer.padding_side != "right":
        raise ValueError(
            f"padding_side of the tokenizer must be 'right', got {tokenizer.padding_side!r}"
        )
    ids = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )["input_ids"]
    return TextData(ids, torch.tensor(list(labels)), classes, tokenizer.pad_token_id)
