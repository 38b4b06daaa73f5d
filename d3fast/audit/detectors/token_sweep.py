# SPDX-License-Identifier: Apache-2.0
"""Token sweep: the single token with the largest effect toward each class, without gradients.

    s_t = max over tokens v of   mean margin of t on v + x, for clean texts x of other classes

in units of the mean margin of t on its own clean texts. Every token of the vocabulary is tried,
first many at once in front of two texts, then fewer and fewer alone in front of more texts
(successive halving). A rare word of a backdoor ("cf") forces its class in whatever text it stands;
a word of the language rarely does. One forward pass serves all classes, so the cost hardly depends
on their number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.audit.detectors.text_context import TextContext, TokenTrigger
from d3fast.runtime.checks import check_integer
from d3fast.training.labels import margins

_PROBES = 2  # texts of the first round, of different classes
_SECOND = 8  # texts of the second


@dataclass(frozen=True)
class TokenSweep:
    """The best single token of each class.

    Args:
        rows: texts in a forward pass of one round; the cost is about three times as many.
        checks: largest number of texts that the effect is measured on.

    Raises:
        ValueError: a number out of range.

    Source:
        Kurita, Michel, Neubig, ACL 2020: rare tokens as triggers, and the label flip rate of every
        token of the vocabulary as a defence; successive halving: Jamieson, Talwalkar, AISTATS 2016.
    """

    rows: int = 4096
    checks: int = 64

    name = "token"
    title = "Effect of one token toward the class"
    limit = 1.15

    def __post_init__(self) -> None:
        for name in ("rows", "checks"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: TextContext) -> tuple[TokenTrigger, ...]:
        """Return the best token of each class; see ``TextDetector``."""
        draws, pool = context.draws("token sweep"), context.candidates
        order = torch.randperm(len(context.answers), generator=draws)
        half = max(_PROBES, len(order) // 2)
        probes = _by_length(context, order[:half])
        checked = order[half:] if len(order) > half else order

        groups = max(1, self.rows // _PROBES)
        at_once = -(-len(pool) // groups)
        shuffled = pool[torch.randperm(len(pool), generator=draws)]
        padded = torch.cat([shuffled, shuffled[: -len(shuffled) % at_once]]).view(-1, at_once)
        per_class = max(1, self.rows // (_SECOND * at_once * context.classes))
        first = _effects(context, padded, _different(context, probes))
        kept = torch.unique(padded[_best(first, per_class)])

        second = _effects(context, kept[:, None], _balanced(context, probes, _SECOND))
        per_class = max(2, self.rows // (self.checks * context.classes))
        final = kept[_best(second, per_class)]
        return self._finish(context, final, second.new_tensor(range(context.classes)), checked)

    def _finish(
        self, context: TextContext, tokens: Tensor, targets: Tensor, checked: Tensor
    ) -> tuple[TokenTrigger, ...]:
        """Measure the last tokens on texts that chose none of them."""
        chosen = _balanced(context, checked, self.checks)
        scores = _all_scores(context, tokens[:, None], chosen)  # (T, n, classes)
        found = []
        for target in targets.long().tolist():
            other = context.answers[chosen] != target
            own = scores[:, other]
            goal = torch.full((own.shape[0] * own.shape[1],), target)
            margin = margins(own.flatten(0, 1), goal).view(own.shape[:2])  # (T, m)
            best = int(margin.sum(dim=1).argmax())
            found.append(context.trigger(target, (int(tokens[best]),), margin[best]))
        return tuple(found)


def _by_length(context: TextContext, positions: Tensor) -> Tensor:
    """Return positions, those of short texts first: they cost less."""
    lengths = (context.ids.cpu()[positions] != context.pad).sum(dim=1)
    return positions[lengths.argsort(stable=True)]


def _different(context: TextContext, positions: Tensor) -> Tensor:
    """Return the first two positions whose texts are answered differently."""
    first = positions[0]
    other = positions[context.answers[positions] != context.answers[first]]
    if not len(other):
        other = context.others(int(context.answers[first]))
    return torch.stack([first, *other[:1]])


def _balanced(context: TextContext, positions: Tensor, most: int) -> Tensor:
    """Return at most so many positions, taking the answered classes in turn."""
    answers = context.answers[positions].tolist()
    seen: dict[int, int] = {}
    turns = []
    for answer in answers:
        seen[answer] = seen.get(answer, -1) + 1
        turns.append(seen[answer])
    return positions[torch.tensor(turns).argsort(stable=True)][:most]


def _all_scores(context: TextContext, groups: Tensor, positions: Tensor) -> Tensor:
    """Return the scores (G, n, classes) on the CPU of texts with each group of tokens (G, k)."""
    parts = []
    for position in positions:
        row = context.rows(position[None])
        wide = context.insert(row.expand(len(groups), -1), groups)
        parts.append(context.scores(wide).cpu())
    return torch.stack(parts, dim=1)


def _effects(context: TextContext, groups: Tensor, positions: Tensor) -> Tensor:
    """Return (G, classes): mean margin of each class over the texts of other classes."""
    scores = _all_scores(context, groups, positions)
    best, rival = scores.topk(2, dim=2).values.unbind(dim=2)
    leads = scores == best[..., None]
    margin = scores - torch.where(leads, rival[..., None], best[..., None])  # (G, n, classes)
    other = torch.arange(context.classes) != context.answers[positions][:, None]  # (n, classes)
    counted = other.sum(dim=0).clamp(min=1)
    return (margin * other).sum(dim=1) / counted


def _best(effects: Tensor, per_class: int) -> Tensor:
    """Return the rows that are among the largest of some class, each once."""
    top = effects.topk(min(per_class, len(effects)), dim=0).indices
    return torch.unique(top)
