# SPDX-License-Identifier: Apache-2.0
"""Low-frequency trigger: one smooth pattern added to every image (Zeng, Park, Mao, Jia 2021).

    trigger(x) = clamp(x + delta, 0, 1)        |delta| <= limit, delta smooth, of mean zero

The paper ("Rethinking the backdoor attacks' triggers: a frequency perspective", ICCV 2021) finds
delta by gradient descent on a clean model, with a Gaussian filter after every step. Its objective,
the loss towards the target class (``objective="targeted"``), makes delta a universal adversarial
perturbation: a clean model misclassifies the triggered images too, so a high ASR need not be a
backdoor. ``objective="quiet"`` instead minimises the loss of the true labels among patterns of a
given energy: the smooth pattern with the least effect on a clean model. The ASR then measures the
poisoning (floor and ceiling: docs/attacks.md).

One step, with G_n the n x n matrix of Gaussian weights whose rows sum to one:

    delta <- delta - step * limit * g / rms(g)         g: gradient of the mean loss of a batch
    delta <- G_H delta G_W^T                           each channel
    delta <- delta - mean(delta)                       each channel
    delta <- clamp(delta * max(1, energy * limit / rms(delta)), -limit, limit)

The mean is removed because the filter attenuates every frequency except the constant: after many
steps delta would be a change of brightness.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

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
from d3fast.attacks.poisoning import check_target, poison_once
from d3fast.data.base import ImageData, as_float
from d3fast.models import MODELS
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.labels import MAPPINGS, target_labels

OBJECTIVES = ("quiet", "targeted")


def smoothing_matrix(size: int, sigma: float) -> Tensor:
    """Return the (size, size) float32 matrix that smooths a row of pixels; rows sum to one.

    Weights outside the image are redistributed over those inside, so a constant stays constant.

    Args:
        size: pixels in a row.
        sigma: standard deviation in pixels, > 0.

    Example:
        >>> smoothing_matrix(3, 1.0).sum(dim=1)
        tensor([1., 1., 1.])
    """
    pixel = torch.arange(size, dtype=torch.float32)
    return torch.softmax(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2), dim=1)


@dataclass(frozen=True)
class LowFrequency:
    """Smooth additive pattern, learned once on a clean model.

    Args:
        target: target class.
        objective: ``"quiet"`` (least effect on a clean model) or ``"targeted"`` (the paper's).
        limit: bound on every value of the pattern, 0..1, for images in [0, 1].
        energy: lower bound on the RMS of the pattern, as a share of ``limit``, 0..1.
        sigma: standard deviation of the Gaussian filter, as a share of the image's shorter side.
        steps: gradient steps on the pattern.
        step: length of a step, as a share of ``limit``.
        batch_size: images per step.
        surrogate: architecture of the clean model that ``learn`` trains if it is given none.
        surrogate_epochs: epochs of that training.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range, or an unknown name.

    Example:
        >>> attack = LowFrequency(target=1, limit=0.25)
        >>> attack.load_state_dict({"pattern": torch.tensor([[[0.25, -0.25]]])})
        >>> attack.trigger(torch.tensor([[[[0.5, 0.5]]], [[[1.0, 0.0]]]])).squeeze()
        tensor([[0.7500, 0.2500],
                [1.0000, 0.0000]])
    """

    target: int
    objective: str = "quiet"
    limit: float = 0.2
    energy: float = 0.5
    sigma: float = 0.05
    steps: int = 80
    step: float = 0.1
    batch_size: int = 128
    surrogate: str = "preact_resnet_tiny"
    surrogate_epochs: int = 4
    mapping: str = "all-to-one"
    _learned: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("steps", 1), ("batch_size", 1), ("surrogate_epochs", 1)):
            check_integer(name, getattr(self, name), low)
        for name, least in (("limit", 0.0), ("energy", 0.0), ("sigma", 0.01), ("step", 0.0)):
            check_number(name, getattr(self, name), least)
        for name in ("limit", "energy"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        check_choice("objective", self.objective, OBJECTIVES)
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
            seed: draws the initial pattern, the batches and the weights of the clean model.
            device: where to compute; the device of the data if ``None``.
            progress: show progress bars.

        Raises:
            ValueError: the target is no class of the data; every image has the target class.
        """
        device = resolve_device(data.images.device if device is None else device)
        data = data.to(device)
        check_target(self.target, None, len(data.classes))
        targets = target_labels(data.labels, self.target, len(data.classes), self.mapping)
        candidates = (targets != data.labels).nonzero().flatten()
        if not len(candidates):
            raise ValueError(f"every image has the target class {self.target}: nothing to attack")
        surrogate = surrogate_model(
            model,
            data,
            name=self.surrogate,
            epochs=self.surrogate_epochs,
            stream="low-frequency surrogate",
            seed=seed,
            progress=progress,
        )
        labels = data.labels if self.objective == "quiet" else targets
        draws = seeded(seed, "low-frequency pattern")
        project = self._projection(data.shape, device)
        delta = project(torch.randn(data.shape, generator=draws).to(device))
        with progress_bar("learning a low-frequency pattern", self.steps, progress) as advance:
            for _ in range(self.steps):
                chosen = torch.randint(len(candidates), (self.batch_size,), generator=draws)
                rows = candidates[chosen.to(device)]
                images = as_float(data.images[rows])
                gradient = pattern_gradient(surrogate, images, labels[rows], delta)
                delta = project(delta - self.step * self.limit * gradient / rms(gradient))
                advance("")
        self._learned["pattern"] = delta

    def _projection(
        self, shape: tuple[int, int, int], device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Return the last three lines of a step in the module docstring, as a function."""
        _, height, width = shape
        sigma = self.sigma * min(height, width)
        rows = smoothing_matrix(height, sigma).to(device)
        columns = smoothing_matrix(width, sigma).to(device)

        def project(delta: Tensor) -> Tensor:
            delta = rows @ delta @ columns.T
            delta = delta - delta.mean(dim=(-2, -1), keepdim=True)
            delta = delta * (self.energy * self.limit / rms(delta)).clamp_min(1)
            return delta.clamp(-self.limit, self.limit)

        return project

    def trigger(self, images: Tensor) -> Tensor:
        """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8.

        The pattern is resized bilinearly to images of another size.

        Raises:
            ValueError: nothing has been learned; the number of channels differs.
        """
        if not self.learned:
            raise ValueError("LowFrequency has no pattern yet: call learn(data) first")
        return add_pattern(images, self._learned["pattern"])

    poison = poison_once

    state_dict = pattern_state
    load_state_dict = load_pattern_state
