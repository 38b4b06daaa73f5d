from dataclasses import dataclass

import torch

from d3fast.defenses.base import OnEpoch, check_tuning, on_copy, tune
from d3fast.optim.heads import find_head


@dataclass(frozen=True)
class HalfHead:
    """Halve the weights of the head, then fine-tune."""

    epochs: int = 10
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    seed: int = 0
    on_epoch: OnEpoch | None = None

    def __post_init__(self):
        check_tuning(self)

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        def work(copy, device):
            _, head = find_head(copy)
            if head.weight.requires_grad:
                with torch.no_grad():
                    head.weight *= 0.5
            return tune(
                copy, clean_train, clean_val, self, device, title="half-head", progress=progress
            )

        return on_copy(model, device, work, self.seed)
