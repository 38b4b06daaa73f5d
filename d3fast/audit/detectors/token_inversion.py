# SPDX-License-Identifier: Apache-2.0
r"""Inverted tokens: a short sequence of tokens that turns clean texts into each class.

    min over z in R^(k, V) of   mean CE(f(e(p) + x), t),   p = softmax(z / T),   e(p) = p E

over clean texts x of other classes, for the input embeddings E (V, width). The temperature T falls
during the search, so that every p_j ends near one token. Then each position tries its likeliest
tokens exactly, and tokens are dropped while the effect per token grows. Per token, because three
words of the language together can outweigh a text in a clean model too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.audit.detectors.text_context import TextContext, TokenTrigger
from d3fast.runtime.checks import check_integer, check_number

_WARM, _COLD = 1.0, 0.1  # temperatures at the start and at the end


@dataclass(frozen=True)
class TokenInversion:
    """A short sequence of tokens for each class.

    Args:
        length: largest number of tokens.
        steps: optimizer steps per class.
        batch_size: texts per step, drawn with replacement.
        lr: learning rate of Adam.
        choices: tokens that are tried at each position after the search.
        checks: largest number of texts that the effect is measured on.

    Raises:
        ValueError: a number out of range.

    Source:
        Shen et al., *Constrained Optimization with Dynamic Bound-scaling for Effective NLP Backdoor
        Defense*, ICML 2022, and Liu et al., *PICCOLO*, IEEE S&P 2022: the softmax over the
        vocabulary and its temperature; Wallace et al., EMNLP 2019: universal triggers and the
        exact choice among the best tokens of each position.
    """

    length: int = 3
    steps: int = 40
    batch_size: int = 12
    lr: float = 0.5
    choices: int = 6
    checks: int = 64

    name = "phrase"
    title = "Effect per token of a few tokens toward the class"
    limit = 1.15

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        for name in ("length", "steps", "batch_size", "choices", "checks"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: TextContext) -> tuple[TokenTrigger, ...]:
        """Return the sequence of each class; see ``TextDetector``."""
        return tuple(self._invert(context, target) for target in range(context.classes))

    def _invert(self, context: TextContext, target: int) -> TokenTrigger:
        draws = context.draws(f"token inversion of class {target}")
        others = context.others(target)
        if not len(others):
            return context.trigger(target, context.candidates[:1].tolist(), torch.zeros(0))
        others = others[torch.randperm(len(others), generator=draws)]
        half = max(1, len(others) // 2)
        seen, checked = others[:half], others[half:][: self.checks]
        likely = self._search(context, target, seen, draws)
        tokens = self._refine(context, target, likely, seen[: self.batch_size])
        return self._shorten(context, target, tokens, checked if len(checked) else seen)

    def _search(
        self, context: TextContext, target: int, positions: Tensor, draws: torch.Generator
    ) -> Tensor:
        """Return the likeliest candidates of each position, (k, choices) ids."""
        device = context.ids.device
        candidates = context.candidates.to(device)
        vectors = _weight(context)[candidates].float()  # (V, width)
        start = torch.randn(self.length, len(candidates), generator=draws)
        logits = (0.1 * start).to(device).requires_grad_()
        optimizer = torch.optim.Adam([logits], self.lr)
        goal = torch.full((self.batch_size,), target, device=device)
        for step in range(self.steps):
            temperature = _WARM * (_COLD / _WARM) ** (step / max(1, self.steps - 1))
            pick = positions[torch.randint(len(positions), (self.batch_size,), generator=draws)]
            with torch.enable_grad():
                soft = (logits / temperature).softmax(dim=1) @ vectors  # (k, width)
                scores = context.soft_scores(
                    context.rows(pick), soft.expand(self.batch_size, *soft.shape)
                )
                loss = functional.cross_entropy(scores, goal)
                (logits.grad,) = torch.autograd.grad(loss, logits)
            optimizer.step()
        most = min(self.choices, len(candidates))
        return candidates[logits.detach().topk(most, dim=1).indices].cpu()

    def _refine(
        self, context: TextContext, target: int, likely: Tensor, positions: Tensor
    ) -> list[int]:
        """Choose one token per position, position by position, by the exact loss."""
        tokens = likely[:, 0].clone()
        rows = context.rows(positions)
        for at in range(len(tokens)):
            trial = tokens.repeat(likely.shape[1], 1)
            trial[:, at] = likely[at]
            wide = torch.cat([context.insert(rows, each) for each in trial])
            scores = context.scores(wide)
            goal = torch.full((len(wide),), target, device=scores.device)
            loss = functional.cross_entropy(scores, goal, reduction="none")
            tokens[at] = likely[at, int(loss.view(len(trial), -1).mean(dim=1).argmin())]
        return tokens.tolist()

    def _shorten(
        self, context: TextContext, target: int, tokens: list[int], positions: Tensor
    ) -> TokenTrigger:
        """Drop tokens while the strength per token grows."""
        best = context.check(target, tokens, positions)
        while len(best.tokens) > 1:
            shorter = [
                context.check(target, best.tokens[:at] + best.tokens[at + 1 :], positions)
                for at in range(len(best.tokens))
            ]
            found = max(shorter, key=lambda each: each.strength)
            if found.strength < best.strength:
                break
            best = found
        return best


def _weight(context: TextContext) -> Tensor:
    weight = context.embedding.weight
    assert isinstance(weight, Tensor)
    return weight.detach()
