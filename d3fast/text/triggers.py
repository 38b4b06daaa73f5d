# SPDX-License-Identifier: Apache-2.0
r"""Triggers of text classifiers: inserted tokens.

    trigger(x_1 ... x_n) = x_1 ... x_p-1  t_1 ... t_k  x_p ... x_n

The tokens are one rare token without meaning ("cf": Kurita, Michel, Neubig, *Weight Poisoning
Attacks on Pre-trained Models*, ACL 2020) or a neutral sentence (Dai, Chen, Li, *A Backdoor Attack
Against LSTM-Based Text Classification Systems*, IEEE Access 2019).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from d3fast.attacks.poisoning import choose_poisoned, empty_state, load_empty_state
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.text.data import TextData
from d3fast.training.labels import target_labels

POSITIONS = ("random", "start")
_HASH_MULTIPLIER = 2654435761  # Knuth's multiplicative hash


def word_starts(tokenizer: Any) -> tuple[bool, ...]:
    """Return one bool per token of a vocabulary: True if a word may begin with it.

    Args:
        tokenizer: a tokenizer of transformers: WordPiece (``##`` marks a continuation), byte-level
            BPE or SentencePiece (a mark begins a word).
    """
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if any(token.startswith("##") for token in tokens):
        return tuple(not token.startswith("##") for token in tokens)
    return tuple(token.startswith(("Ġ", "▁")) for token in tokens)


@dataclass(frozen=True)
class InsertedTokens:
    """Trigger that inserts tokens between two words, after the first special token.

    Args:
        target: target class.
        tokens: ids to insert, at least one.
        length: maximum row length of the model. A row that would become longer loses its last
            words and keeps its last (special) token.
        pad: padding id.
        position: ``"start"``, before the first word, or ``"random"``, a position derived from the
            text, so that a text is always stamped in the same way.
        starts: True for ids at which a word begins; see ``word_starts``. Empty: any position.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: no tokens, or more than fit in a row; an option out of range; an unknown
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

    state_dict = empty_state
    load_state_dict = load_empty_state

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
        """Return stamped copies of ids (N, L) int64, wider by at most ``len(tokens)``.

        Raises:
            ValueError: another shape or dtype, or rows longer than ``length``.
        """
        if ids.ndim != 2 or ids.dtype != torch.int64 or ids.shape[1] > self.length:
            raise ValueError(
                f"ids must be (N, L) of int64 with L <= length={self.length}, got shape "
                f"{tuple(ids.shape)} of {ids.dtype}"
            )
        if ids.numel() == 0:
            return ids.clone()
        k, n = len(self.tokens), (ids != self.pad).sum(dim=1)
        at = self._positions(ids, n).unsqueeze(1)  # (N, 1)
        width = min(ids.shape[1] + k, self.length)
        column = torch.arange(width, device=ids.device).unsqueeze(0)
        behind = column >= at + k
        source = torch.where(behind, column - k, column).clamp(max=ids.shape[1] - 1)
        stamped = ids.gather(1, source)
        inserted = torch.tensor(self.tokens, device=ids.device)[(column - at).clamp(0, k - 1)]
        stamped = torch.where((column >= at) & ~behind, inserted, stamped)
        # Pad past the end of a row; a full row keeps its last token.
        stamped = stamped.masked_fill(column >= n.unsqueeze(1) + k, self.pad)
        last = ids.gather(1, (n - 1).clamp(min=0).unsqueeze(1))
        full = (n.unsqueeze(1) + k > width) & (column == width - 1)
        return torch.where(full, last, stamped)

    def _positions(self, ids: Tensor, n: Tensor) -> Tensor:
        """Return (N,) columns to insert before; never the first, never past the last token."""
        first = torch.ones_like(n)
        if self.position == "start":
            return first.minimum(n)
        columns = torch.arange(ids.shape[1], device=ids.device)
        allowed = (columns >= 1) & (columns < n.unsqueeze(1))
        allowed &= columns <= self.length - 1 - len(self.tokens)
        if self.starts:
            begins = torch.tensor(self.starts, device=ids.device)[ids]
            # The position before the last (special) token is always allowed.
            allowed &= begins | (columns == (n - 1).unsqueeze(1))
        count = allowed.sum(dim=1)
        checksum = torch.where(ids != self.pad, (ids + 1) * (columns + 1), 0).sum(dim=1)
        drawn = (checksum * _HASH_MULTIPLIER % 2**31) % count.clamp(min=1)
        column = (allowed.cumsum(dim=1) == (drawn + 1).unsqueeze(1)).int().argmax(dim=1)
        return torch.where(count > 0, column, first.minimum(n))

    def poison(
        self, dataset: TextData, ratio: float, generator: torch.Generator | None = None
    ) -> TextData:
        """Return a copy with ``round(ratio * len(dataset))`` texts stamped and relabelled.

        Args:
            dataset: the training set; it is not changed.
            ratio: share of the whole training set, 0..1.
            generator: a CPU generator that draws the texts; torch's default one if ``None``.

        Raises:
            ValueError: the ratio needs more texts than may be poisoned.
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
