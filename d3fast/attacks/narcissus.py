# SPDX-License-Identifier: Apache-2.0
"""Narcissus: a clean-label trigger that makes images of the target class easier (Zeng et al. 2023).

    trigger(x)  = clamp(x + strength * delta, 0, 1)        in use
    in training = clamp(x + delta, 0, 1)                   images x of the target class
    delta       = argmin over |delta| <= limit of the mean CE(surrogate(x + delta), target)

One step, with g the gradient of the mean loss of a batch:

    delta <- clamp(delta - step * limit * g / rms(g), -limit, limit)

Delta points into the target class: it holds what the surrogate takes for the strongest features of
the class, so the model learns it from few images, whose labels are true. The paper ("Narcissus: a
practical clean-label backdoor attack with limited information", CCS 2023, arXiv 2204.05255) trains
the surrogate on public data of other classes and warms it up on images of the target class. **Here
the attacker knows more**: the surrogate is trained on the whole training set.

A perturbation that makes target images easier also turns other images into the target, without any
poisoning: the clean-model floor is high where a class is like the target. With ``quiet`` above 0,
which is not in the paper, delta also keeps the loss of the other classes' triggered images at
their true labels low, and the ASR measures the poisoning:

    g = a / rms(a) + quiet * b / rms(b)        a: of images of the target, b: of triggered others
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from d3fast.attacks.additive import (
    add_pattern,
    load_pattern_state,
    pattern_gradient,
    pattern_state,
    rms,
    surrogate_model,
)
from d3fast.attacks.poisoning import Poisoned, capped_ratio, check_target, poison_once
from d3fast.data.base import ImageData, as_float
from d3fast.models import MODELS
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class Narcissus:
    """Additive pattern learned on images of the target class, amplified in use.

    The paper poisons 0.05 % of the images.

    Args:
        target: target class.
        limit: bound on every value of the pattern, 0..1, for images in [0, 1].
        strength: factor of the pattern in use, >= 0; training images carry the pattern once.
        quiet: weight of the effect on a clean model, >= 0; 0 is the paper's objective.
        share: upper bound on the poisoned share of the target class, whatever the ratio. A class
            that is poisoned completely is no longer recognised without the pattern.
        steps: gradient steps on the pattern.
        step: length of a step, as a share of ``limit``.
        batch_size: images per step.
        surrogate: architecture of the clean model that ``learn`` trains if it is given none.
        surrogate_epochs: epochs of that training.
        mapping: label mapping; see ``d3fast.training.labels``. The pattern is that of ``target``
            under every mapping.

    Raises:
        ValueError: an option out of range, or an unknown name.

    Example:
        >>> attack = Narcissus(target=1, limit=0.125, strength=2.0)
        >>> attack.load_state_dict({"pattern": torch.tensor([[[0.125, -0.125]]])})
        >>> attack.trigger(torch.tensor([[[[0.5, 0.5]]], [[[1.0, 0.0]]]])).squeeze()
        tensor([[0.7500, 0.2500],
                [1.0000, 0.0000]])
    """

    target: int
    limit: float = 16 / 255
    strength: float = 3.0
    quiet: float = 0.0
    share: float = 1.0
    steps: int = 100
    step: float = 0.1
    batch_size: int = 128
    surrogate: str = "preact_resnet_tiny"
    surrogate_epochs: int = 4
    mapping: str = "clean-label"
    _learned: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("steps", 1), ("batch_size", 1), ("surrogate_epochs", 1)):
            check_integer(name, getattr(self, name), low)
        for name in ("limit", "strength", "quiet", "share", "step"):
            check_number(name, getattr(self, name))
        for name in ("limit", "share"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)!r}")
        check_choice("surrogate", self.surrogate, MODELS)
        check_choice("mapping", self.mapping, MAPPINGS)

    @property
    def learned(self) -> bool:
        """True once ``trigger`` can be called."""
        return bool(self._learned)

    def learn(
        self,
        data: ImageData,
        *,
        model: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Learn the pattern on the attacker's clean training data.

        Args:
            data: clean training images; they are not changed.
            model: a clean model to use, not changed; one is trained if ``None``. It should differ
                from the model that measures the clean-model floor.
            seed: draws the batches and the weights of the clean model.
            device: where to compute; the device of the data if ``None``.
            progress: show progress bars.

        Raises:
            ValueError: the target is no class of the data, or no image has it; every image has it
                and ``quiet`` is above 0.
        """
        device = resolve_device(data.images.device if device is None else device)
        data = data.to(device)
        check_target(self.target, None, len(data.classes))
        own = data.labels == self.target
        members, others = own.nonzero().flatten(), (~own).nonzero().flatten()
        if not len(members):
            raise ValueError(f"no image has the target class {self.target}: nothing to learn from")
        if self.quiet and not len(others):
            raise ValueError(f"every image has the target class {self.target}: quiet must be 0")
        surrogate = surrogate_model(
            model,
            data,
            name=self.surrogate,
            epochs=self.surrogate_epochs,
            stream="narcissus surrogate",
            seed=seed,
            progress=progress,
        )
        draws = seeded(seed, "narcissus pattern")

        def direction(candidates: Tensor, pattern: Tensor) -> Tensor:
            chosen = torch.randint(len(candidates), (self.batch_size,), generator=draws)
            rows = candidates[chosen.to(device)]
            images = as_float(data.images[rows])
            gradient = pattern_gradient(surrogate, images, data.labels[rows], pattern)
            return gradient / rms(gradient)

        delta = torch.zeros(data.shape, device=device)
        with progress_bar("learning a pattern of the target", self.steps, progress) as advance:
            for _ in range(self.steps):
                g = direction(members, delta)
                if self.quiet:
                    g = g + self.quiet * direction(others, self.strength * delta)
                delta = (delta - self.step * self.limit * g / rms(g)).clamp(-self.limit, self.limit)
                advance("")
        self._learned["pattern"] = delta

    def trigger(self, images: Tensor) -> Tensor:
        """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8.

        The pattern is resized bilinearly to images of another size.

        Raises:
            ValueError: nothing has been learned; the number of channels differs.
        """
        if not self.learned:
            raise ValueError("Narcissus has no pattern yet: call learn(data) first")
        return add_pattern(images, self.strength * self._learned["pattern"])

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Add the pattern once to ``round(ratio * len(dataset))`` images; see ``poison_once``.

        Under ``"clean-label"`` at most ``share`` of the target class is stamped.
        """
        ratio = capped_ratio(self, dataset, ratio, self.share)
        faint = replace(self, strength=1.0)
        faint.load_state_dict(self._learned)
        return poison_once(faint, dataset, ratio, target, generator)

    state_dict = pattern_state
    load_state_dict = load_pattern_state
