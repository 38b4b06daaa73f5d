# SPDX-License-Identifier: Apache-2.0
"""``d3fast demo``: one attack of the benchmark in this process, measured after every epoch.

A demo runs a preset of the benchmark with the benchmark's own steps: ``implant`` trains the clean
and the backdoored model, ``repair_model`` repairs. What it adds are the curves over the epochs, and
all models at once, for the picture and the files of the demo.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3fast.attacks import Attack
from d3fast.benchmark.defender import defender_samples
from d3fast.benchmark.implant import TEST_BATCH, implant, train_model
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.plan import BenchmarkPreset
from d3fast.benchmark.presets import REPAIRED
from d3fast.benchmark.repair_jobs import compared, repair_model
from d3fast.data import ImageData
from d3fast.defenses import D3
from d3fast.detox import D3Config
from d3fast.optim import param_groups
from d3fast.optim.backends.torch_backend import joint_norm
from d3fast.results.format import percent, shortest
from d3fast.results.schema.benchmark import DemoRow
from d3fast.runtime.devices import resolve_device
from d3fast.training.loop import Epoch
from d3fast.training.metrics import Metrics, evaluate

# The goal of D3 on every seed, in points.
MAX_LIFT = 5.0
MAX_ACC_LOSS = 3.0
BACKDOORED = "backdoored"
_CURVE_IMAGES = 1000  # the curves are measured on a part of the test images


@dataclass(frozen=True)
class Curve:
    """The course of a repair, measured from outside after every epoch.

    Attributes:
        epochs: counted from 0, the backdoored model.
        acc: accuracy, fraction.
        asr: attack success rate, fraction.
        distance: of the weights that D3 tracks, relative to their initial norm.
    """

    epochs: list[int] = field(default_factory=list)
    acc: list[float] = field(default_factory=list)
    asr: list[float] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class DemoRun:
    """Models and measurements of one seed.

    Attributes:
        seed: the seed.
        rows: one per model, in the order of their training.
        curves: by the label of the repair.
        models: by label, in eval mode.
        attack: the trigger and its target.
        test: the test images.
        clean: the samples of the repairs.
        d3: the configuration of D3, with this seed.
    """

    seed: int
    rows: tuple[DemoRow, ...]
    curves: Mapping[str, Curve]
    models: Mapping[str, nn.Module]
    attack: Attack
    test: ImageData
    clean: ImageData
    d3: D3Config


@torch.no_grad()
def relative_distance(model: nn.Module, start: nn.Module, track: str) -> float:
    """Return ``||theta - theta_0|| / ||theta_0||`` of the tracked weights; theta_0 is ``start``."""
    names = param_groups(start, track)[0]["param_names"]
    ours, theirs = dict(model.named_parameters()), dict(start.named_parameters())
    moved = joint_norm([ours[name] - theirs[name] for name in names], 2.0)
    return float(moved / joint_norm([theirs[name] for name in names], 2.0))


class _Observer:
    """Measure a model after every epoch of a repair, and the time that the measurements take."""

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
        measured = evaluate(model, self.test.batches(TEST_BATCH), self.attack)
        assert measured.asr is not None
        self.curve.epochs.append(epoch)
        self.curve.acc.append(measured.acc)
        self.curve.asr.append(measured.asr)
        self.curve.distance.append(relative_distance(model, self.start, self.track))


def run_seed(
    preset: BenchmarkPreset,
    seed: int,
    *,
    data_dir: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> DemoRun:
    """Train, backdoor, repair and measure the models of one seed.

    Args:
        preset: of ``DEMO_PRESETS``: one model, one attack, D3 among the defences.
        seed: draws the split, the weights, the poisoned images and the order of batches.
        data_dir: folder of the data set's files, where it has files.
        device: device of all models.
        progress: show progress bars.

    Raises:
        ValueError: data missing or damaged; a trigger whose clean-model floor is above 20 %.
    """
    where = resolve_device(device)
    (suspects,), (attacked,) = preset.suspects, preset.suspects[0].attacks
    spec = suspects.spec(seed, *attacked)
    splits = spec.splits(data_dir).to(where)
    test = splits.test.batches(TEST_BATCH)
    clean, clean_seconds = train_model(spec, splits, None, device=where, progress=progress)
    suspect = implant(spec, splits, clean, device=where, progress=progress)
    if suspect.violation is not None:
        raise ValueError(suspect.violation)
    assert suspect.model is not None
    assert suspect.measured is not None
    assert suspect.clean is not None
    floor, before, attack = suspect.clean, suspect.measured, suspect.attack
    rows = [
        _row(seed, CLEAN_MODEL, floor, floor, None, None, clean_seconds),
        _row(seed, BACKDOORED, before, floor, None, 0.0, suspect.seconds),
    ]
    models = {CLEAN_MODEL: clean, BACKDOORED: suspect.model}
    samples, _, _ = defender_samples(splits.clean, preset.clean, preset.held_out, seed)
    defenses: dict[str, Any] = {defense.label: defense.build(seed) for defense in preset.defenses}
    d3 = next(defense.config for defense in defenses.values() if isinstance(defense, D3))
    curves = {}
    shown = splits.test.subset(torch.arange(min(_CURVE_IMAGES, len(splits.test))))
    for label, defense in defenses.items():
        observer = _Observer(suspect.model, shown, attack, d3.track)
        result = repair_model(
            replace(defense, on_epoch=observer),
            suspect.model,
            samples,
            None,
            batch_size=preset.batch_size,
            augment=None,
            seed=seed,
            device=where,
            progress=progress,
        )
        models[label], curves[label] = result.model, observer.curve
        after = evaluate(result.model, test, attack)
        distance = relative_distance(result.model, suspect.model, d3.track)
        seconds = result.seconds - observer.seconds
        rows.append(_row(seed, label, after, floor, before, distance, seconds))
    return DemoRun(seed, tuple(rows), curves, models, attack, splits.test, samples, d3)


def _row(
    seed: int,
    label: str,
    measured: Metrics,
    floor: Metrics,
    before: Metrics | None,
    distance: float | None,
    seconds: float,
) -> DemoRow:
    """Return the row of one model; only a repaired one is compared with the model ``before``."""
    assert floor.asr is not None
    numbers = compared(before or measured, measured, floor.asr)
    if before is None:
        numbers |= {"acc_loss": None, "der": None}
    return DemoRow(
        seed=seed,
        model=label,
        floor=floor.asr,
        ra_ceiling=floor.ra,
        distance=distance,
        seconds=seconds,
        **numbers,
    )


def shortfalls(rows: Sequence[DemoRow]) -> list[str]:
    """Return where D3 missed the goal of the demo: one line per seed and number, in points."""
    lines = []
    for row in rows:
        if row.model != REPAIRED:
            continue
        for name, value, limit in (
            ("lift", row.lift, MAX_LIFT),
            ("ACC loss", row.acc_loss, MAX_ACC_LOSS),
        ):
            if value is not None and 100 * value > limit:
                goal = f"goal <= {shortest(limit)}"
                lines.append(f"seed {row.seed}: {name} {percent(value)} points, {goal}")
    return lines
