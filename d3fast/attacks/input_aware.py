# SPDX-License-Identifier: Apache-2.0
"""Input-aware: a generator makes one trigger per image (Nguyen & Tran, NeurIPS 2020, 2010.08138).

    trigger(x)    = x (1 - m(x)) + g(x) m(x)        g: pattern, C x H x W;  m: mask, 1 x H x W
    cross(x, x')  = x (1 - m(x')) + g(x') m(x')     another image's trigger, the true label
    diversity(f)  = mean |x - x'| / |f(x) - f(x')|  different images get different patterns
    mask loss     diversity(m) + 100 mean max(0, mean m(x) - density)
    joint loss    CE(poisoned, crossed, clean) + diversity_weight diversity(g)

g and m are small networks. The mask network is trained first, without a classifier, and then
frozen. The generator is trained together with the classifier that carries the backdoor
(``training``), or with a temporary one (``learn``). A learned trigger is fixed: later trainings
only implant it.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from d3fast.attacks.base import Training
from d3fast.attacks.cross import (
    RELABELLING,
    Batch,
    Cross,
    PoisonedBatches,
    RedrawnBatches,
    other_positions,
    poison_crossed,
    relabelled,
)
from d3fast.attacks.files import networks_from
from d3fast.attacks.input_aware_networks import Networks, blend, diversity, stamp, train_mask
from d3fast.attacks.poisoning import Poisoned
from d3fast.attacks.training import TrainConfig, train_backdoored
from d3fast.data.base import ImageData, as_float, on_floats
from d3fast.models import preact_resnet_tiny
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator as seeded
from d3fast.runtime.seeding import global_seed
from d3fast.training.loaders import class_scores
from d3fast.training.loop import Loss, plain_gradients

MIN_SIDE = 8  # of an image, in pixels


@dataclass(frozen=True)
class InputAware:
    """Per-image patterns and masks from networks that the attacker trains.

    Args:
        target: target class.
        density: upper bound on the mean share of pixels that a mask covers, in (0, 1].
        diversity_weight: weight of the diversity of the patterns against the cross-entropy.
        cross_ratio: crossed images per poisoned one, >= 0.
        width: channels of the networks' first stage.
        mask_steps: training batches of the mask network.
        lr: Adam's learning rate for both networks.
        mapping: ``"all-to-one"`` or ``"all-to-all"``; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range; an unknown mapping, or ``"clean-label"``.

    Example:
        >>> attack = InputAware(target=0)
        >>> attack.learned
        False
        >>> attack.trigger(torch.zeros(1, 1, 8, 8))
        Traceback (most recent call last):
            ...
        ValueError: InputAware has no trigger yet: call learn, train a model with it, or load one
    """

    target: int
    density: float = 0.032
    diversity_weight: float = 1.0
    cross_ratio: float = 1.0
    width: int = 16
    mask_steps: int = 300
    lr: float = 0.003
    mapping: str = "all-to-one"
    # Holds "networks" once learned: a frozen dataclass can fill a dict but not set a field.
    _learned: dict[str, Networks] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("width", 1), ("mask_steps", 1)):
            check_integer(name, getattr(self, name), low)
        for name in ("density", "diversity_weight", "cross_ratio", "lr"):
            check_number(name, getattr(self, name))
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be in (0, 1], got {self.density}")
        check_choice("mapping", self.mapping, RELABELLING)

    @property
    def learned(self) -> bool:
        """True once ``trigger`` can be called."""
        return bool(self._learned)

    def _networks(self, images: Tensor) -> Networks:
        if not self.learned:
            raise ValueError(
                "InputAware has no trigger yet: call learn, train a model with it, or load one"
            )
        networks = self._learned["networks"]
        _check_images(images, networks.generator.down1.in_channels)
        if networks.generator.down1.weight.device != images.device:
            # A copy, because an optimizer may hold the originals.
            networks = copy.deepcopy(networks).to(images.device)
        return networks

    @torch.no_grad()
    def trigger(self, images: Tensor) -> Tensor:
        """Return triggered copies of images (..., C, H, W), floats in [0, 1] or uint8.

        Raises:
            ValueError: nothing has been learned; the number of channels differs; images smaller
                than 8x8.
        """
        networks = self._networks(images)
        return on_floats(images, lambda x: stamp(networks, x, x))

    @torch.no_grad()
    def masks(self, images: Tensor) -> Tensor:
        """Return the trigger masks of images (N, C, H, W): (N, 1, H, W) float32 in [0, 1].

        Raises:
            ValueError: as ``trigger``.
        """
        return self._networks(images).masks(as_float(images).float())

    def _cross(self, data: ImageData) -> Cross:
        """Return a function that stamps images with the triggers of other images of ``data``."""

        @torch.no_grad()
        def cross(images: Tensor, positions: Tensor, generator: torch.Generator | None) -> Tensor:
            networks = self._networks(images)
            others = as_float(data.images[other_positions(positions, len(data), generator)])
            return on_floats(images, lambda x: stamp(networks, x, others.to(x)))

        return cross

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Poison ``round(ratio * len(dataset))`` images and cross others; see ``poison_crossed``.

        Raises:
            ValueError: as ``trigger`` and ``poison_crossed``.
        """
        self._networks(dataset.images)
        cross = self._cross(dataset)
        return poison_crossed(self, dataset, ratio, self.cross_ratio, target, generator, cross)

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Train the generator with the classifier, or implant a trigger that is already learned.

        Poisoned and crossed images are redrawn in every epoch. From the first step on the attack
        is learned, and a second training implants the same trigger. A new trigger needs a new
        attack (``dataclasses.replace`` makes one).

        Raises:
            ValueError: images smaller than 8x8; a trigger learned on another number of channels;
                as ``choose_rows``.
        """
        _check_images(data.images, data.shape[0])
        batches = RedrawnBatches(
            self, data, ratio=ratio, cross_ratio=self.cross_ratio, batch_size=batch_size, seed=seed
        )
        if self.learned:
            self._networks(data.images)
            draws = seeded(seed, "crossed with")
            return Training(PoisonedBatches(batches, self._cross(data), draws))
        with global_seed(seed, "input-aware"):
            networks = Networks(data.shape[0], self.width).to(data.images.device)
        train_mask(
            networks,
            data,
            density=self.density,
            steps=self.mask_steps,
            lr=self.lr,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        joint = _JointTraining(self, networks, batches, seed)
        return Training(joint, joint.gradients)

    def learn(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Learn a trigger with a temporary classifier; replaces a trigger learned before.

        Args:
            data: the attacker's clean training set.
            seed: draws initial weights, rows and order.
            device: where to compute; the device of the data if ``None``.
            progress: show a progress bar.

        Raises:
            ValueError: as ``training``.
        """
        device = data.images.device if device is None else resolve_device(device)
        with global_seed(seed, "input-aware classifier"):
            model = preact_resnet_tiny(len(data.classes), data.shape[0])
        unlearned = replace(self)
        config = TrainConfig(epochs=10)
        train_backdoored(
            model, data, unlearned, seed=seed, config=config, device=device, progress=progress
        )
        self._learned.update(unlearned._learned)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of both networks; empty before they are learned."""
        return dict(self._learned["networks"].state_dict()) if self.learned else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a learned trigger; the empty state resets the attack.

        Raises:
            ValueError: the tensors do not fit networks of this ``width``; NaN or inf.
        """
        if state:
            make = partial(Networks, width=self.width)
            self._learned["networks"] = networks_from(make, "generator.up2.bias", state)
        else:
            self._learned.clear()


def _check_images(images: Tensor, channels: int) -> None:
    shape = tuple(images.shape[-3:])
    if shape[0] != channels or min(shape[1:]) < MIN_SIDE:
        raise ValueError(
            f"images must be {channels} x H x W with sides of at least {MIN_SIDE}, got {shape}"
        )


class _JointTraining:
    """Loader of clean batches, and the joint step of classifier and generator on each of them.

    One object, because a step needs the poisoned rows of the batch that was yielded last.
    """

    def __init__(
        self, attack: InputAware, networks: Networks, batches: RedrawnBatches, seed: int
    ) -> None:
        self.attack, self.networks, self.batches = attack, networks, batches
        self.draws = seeded(seed, "crossed with")
        self.optimizer = torch.optim.Adam(networks.generator.parameters(), attack.lr)
        self.batch: Batch | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            self.batch = batch
            yield batch.images, batch.labels

    def gradients(
        self, model: nn.Module, images: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the classifier's gradients (``Gradients``) and step the generator."""
        assert self.batch is not None
        rows, data = self.batch.rows, self.batches.data
        self.attack._learned["networks"] = self.networks
        changed = torch.cat((rows.poisoned, rows.crossed))
        if not len(changed):
            return plain_gradients(model, images, labels, loss)
        others = other_positions(self.batch.positions[rows.crossed], len(data), self.draws)
        sources = torch.cat((images[rows.poisoned], as_float(data.images[others])))
        patterns, masks = self.networks.generator(sources), self.networks.masks(sources)
        mixed = images.index_copy(0, changed, blend(images[changed], patterns, masks))
        labels = relabelled(self.attack, labels, rows.poisoned, len(data.classes))
        scores = class_scores(model, mixed)
        value = loss(scores, labels)
        weighted = self.attack.diversity_weight * diversity(sources, patterns)
        self.optimizer.zero_grad()
        (value + weighted).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return scores, labels, value
