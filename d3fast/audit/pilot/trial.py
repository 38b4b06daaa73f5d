# SPDX-License-Identifier: Apache-2.0
"""What workers do: search the suspect's triggers, repair with one setting, measure.

A repair is given the samples of the repair part and nothing else. What comes out is measured on
the held-out part: accuracy, and how many images of other classes answer an inverted trigger's
class. A trigger of the user's own, where there is one, is looked at in ``measured`` alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from d3fast.audit.anomaly import outliers
from d3fast.audit.inversion import Inversion, invert_all
from d3fast.audit.pilot.options import PilotOptions, Setting
from d3fast.data import Augment, ImageData
from d3fast.detox import D3Config, detoxify, repair_samples
from d3fast.spectrum.distances import distance_profile, total_distance
from d3fast.training.metrics import Metrics, Trigger, evaluate, wilson

Row = dict[str, Any]
_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Bench:
    """All that a worker needs.

    Attributes:
        model: the suspect.
        repair: clean samples to repair with, and to search triggers on.
        held_out: clean samples to measure on.
        options: of the pilot.
        base: all choices of a repair but the three that are tried.
        augment: what is done to a batch of the repair; ``usual_augment`` if ``None``.
        attack: a trigger of the user's own.
    """

    model: nn.Module
    repair: ImageData
    held_out: ImageData
    options: PilotOptions
    base: D3Config
    augment: Augment | None = None
    attack: Trigger | None = None

    def to(self, device: torch.device) -> "Bench":
        """A copy on a device; the model is in eval mode."""
        model = copy.deepcopy(self.model).to(device).eval()
        return replace(
            self, model=model, repair=self.repair.to(device), held_out=self.held_out.to(device)
        )


@dataclass(frozen=True)
class Trial:
    """One setting on one rung.

    Attributes:
        number: of the setting.
        setting: what is tried.
        rung: from 0.
        epochs: of the repair.
        patches: what the suspect's inverted triggers are.
    """

    number: int
    setting: Setting
    rung: int
    epochs: int
    patches: tuple[Inversion, ...]


def search(bench: Bench, device: torch.device, targets: Sequence[int]) -> tuple[Inversion, ...]:
    """The suspect's smallest patches for some classes, on the CPU."""
    found = invert_all(
        bench.model,
        bench.repair.batches(_AT_ONCE),
        targets,
        options=bench.options.inversion,
        device=device,
        seed=bench.base.seed,
        progress=False,
    )
    return tuple(replace(one, mask=one.mask.cpu(), pattern=one.pattern.cpu()) for one in found)


def suspicious(found: Sequence[Inversion]) -> tuple[tuple[Inversion, ...], bool]:
    """The patches to watch: those that are outliers, or the smallest; and whether it is the former.

    Example:
        >>> size = torch.zeros(1, 1, 1)
        >>> found = [Inversion(i, size, size, norm, 1.0) for i, norm in enumerate([9, 2, 8, 10])]
        >>> [patch.target for patch in suspicious(found)[0]]
        [1]
    """
    norms = [patch.norm for patch in found]
    flagged = outliers(norms)
    chosen = flagged or (min(range(len(norms)), key=norms.__getitem__),)
    return tuple(found[place] for place in chosen), bool(flagged)


def measured(
    bench: Bench, device: torch.device, model: nn.Module, patches: Sequence[Inversion]
) -> Row:
    """ACC and both kinds of ASR of a model on the held-out samples."""

    def counts(trigger: Any, target: int | None = None) -> Metrics:
        held_out = bench.held_out.batches(_AT_ONCE)
        return evaluate(model, held_out, trigger, device, target=target, name="held_out")

    stamped = [counts(patch.apply, patch.target) for patch in patches]
    hits, shown = sum(m.hits for m in stamped), sum(m.triggered for m in stamped)
    plain = counts(bench.attack)
    low, high = wilson(plain.correct, plain.images)
    return {
        "acc": plain.acc,
        "correct": plain.correct,
        "samples": plain.images,
        "acc_low": low,
        "acc_high": high,
        "inversion_asr": hits / shown if shown else None,
        "asr": plain.asr,
    }


def measure_suspect(bench: Bench, device: torch.device, patches: Sequence[Inversion]) -> Row:
    """The suspect's own row."""
    return {
        "kind": "suspect",
        **measured(bench, device, bench.model, patches),
        "targets": [patch.target for patch in patches],
    }


def run_trial(bench: Bench, device: torch.device, trial: Trial) -> Row:
    """Repair with one setting, from the suspect on, and measure.

    A setting whose repair fails (its loss becomes infinite) gives a row of kind ``failed``.
    """
    plain: Any = {"patience": 0, "max_acc_drop": None, "recovery": 0}
    config = trial.setting.config(bench.base, epochs=trial.epochs, **plain)
    samples = repair_samples(
        bench.repair, batch_size=bench.options.batch_size, augment=bench.augment, seed=config.seed
    )
    row = {"trial": trial.number, "rung": trial.rung, "epochs": trial.epochs, **vars(trial.setting)}
    try:
        result = detoxify(bench.model, samples.loader, config, device=device, progress=False)
    except ValueError as error:
        return {"kind": "failed", **row, "reason": str(error)}
    moved = total_distance(distance_profile(bench.model, result.model, config.track))
    return {
        "kind": "trial",
        **row,
        **measured(bench, device, result.model, trial.patches),
        "distance": moved.relative or 0.0,
        "seconds": result.seconds,
    }
