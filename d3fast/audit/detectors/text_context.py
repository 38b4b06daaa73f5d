# SPDX-License-Identifier: Apache-2.0
"""The input of a text detector: a frozen classifier of token ids, and clean texts, checked once.

Searches insert tokens in front of a text. A hard token is a column of ids; a soft token replaces
the output of the input embeddings at its column, so that a gradient reaches it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.audit.detectors.context import check_classes
from d3fast.runtime.checks import check_integer
from d3fast.runtime.seeding import generator
from d3fast.text import TextData
from d3fast.training.labels import margins
from d3fast.training.loaders import class_scores
from d3fast.training.modes import frozen

_ROWS = 256  # of one forward pass
_LEAST = 1e-6  # margin, of a model that is undecided about every text


@dataclass(frozen=True)
class TokenTrigger:
    """The tokens found for one class.

    Attributes:
        target: the class.
        tokens: ids, in the order in which they are inserted.
        success: share of the checked texts of other classes that are answered with the class once
            the tokens are inserted.
        strength: mean margin of the class on these texts, in units of its mean margin on clean
            texts that the model answers with it, divided by the number of tokens. A word of the
            language leaves a text of another class less certain than a real one; at 1 each token
            outweighs all that the text says.
    """

    target: int
    tokens: tuple[int, ...]
    success: float
    strength: float


@dataclass(frozen=True, eq=False)
class TextContext:
    """A text classifier under inspection; ``open_text_context`` makes one.

    Attributes:
        model: in eval mode, its weights frozen.
        embedding: the module that turns ids into vectors.
        ids: (N, L) int64, on the model's device.
        answers: (N,) the classes that the model gives the texts, on the CPU.
        usual: (classes,) mean margin of each class on the texts that are answered with it; that of
            all texts for a class without any.
        classes: number of classes.
        pad: padding id.
        start: column to insert at: 1 if all texts begin with the same (special) token, else 0.
        candidates: (V,) ids that may be part of a trigger, on the CPU.
        limit: number of positions that the model has.
        seed: of everything random; every detector and class has its own stream.
    """

    model: nn.Module
    embedding: nn.Module
    ids: Tensor
    answers: Tensor
    usual: Tensor
    classes: int
    pad: int
    start: int
    candidates: Tensor
    limit: int = sys.maxsize
    seed: int = 0

    def draws(self, purpose: str) -> torch.Generator:
        """Return a CPU generator for one purpose."""
        return generator(self.seed, f"inspection: {purpose}")

    def others(self, target: int) -> Tensor:
        """Return the positions of the texts that are answered with other classes, on the CPU."""
        return (self.answers != target).nonzero()[:, 0]

    def rows(self, positions: Tensor) -> Tensor:
        """Return texts (n, L), no wider than the longest of them."""
        ids = self.ids[positions.to(self.ids.device)]
        return ids[:, : max(1, int((ids != self.pad).sum(dim=1).max()))]

    @torch.no_grad()
    def scores(self, ids: Tensor) -> Tensor:
        """Return the scores (n, classes) of rows of ids, a bounded number of rows at a time."""
        return torch.cat([class_scores(self.model, part) for part in torch.split(ids, _ROWS)])

    def insert(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Return rows (n, L) with tokens (n, k) or (k,) at column ``start``, (n, L + k).

        Rows that the model has no positions for lose their last words and keep their last token.
        """
        wide = tokens.to(rows.device).expand(len(rows), tokens.shape[-1])
        room = max(self.start + 1, self.limit - wide.shape[1])
        if rows.shape[1] > room:
            count = (rows != self.pad).sum(dim=1)
            last = rows.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
            rows = rows[:, :room].clone()
            rows[:, -1] = torch.where(count > room, last, rows[:, -1])
        return torch.cat([rows[:, : self.start], wide, rows[:, self.start :]], dim=1)

    def soft_scores(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Return scores (n, classes) of rows with vectors (n, k, width) in front, differentiable.

        The inserted columns hold a candidate's id, so that the attention mask includes them.
        """
        k = vectors.shape[1]
        filled = self.insert(rows, self.candidates[:1].expand(k))

        def put(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            start = self.start
            return torch.cat([output[:, :start], vectors, output[:, start + k :]], dim=1)

        with _hook(self.embedding, put), torch.enable_grad():
            return class_scores(self.model, filled)

    def check(self, target: int, tokens: Sequence[int], positions: Tensor) -> TokenTrigger:
        """Measure tokens on texts at some positions."""
        rows = self.insert(self.rows(positions), torch.tensor(tuple(tokens), dtype=torch.long))
        found = margins(self.scores(rows), torch.full((len(rows),), target).to(rows.device)).cpu()
        return self.trigger(target, tokens, found)

    def trigger(self, target: int, tokens: Sequence[int], found: Tensor) -> TokenTrigger:
        """Return tokens with what margins (n,) of their class on texts say of them.

        Without a text of another class, of a model that answers one class alone, this is nothing.
        """
        if not len(found):
            return TokenTrigger(target, tuple(tokens), 0.0, 0.0)
        success = float((found > 0).float().mean())
        strength = float(found.mean() / self.usual[target]) / max(1, len(tokens))
        return TokenTrigger(target, tuple(tokens), success, strength)


@contextmanager
def _hook(module: nn.Module, change: Any) -> Iterator[None]:
    handle = module.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def open_text_context(
    model: nn.Module,
    data: TextData,
    device: torch.device,
    seed: int = 0,
    ordinary: Tensor | None = None,
) -> Iterator[TextContext]:
    """Check model and texts, and freeze the model inside a ``with`` block.

    Modes and ``requires_grad`` flags are restored afterwards.

    Args:
        model: gives (N, classes) scores of ids (N, L).
        data: clean texts.
        device: where to compute.
        seed: of everything random.
        ordinary: ids that may be part of a trigger; see ``ordinary_ids``. All if ``None``.

    Raises:
        ValueError: no texts, or of one class only; a model with another number of classes, without
            an embedding of token ids; NaN or inf in its scores.
    """
    check_integer("seed", seed, 0)
    check_classes(data.labels, data.classes)
    model.to(device)
    with frozen(model):
        lengths = (data.ids != data.pad).sum(dim=1).clamp(min=1)
        ids = data.ids[:, : int(lengths.max())].to(device)
        _check_ids(model, ids)
        embedding, limit = find_embedding(model, ids[:1, : int(lengths[0])])
        vocabulary = embedding.num_embeddings
        candidates = torch.arange(vocabulary) if ordinary is None else ordinary.cpu()
        candidates = candidates[(candidates < vocabulary) & (candidates != data.pad)]
        start = int(len(torch.unique(ids[:, 0])) == 1)
        none = torch.zeros(0, dtype=torch.long)
        context = TextContext(
            model,
            embedding,
            ids,
            none,
            none,
            len(data.classes),
            data.pad,
            start,
            candidates,
            limit,
            seed,
        )
        answers, usual = _answers(context)
        yield replace(context, answers=answers, usual=usual)


def _check_ids(model: nn.Module, ids: Tensor) -> None:
    """Raise ``ValueError`` for ids that no embedding of a model has a row for."""
    rows = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    if rows and not 0 <= int(ids.min()) <= int(ids.max()) < max(rows):
        raise ValueError(
            f"token ids must be 0..{max(rows) - 1} for this model, got {int(ids.min())} to "
            f"{int(ids.max())}"
        )


def _answers(context: TextContext) -> tuple[Tensor, Tensor]:
    """Return answers (N,) and the usual margin of each class (classes,)."""
    scores = context.scores(context.ids).cpu()
    if scores.shape[1] != context.classes:
        raise ValueError(
            f"the model has {scores.shape[1]} classes, the samples have {context.classes}"
        )
    if not bool(scores.isfinite().all()):
        raise ValueError("the model gives NaN or inf scores on the clean samples")
    answers = scores.argmax(dim=1)
    own = margins(scores, answers).double()
    usual = own.mean().expand(context.classes).clone()
    for target in torch.unique(answers).tolist():
        usual[target] = own[answers == target].mean()
    return answers, usual.clamp(min=_LEAST)


@torch.no_grad()
def find_embedding(model: nn.Module, ids: Tensor) -> tuple[nn.Embedding, int]:
    """Return the embedding that a model reads its token ids with, and its number of positions.

    Args:
        model: called once.
        ids: (1, L) token ids without padding.

    Returns:
        The embedding; the largest L, very large for a model without an embedding of positions.

    Raises:
        ValueError: no ``nn.Embedding`` sees the ids.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(4, 3))
        >>> find_embedding(model, torch.tensor([[1, 5]]))[0] is model[0]
        True
    """
    seen: list[nn.Embedding] = []
    limits = [sys.maxsize]

    def look(module: nn.Embedding, inputs: tuple[Any, ...], output: Tensor) -> None:
        given = inputs[0].reshape(-1) if inputs and isinstance(inputs[0], Tensor) else None
        if given is None or len(given) != ids.shape[1]:
            return
        if torch.equal(given, ids[0]):
            seen.append(module)
        elif bool((given.diff() == 1).all()):  # positions, perhaps from an offset on
            limits.append(module.num_embeddings - int(given[0]))

    handles = [
        m.register_forward_hook(look) for m in model.modules() if isinstance(m, nn.Embedding)
    ]
    try:
        class_scores(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ValueError("inspection of texts needs a model with an embedding of its token ids")
    return seen[0], min(limits)
