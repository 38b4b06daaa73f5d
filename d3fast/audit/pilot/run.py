# SPDX-License-Identifier: Apache-2.0
"""``run_pilot``: many short repairs side by side, to choose the settings of a long one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from d3fast.audit.inversion import class_groups
from d3fast.audit.pilot.advice import going_on, recommendation, sensitivity, with_front
from d3fast.audit.pilot.halving import ladder
from d3fast.audit.pilot.options import PilotOptions, Setting, draw_settings
from d3fast.audit.pilot.trial import (
    SearchJob,
    SuspectJob,
    TrialContext,
    TrialJob,
    suspicious,
)
from d3fast.audit.trigger import check_trigger
from d3fast.data import Augment, ImageData
from d3fast.detox import D3Config
from d3fast.results.engine import run_jobs
from d3fast.results.engines import LOCAL, EngineChoice
from d3fast.results.jobs import Job
from d3fast.runtime.progress import progress_bar
from d3fast.training.metrics import Trigger

Row = dict[str, Any]
# Few, so that workers share the classes; more than one, so that a GPU is busy.
_CLASSES_AT_ONCE = 5


@dataclass(frozen=True)
class Pilot:
    """Results of a pilot, possibly an unfinished one.

    Attributes:
        rows: of kinds ``suspect``, ``trial`` (one per setting and rung), ``failed`` (in its
            place), ``sensitivity`` and ``recommendation``; docs/pilot.md describes their fields.
        rungs: (settings, epochs) of every planned rung.
        done: number of complete rungs.
        base: configuration of a repair, without the three tried parameters.
        seconds: since the pilot began.
    """

    rows: tuple[Row, ...]
    rungs: tuple[tuple[int, int], ...]
    done: int
    base: D3Config
    seconds: float

    def of(self, kind: str) -> list[Row]:
        """The rows of one kind."""
        return [row for row in self.rows if row["kind"] == kind]

    @property
    def finished(self) -> bool:
        """All rungs are complete."""
        return self.done == len(self.rungs)

    @property
    def recommended(self) -> Row:
        """The row of the recommended setting."""
        (row,) = self.of("recommendation")
        return row

    @property
    def config(self) -> D3Config:
        """The configuration of a full repair with the recommended setting, for ``detoxify``."""
        names = ("distance_weight", "clean_weight", "epsilon")
        return Setting(*(self.recommended[name] for name in names)).config(self.base)


def run_pilot(
    model: nn.Module,
    repair: ImageData,
    held_out: ImageData,
    *,
    options: PilotOptions | None = None,
    base: D3Config | None = None,
    attack: Trigger | None = None,
    augment: Augment | None = None,
    devices: Sequence[str] = ("cpu",),
    engine: EngineChoice = LOCAL,
    progress: bool = True,
    on_rung: Callable[[Pilot], None] | None = None,
) -> Pilot:
    """Compare settings of (w, lambda, epsilon) by short repairs, the better ones by longer ones.

    Successive halving (Jamieson and Talwalkar, AISTATS 2016) over (accuracy on held-out samples,
    lift of inverted triggers): see ``audit.pilot.halving``. Every trial starts
    from the suspect with the same seed.

    Args:
        model: the suspect; gives (N, classes) scores of images in [0, 1]. It is not changed.
        repair: clean samples to repair with, and to search triggers on.
        held_out: other clean samples, to measure on.
        options: of the pilot; ``PilotOptions()`` if ``None``.
        base: configuration of a repair; ``D3Config.auto()`` if ``None``. Trials keep lambda fixed
            and neither end early nor recover.
        attack: a trigger of the user's own. It is measured and enters the recommendation, but not
            the choice of the settings that continue.
        augment: augmentation of a batch of the repair; ``d3fast.detox.usual_augment`` if ``None``.
        devices: one worker each, in processes of their own if there are several; a name may be
            repeated. On CPUs the numbers do not depend on how many there are.
        engine: where the workers are; results travel without files.
        progress: show a progress bar.
        on_rung: called with the results so far after every rung.

    Raises:
        ValueError: parts without images or of different classes; a trigger that does not fit the
            images; more than one device for a model that cannot be pickled; what ``detoxify``
            and ``invert_all`` raise.
        OSError: a worker was ended from outside.

    Example:
        >>> import torch
        >>> from d3fast.audit.inversion import InversionOptions
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> data = ImageData(torch.rand(24, 1, 2, 2), torch.arange(24) % 3, ("a", "b", "c"))
        >>> options = PilotOptions(trials=3, epochs=2, inversion=InversionOptions(steps=10))
        >>> pilot = run_pilot(model, data, data, options=options, progress=False)
        >>> pilot.rungs, len(pilot.of("trial")), pilot.config.clean_weight > 0
        (((3, 1), (2, 2)), 5, True)
    """
    started, options = time.perf_counter(), options or PilotOptions()
    base = base or D3Config.auto()
    _check(repair, held_out, attack)
    context = TrialContext(model, repair, held_out, options, base, augment, attack)
    rungs = tuple(ladder(options.trials, options.epochs, options.rungs, options.factor))
    targets = class_groups(range(len(repair.classes)), _CLASSES_AT_ONCE)
    settings = draw_settings(options, base.seed, Setting.of(base))
    steps = len(targets) + sum(count for count, _ in rungs)
    with (
        progress_bar("inverting triggers", steps, progress) as advance,
        engine.start(context, devices, threads=options.threads) as workers,
    ):

        def results(jobs: Sequence[Job], title: str) -> list[Any]:
            return run_jobs(jobs, workers, progress=False, on_row=lambda *_: advance(title))

        found = results([SearchJob(part) for part in targets], "inverting triggers")
        patches, flagged = suspicious([patch for part in found for patch in part])
        (suspect,) = run_jobs([SuspectJob(patches)], workers, progress=False)
        suspect["flagged"] = flagged
        trials, failed = list[Row](), list[Row]()
        numbers = list(range(len(settings)))
        for rung, (_, epochs) in enumerate(rungs):
            jobs = [TrialJob(i, settings[i], rung, epochs, patches) for i in numbers]
            rows = results(jobs, f"repairs of {epochs} epochs")
            failed += [row for row in rows if row["kind"] == "failed"]
            rows = with_front([row for row in rows if row["kind"] == "trial"])
            if not rows:
                raise ValueError(f"no setting could be repaired with: {failed[-1]['reason']}")
            trials += rows
            seconds = time.perf_counter() - started
            pilot = _so_far(suspect, trials, failed, rungs, options, base, seconds)
            if on_rung is not None:
                on_rung(pilot)
            if not pilot.finished:
                numbers = going_on(rows, rungs[rung + 1][0])
    return pilot


def _so_far(
    suspect: Row,
    trials: Sequence[Row],
    failed: Sequence[Row],
    rungs: tuple[tuple[int, int], ...],
    options: PilotOptions,
    base: D3Config,
    seconds: float,
) -> Pilot:
    """Return the results after the last complete rung."""
    last = trials[-1]["rung"]
    advice = recommendation(
        suspect, [row for row in trials if row["rung"] == last], options.max_acc_drop, base.epochs
    )
    matters = sensitivity([row for row in trials if row["rung"] == 0])
    rows = (suspect, *trials, *failed, *matters, advice)
    return Pilot(rows, rungs, last + 1, base, seconds)


def _check(repair: ImageData, held_out: ImageData, attack: Trigger | None) -> None:
    for name, part in (("repair", repair), ("held_out", held_out)):
        if not len(part):
            raise ValueError(f"{name} must hold clean samples, got none")
    if repair.classes != held_out.classes or repair.shape != held_out.shape:
        raise ValueError("repair and held_out must be of the same classes and shape")
    if attack is not None:
        check_trigger(attack, held_out)
