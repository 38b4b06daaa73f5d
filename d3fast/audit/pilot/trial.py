# SPDX-License-Identifier: Apache-2.0
"""Jobs of a pilot: search the suspect's triggers, repair with one setting, measure.

A repair is given the samples of the repair part and nothing else. What comes out is measured on
the held-out part: accuracy, and how many images of other classes answer an inverted trigger's
class. A trigger of the user's own, where there is one, is looked at in ``measured`` alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from d3fast.audit.anomaly import outliers
from d3fast.audit.inversion import Inversion, invert_all
from d3fast.audit.pilot.options import PilotOptions, Setting
from d3fast.data import Augment, ImageData
from d3fast.detox import D3Config, detoxify, repair_samples
from d3fast.detox.config import AUTO
from d3fast.optim.blocks import restart_depths
from d3fast.results.schema.pilot import FailedRow, PilotSuspectRow, TrialRow
from d3fast.spectrum.distances import distance_profile, total_distance
from d3fast.training.intervals import wilson
from d3fast.training.metrics import Metrics, Trigger, evaluate
from d3fast.training.paired import correct_answers

Row = dict[str, Any]
_BATCH = 1000


@dataclass(frozen=True, eq=False)
class TrialContext:
    """Everything that the jobs of a pilot share.

    Attributes:
        model: the suspect.
        repair: clean samples to repair with, and to search triggers on.
        held_out: clean samples to measure on.
        options: of the pilot.
        base: configuration of a repair; a trial changes the three parameters it tries.
        augment: augmentation of a batch of the repair; ``usual_augment`` if ``None``.
        attack: a trigger of the user's own.
        device: where to compute.
    """

    model: nn.Module
    repair: ImageData
    held_out: ImageData
    options: PilotOptions
    base: D3Config
    augment: Augment | None = None
    attack: Trigger | None = None
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    def to(self, device: torch.device) -> "TrialContext":
        """Return a copy on a device; the model is in eval mode."""
        return replace(
            self,
            model=copy.deepcopy(self.model).to(device).eval(),
            repair=self.repair.to(device),
            held_out=self.held_out.to(device),
            device=device,
        )


@dataclass(frozen=True)
class SearchJob:
    """Search the suspect's smallest patches for some classes.

    Attributes:
        targets: the classes.
    """

    targets: Sequence[int]
    kind: ClassVar[str] = "search"

    @property
    def name(self) -> str:
        """The classes."""
        return f"search-{'-'.join(map(str, self.targets))}"

    def run(self, context: TrialContext, progress: bool) -> tuple[Inversion, ...]:
        """Return one patch per class, on the CPU."""
        found = invert_all(
            context.model,
            context.repair.batches(_BATCH),
            self.targets,
            options=context.options.inversion,
            device=context.device,
            seed=context.base.seed,
            progress=False,
        )
        return tuple(replace(one, mask=one.mask.cpu(), pattern=one.pattern.cpu()) for one in found)


@dataclass(frozen=True)
class SuspectJob:
    """Measure the suspect itself.

    Attributes:
        patches: the suspect's inverted triggers.
    """

    patches: tuple[Inversion, ...]
    kind: ClassVar[str] = "suspect"

    @property
    def name(self) -> str:
        """The suspect."""
        return "suspect"

    def run(self, context: TrialContext, progress: bool) -> Row:
        """Return the row of the suspect."""
        return PilotSuspectRow(
            **measured(context, context.model, self.patches),
            targets=tuple(patch.target for patch in self.patches),
        ).to_row()


@dataclass(frozen=True)
class TrialJob:
    """Repair the suspect with one setting on one rung, and measure the result.

    Attributes:
        number: of the setting.
        setting: what is tried.
        rung: from 0.
        epochs: of the repair.
        patches: the suspect's inverted triggers.
    """

    number: int
    setting: Setting
    rung: int
    epochs: int
    patches: tuple[Inversion, ...]
    kind: ClassVar[str] = "trial"

    @property
    def name(self) -> str:
        """The setting and the rung."""
        return f"trial-{self.number}-rung-{self.rung}"

    def run(self, context: TrialContext, progress: bool) -> Row:
        """Return the row of the trial.

        A setting whose repair fails (its loss becomes infinite) gives a row of kind ``failed``.
        """
        plain: Any = {"patience": 0, "max_acc_drop": None, "recovery": 0}
        if context.base.restart == AUTO:  # the first that an automatic restart tries
            plain["restart"] = restart_depths(context.model)[0]
        config = self.setting.config(context.base, epochs=self.epochs, **plain)
        samples = repair_samples(
            context.repair,
            batch_size=context.options.batch_size,
            augment=context.augment,
            seed=config.seed,
        )
        row: Row = {
            "trial": self.number,
            "rung": self.rung,
            "epochs": self.epochs,
            **vars(self.setting),
        }
        try:
            result = detoxify(
                context.model, samples.loader, config, device=context.device, progress=False
            )
        except ValueError as error:
            return FailedRow(**row, reason=str(error)).to_row()
        moved = total_distance(distance_profile(context.model, result.model, config.track))
        return TrialRow(
            **row,
            **measured(context, result.model, self.patches),
            distance=moved.relative or 0.0,
            seconds=result.seconds,
        ).to_row()


def suspicious(found: Sequence[Inversion]) -> tuple[tuple[Inversion, ...], bool]:
    """Return the outliers among patches, or the smallest patch; and ``True`` for the former.

    Example:
        >>> size = torch.zeros(1, 1, 1)
        >>> found = [Inversion(i, size, size, norm, 1.0) for i, norm in enumerate([9, 2, 8, 10])]
        >>> [patch.target for patch in suspicious(found)[0]]
        [1]
    """
    norms = [patch.norm for patch in found]
    flagged = outliers(norms)
    chosen = flagged or (min(range(len(norms)), key=norms.__getitem__),)
    return tuple(found[index] for index in chosen), bool(flagged)


def measured(context: TrialContext, model: nn.Module, patches: Sequence[Inversion]) -> Row:
    """Return ACC, both kinds of ASR and their lifts of a model on the held-out samples."""

    def counts(trigger: Any, target: int | None = None) -> Metrics:
        held_out = context.held_out.batches(_BATCH)
        return evaluate(model, held_out, trigger, context.device, target=target, name="held_out")

    stamped = [counts(patch.apply, patch.target) for patch in patches]
    hits, shown = sum(m.hits for m in stamped), sum(m.triggered for m in stamped)
    without = sum(m.untriggered_hits or 0 for m in stamped)
    plain = counts(context.attack)
    answers = [
        correct_answers(each, context.held_out.batches(_BATCH), context.device, name="held_out")
        for each in (context.model, model)
    ]
    low, high = wilson(plain.correct, plain.images)
    return {
        "acc": plain.acc,
        "correct": plain.correct,
        "samples": plain.images,
        "both": int((answers[0] & answers[1]).sum()),
        "acc_low": low,
        "acc_high": high,
        "inversion_asr": hits / shown if shown else None,
        "asr": plain.asr,
        "inversion_lift": (hits - without) / shown if shown else None,
        "lift": plain.lift,
    }
