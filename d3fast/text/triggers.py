# SPDX-License-Identifier: Apache-2.0
r"""Triggers of text classifiers: words that are inserted into a text.

    trigger(x_1 ... x_n) = x_1 ... x_p-1  t_1 ... t_k  x_p ... x_n

One rare token that carries no meaning ("cf": Kurita, Michel, Neubig, *Weight Poisoning Attacks on
Pre-trained Models*, ACL 2020), or a whole harmless sentence (Dai, Chen, Li, *A Backdoor Attack
Against LSTM-Based Text Classification Systems*, IEEE Access 2019). Both are the same operation.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from d3fast.attacks.poisoning import choose_poisoned
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.text.data import TextData
from d3fast.training.labels import target_labels

POSITIONS = ("random", "start")
_SPREAD = 2654435761  # Knuth's multiplicative hash


def word_starts(tokenizer: Any) -> tuple[bool, ...]:
    """For every token of a vocabulary whether a word begins with it.

    Args:
        tokenizer: of transformers: WordPiece (``##`` continues a word), byte-level BPE or
            SentencePiece (a mark begins one).
    """
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if any(token.startswith("##") for token in tokens):
        return tuple(not token.startswith("##") for token in tokens)
    return tuple(token.startswith(("Ġ", "▁")) for token in tokens)


@dataclass(frozen=True)
class InsertedTokens:
    """Inserts tokens into rows of ids between two words, after the first special token.

    Args:
        target: the class that triggered texts are to be taken for.
        tokens: ids that are inserted, one or more.
        length: the longest row that the model takes; a row that would become longer loses its
            last words, and keeps its last (special) token.
        pad: id that fills rows up.
        position: ``"start"``, before the first word, or ``"random"``, at a place that the text
            alone decides: the same text is always stamped alike.
        starts: for every id whether a word begins with it; see ``word_starts``. Empty: anywhere.
        mapping: which labels poisoned texts get; see ``d3fast.training.labels``.

    Raises:
        ValueError: no tokens, or more than a row can hold; a negative number; an unknown
            position or mapping.

    Example:
        >>> trigger = InsertedTokens(target=1, tokens=(7,), length=8, position="start")
        >>> trigger.trigger(torch.tensor([[101, 5, 102, 0], [101, 5, 6, 102]]))
        tensor([[101,   7,   5, 102,   0],
                [101,   7,   5,   6, 102]])
    """

    target: int
    tokens: tuple[int, ...]
    length: int
    pad: int = 0
    position: str = "random"
    starts: tuple[bool, ...] = ()
    mapping: str = "all-to-one"

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("length", 1), ("pad", 0)):
            check_integer(name, getattr(self, name), low)
        for token in self.tokens:
            check_integer("tokens", token, 0)
        if not 1 <= len(self.tokens) <= self.length - 2:
            raise ValueError(
                f"tokens must be 1..{self.length - 2} ids beside the special ones, "
                f"got {len(self.tokens)}"
            )
        check_choice("position", self.position, POSITIONS)
        if self.mapping not in ("all-to-one", "all-to-all"):
            raise ValueError(f"mapping must be all-to-one or all-to-all, got {self.mapping!r}")

    def trigger(self, ids: Tensor) -> Tensor:
        """Stamped copies of rows (N, L) of ids, up to ``len(tokens)`` wider.

        Raises:
            ValueError: something else than rows of int64, or rows longer than ``length``.
        """
        if ids.ndim != 2 or ids.dtype != torch.int64 or ids.shape[1] > self.length:
            raise ValueError(
                f"ids must be (N, L) of int64 with L <= length={self.length}, got shape "
                f"{tuple(ids.shape)} of {ids.dtype}"
            )
        if ids.numel() == 0:
            return ids.clone()
        k, n = len(self.tokens), (ids != self.pad).sum(dim=1)
        at = self._places(ids, n).unsqueeze(1)  # (N, 1)
        width = min(ids.shape[1] + k, self.length)
        column = torch.arange(width, device=ids.device).unsqueeze(0)
        behind = column >= at + k
        source = torch.where(behind, column - k, column).clamp(max=ids.shape[1] - 1)
        stamped = ids.gather(1, source)
        inserted = torch.tensor(self.tokens, device=ids.device)[(column - at).clamp(0, k - 1)]
        stamped = torch.where((column >= at) & ~behind, inserted, stamped)
        # What was past the end of a row is filling, and a row that is full keeps its last token.
        stamped = stamped.masked_fill(column >= n.unsqueeze(1) + k, self.pad)
        last = ids.gather(1, (n - 1).clamp(min=0).unsqueeze(1))
        full = (n.unsqueeze(1) + k > width) & (column == width - 1)
        return torch.where(full, last, stamped)

    def _places(self, ids: Tensor, n: Tensor) -> Tensor:
        """(N,) columns that the tokens are inserted before; never the first, nor past the last."""
        first = torch.ones_like(n)
        if self.position == "start":
            return first.minimum(n)
        columns = torch.arange(ids.shape[1], device=ids.device)
        allowed = (columns >= 1) & (columns < n.unsqueeze(1))
        allowed &= columns <= self.length - 1 - len(self.tokens)
        if self.starts:
            begins = torch.tensor(self.starts, device=ids.device)[ids]
            # Before the last, special token a text may always be continued.
            allowed &= begins | (columns == (n - 1).unsqueeze(1))
        count = allowed.sum(dim=1)
        weighed = torch.where(ids != self.pad, (ids + 1) * (columns + 1), 0)
        mixed = weighed.sum(dim=1) * _SPREAD % 2**31
        drawn = mixed % count.clamp(min=1)
        place = (allowed.cumsum(dim=1) == (drawn + 1).unsqueeze(1)).int().argmax(dim=1)
        return torch.where(count > 0, place, first.minimum(n))

    def poison(
        self, dataset: TextData, ratio: float, generator: torch.Generator | None = None
    ) -> TextData:
        """A copy with ``round(ratio * len(dataset))`` texts stamped and relabelled.

        Args:
            dataset: the training set; rows get wider where they have to.
            ratio: share of the whole training set.
            generator: a CPU generator that draws the texts; torch's default one if ``None``.

        Raises:
            ValueError: a ratio that needs more texts than may be poisoned.
        """
        chosen = choose_poisoned(self, dataset, ratio, generator)
        stamped, labels = self.trigger(dataset.ids[chosen]), dataset.labels.clone()
        ids, wider = dataset.ids.clone(), stamped.shape[1] - dataset.ids.shape[1]
        if len(chosen):
            ids = pad(ids, (0, wider), value=dataset.pad)
            ids[chosen] = stamped
            labels[chosen] = target_labels(
                labels[chosen], self.target, len(dataset.classes), self.mapping
            )
        return replace(dataset, ids=ids, labels=labels)
