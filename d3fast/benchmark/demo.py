# SPDX-License-Identifier: Apache-2.0
"""The demonstration: implant a backdoor, repair the model, measure everything.

Per seed: a clean twin (the floor of the ASR, the ceiling of the RA), a backdoored model, and
repairs of it on the same clean samples: D3, plain fine-tuning at the same learning rate, and at
twice that rate, to tell what distance buys from what a large step alone buys. The repairs see clean
samples only; test images and trigger are used by the measurements around them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from d3fast.attacks import Attack, BadNets, TrainConfig, train_backdoored
from d3fast.data import ImageData, Splits, load
from d3fast.defenses import D3, Defense, FineTuning
from d3fast.defenses.base import OnEpoch
from d3fast.detox import D3Config
from d3fast.models import MODELS
from d3fast.optim import param_groups
from d3fast.optim.backends.torch_backend import joint_norm
from d3fast.runtime.devices import resolve_device, synchronize
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.loop import Epoch
from d3fast.training.metrics import Metrics, der, evaluate, floor_violation

# What a run has to reach on every seed, in points.
MAX_ASR_EXCESS = 5.0
MAX_ACC_LOSS = 3.0

CLEAN, BACKDOORED, FINE_TUNED, REPAIRED = "clean twin", "backdoored", "fine-tuning", "D3"
FINE_TUNED_HOT, HOT = "FT at 2x lr", 2.0


@dataclass(frozen=True)
class Setup:
    """Everything that is chosen before a run.

    Attributes:
        data: name of the data set.
        attack: what is implanted.
        model: name of the architecture.
        train: number of training images, all that are left if ``None``.
        clean: number of the defender's clean samples.
        batch_size: of the repairs.
        ratio: poison ratio.
        training: recipe of the clean twin and of the backdoored model.
        d3: the repair.
        fine_tuning: the repair it is compared with, same samples, batches and epochs.
        curve_images: test images that the curves over the epochs are measured on.
    """

    data: str
    attack: Attack
    model: str
    train: int | None
    clean: int
    batch_size: int
    ratio: float
    training: TrainConfig
    d3: D3Config
    fine_tuning: FineTuning
    curve_images: int = 1000


SETUPS: Mapping[str, Setup] = MappingProxyType(
    {
        setup.data: setup
        for setup in (
            Setup(
                data="digits",
                attack=BadNets(target=0, size=2, margin=0),
                model="preact_resnet_narrow",
                train=None,
                clean=260,
                batch_size=64,
                ratio=0.1,
                training=TrainConfig(epochs=20),
                d3=D3Config.authors(epochs=50, clean_weight=2.0, lr=0.05),
                fine_tuning=FineTuning(epochs=50, lr=0.05),
            ),
            Setup(
                data="fashion-mnist",
                attack=BadNets(target=1),
                model="preact_resnet_tiny",
                train=20000,
                clean=3000,
                batch_size=64,
                ratio=0.1,
                training=TrainConfig(epochs=10),
                d3=D3Config.authors(epochs=30, clean_weight=5.0),
                fine_tuning=FineTuning(epochs=30),
            ),
        )
    }
)


@dataclass(frozen=True)
class Curve:
    """What a repair did epoch by epoch, measured from outside.

    Attributes:
        epochs: counted from 0, the backdoored model.
        acc: accuracy, fraction.
        asr: attack success rate, fraction.
        distance: travelled by the weights that D3 tracks, in units of the norm they had.
    """

    epochs: list[int] = field(default_factory=list)
    acc: list[float] = field(default_factory=list)
    asr: list[float] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SeedRun:
    """One seed's models and measurements.

    Attributes:
        seed: the seed.
        rows: one per model, in the order they were made.
        curves: by the repair's name.
        models: by name, in eval mode.
        attack: the trigger and its target.
        test: the test images.
        clean: the samples that the repairs saw.
        d3: the configuration of the repair, with this seed.
    """

    seed: int
    rows: tuple[dict[str, Any], ...]
    curves: Mapping[str, Curve]
    models: Mapping[str, nn.Module]
    attack: Attack
    test: ImageData
    clean: ImageData
    d3: D3Config


@torch.no_grad()
def travelled(model: nn.Module, start: nn.Module, track: str) -> float:
    """``||theta - theta_0|| / ||theta_0||`` of the tracked weights, theta_0 those of ``start``."""
    names = param_groups(start, track)[0]["param_names"]
    ours, theirs = dict(model.named_parameters()), dict(start.named_parameters())

    moved = joint_norm([ours[name] - theirs[name] for name in names], 2.0)
    return float(moved / joint_norm([theirs[name] for name in names], 2.0))


class _Observer:
    """Measures a model between the epochs of a repair, and the time that took."""

    def __init__(self, start: nn.Module, test: ImageData, attack: Attack, track: str) -> None:
        self.start, self.test, self.attack, self.track = start, test, attack, track
        self.curve = Curve()
        self.seconds = 0.0
        self._add(0, start)

    def __call__(self, epoch: Epoch, model: nn.Module) -> None:
        started = time.perf_counter()
        self._add(epoch.epoch, model)
        self.seconds += time.perf_counter() - started

    def _add(self, epoch: int, model: nn.Module) -> None:
        measured = evaluate(model, self.test.batches(1000), self.attack)
        assert measured.asr is not None
        self.curve.epochs.append(epoch)
        self.curve.acc.append(measured.acc)
        self.curve.asr.append(measured.asr)
        self.curve.distance.append(travelled(model, self.start, self.track))


def _row(
    seed: int,
    name: str,
    measured: Metrics,
    seconds: float,
    floor: Metrics,
    before: Metrics | None = None,
    distance: float | None = None,
) -> dict[str, Any]:
    assert measured.asr is not None
    assert floor.asr is not None
    return {
        "seed": seed,
        "model": name,
        **measured.as_dict(),
        "floor": floor.asr,
        "asr_excess": measured.asr - floor.asr,
        "ra_ceiling": floor.ra,
        "acc_loss": None if before is None else before.acc - measured.acc,
        "der": None if before is None else der(before, measured),
        "distance": distance,
        "seconds": seconds,
    }


def run_seed(
    setup: Setup,
    seed: int,
    *,
    data_dir: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> SeedRun:
    """Run the demonstration for one seed.

    Args:
        setup: what is done.
        seed: draws the split, the weights, the poisoned images and the order of batches.
        data_dir: folder of the data set's files, where it has files.
        device: where to compute.
        progress: show progress bars.

    Raises:
        ValueError: data missing or damaged; a trigger whose clean-model floor is above 20 %.
    """
    where = resolve_device(device)
    splits = load(setup.data, seed, train=setup.train, clean=setup.clean, data_dir=data_dir)
    splits = splits.to(where)
    test = splits.test.batches(1000)
    train = partial(_train, setup, splits, seed, where, progress)

    clean, clean_seconds = train(None)
    floor = evaluate(clean, test, setup.attack)
    if (reason := floor_violation(floor, setup.attack.target)) is not None:
        raise ValueError(reason)
    suspect, suspect_seconds = train(setup.attack)
    before = evaluate(suspect, test, setup.attack)
    models = {CLEAN: clean, BACKDOORED: suspect}
    rows = [
        _row(seed, CLEAN, floor, clean_seconds, floor),
        _row(seed, BACKDOORED, before, suspect_seconds, floor, None, 0.0),
    ]

    d3, tuning = replace(setup.d3, seed=seed), setup.fine_tuning
    repairs: dict[str, Callable[[OnEpoch], Defense]] = {
        FINE_TUNED: lambda watch: replace(tuning, on_epoch=watch),
        FINE_TUNED_HOT: lambda watch: replace(tuning, lr=HOT * tuning.lr, on_epoch=watch),
        REPAIRED: lambda watch: D3(d3, on_epoch=watch),
    }
    curves = {}
    shown = splits.test.subset(torch.arange(min(setup.curve_images, len(splits.test))))
    for name, make in repairs.items():
        watch = _Observer(suspect, shown, setup.attack, d3.track)
        samples = splits.clean.batches(setup.batch_size, generator(seed, "repair order"))
        result = make(watch)(suspect, samples, None, device=where, progress=progress)
        models[name], curves[name] = result.model, watch.curve
        after = evaluate(result.model, test, setup.attack)
        moved = travelled(result.model, suspect, d3.track)
        rows.append(_row(seed, name, after, result.seconds - watch.seconds, floor, before, moved))
    return SeedRun(seed, tuple(rows), curves, models, setup.attack, splits.test, splits.clean, d3)


def _train(
    setup: Setup,
    splits: Splits,
    seed: int,
    device: torch.device,
    progress: bool,
    attack: Attack | None,
) -> tuple[nn.Module, float]:
    with global_seed(seed):
        model = MODELS[setup.model](len(splits.train.classes), splits.train.shape[0])
    started = time.perf_counter()
    train_backdoored(
        model,
        splits.train,
        attack,
        ratio=setup.ratio,
        seed=seed,
        config=setup.training,
        device=device,
        progress=progress,
    )
    synchronize(device)
    return model, time.perf_counter() - started


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where D3 missed the goal of the demonstration: one line per seed and number, in points."""
    lines = []
    for row in rows:
        if row["model"] != REPAIRED:
            continue
        for key, what, limit in (
            ("asr_excess", "ASR excess", MAX_ASR_EXCESS),
            ("acc_loss", "ACC loss", MAX_ACC_LOSS),
        ):
            value = 100 * row[key]
            if value > limit:
                lines.append(f"seed {row['seed']}: {what} {value:.1f} points, goal <= {limit:g}")
    return lines
