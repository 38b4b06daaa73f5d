# SPDX-License-Identifier: Apache-2.0
"""The step of an audit that repairs the suspect: D3, measured before and after, and card.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3fast.audit.check import inspect_audit
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.report import card
from d3fast.audit.resolve import CARD, Audit
from d3fast.audit.trigger import check_trigger
from d3fast.data import ImageData, fingerprint
from d3fast.detox import (
    Checkpointing,
    D3Config,
    DetoxResult,
    detoxify,
    repair_samples,
    usual_augment,
)
from d3fast.detox.config import SEARCHES
from d3fast.detox.run import OnEpoch
from d3fast.detox.samples import BATCH_SIZE, Samples, Unlabelled
from d3fast.hub import TextInput
from d3fast.hub.samples import Data
from d3fast.io.files import weights_digest
from d3fast.results.schema.audit import Role
from d3fast.results.store import Results
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import Metrics, Trigger
from d3fast.training.paired import PairedAccuracy, correct_answers, resolved_limit

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RepairOptions:
    """Options of a repair beside those of the method.

    Attributes:
        config: of the method.
        preset: name of that configuration.
        limited: ``config.max_acc_drop`` was set by the user and holds as it is. Otherwise it is
            raised to what the held-out samples can resolve.
        batch_size: samples per step.
        flip: augment with mirrored samples.
        held_out: share of the samples that no gradient sees.
        inspection: of the models before and after; ``None`` leaves it out.
    """

    config: D3Config
    preset: str = "auto"
    limited: bool = False
    batch_size: int = BATCH_SIZE
    flip: bool = False
    held_out: float = 0.25
    inspection: InspectOptions | None = InspectOptions()  # noqa: RUF009 - frozen


@dataclass(frozen=True, eq=False)
class Repair:
    """A repair that has been prepared: samples are split and measured, nothing is trained yet.

    Attributes:
        audit: the suspect.
        options: of the repair.
        parts: samples to repair with, and held-out samples.
        samples: loader over the former.
        unlabelled: loader over samples without labels; the suspect's answers are learned.
        trigger: a known trigger, for measurements alone.
        before: of the suspect on the held-out samples.
        answers: which of them the suspect answers correctly.
    """

    audit: Audit
    options: RepairOptions
    parts: tuple[Data, Data]
    samples: Samples
    trigger: Trigger | None
    before: Metrics
    answers: Tensor
    unlabelled: Unlabelled | None = None

    @property
    def identity(self) -> str:
        """What a state to resume must agree on beside model and configuration."""
        facts, chosen = self.audit.settings(), self.options
        known = f"{facts['samples_sha256']} {chosen.held_out} {chosen.batch_size} {chosen.flip}"
        more = self.unlabelled
        return known if more is None else f"{known} {fingerprint(more.data)}"

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """Generators of the loaders, whose state a resumed repair needs."""
        more = () if self.unlabelled is None else (self.unlabelled.draw,)
        return (*self.samples.generators, *more)

    @property
    def limit(self) -> float | None:
        """Points of held-out accuracy that may be lost, no finer than the samples resolve."""
        asked = self.options.config.max_acc_drop
        if self.options.limited or asked is None:
            return asked
        return resolved_limit(asked, self.before.correct, self.before.images)

    def run(
        self,
        suspect_rows: Sequence[Mapping[str, Any]] = (),
        *,
        checkpointing: Checkpointing | None = None,
        on_epoch: OnEpoch | None = None,
        progress: bool = True,
    ) -> "Repaired":
        """Repair, measure and inspect.

        Args:
            suspect_rows: of an earlier inspection of the suspect, which is not repeated.
            checkpointing: save the state after every epoch, and resume from it.
            on_epoch: called after every epoch; see ``detoxify``.
            progress: show progress bars.

        Raises:
            ValueError: what ``detoxify`` and ``inspect_model`` raise.
        """
        held_out = self.parts[1]
        result = detoxify(
            self.audit.model,
            self.samples.loader,
            self.options.config,
            held_out.batches(BATCH_SIZE),
            progress=progress,
            on_epoch=on_epoch,
            checkpointing=checkpointing,
            unlabelled=self.unlabelled,
        )
        after = card.measured(result.model, held_out, self.trigger)
        answers = correct_answers(result.model, held_out.batches(BATCH_SIZE))
        pair = PairedAccuracy.of(self.answers, answers)
        inspected = self._inspect(result, suspect_rows, progress)
        return Repaired(self, result, after, pair, inspected)

    def _inspect(
        self, result: DetoxResult, earlier: Sequence[Mapping[str, Any]], progress: bool
    ) -> Rows:
        """Return the rows of the inspections before and after, without those of the models."""
        options, rows = self.options.inspection, [dict(row) for row in earlier]
        if options is None:
            return rows
        models: dict[Role, Any] = {} if earlier else {"suspect": self.audit.model}
        for role, model in {**models, "repaired": result.model}.items():
            found = inspect_audit(self.audit, options, model=model, progress=progress)
            named = [target for r in rows if r["kind"] == "verdict" for target in r["targets"]]
            every = found.rows(role, sha256="", pictured=named)
            rows += [row for row in every if row["kind"] != "model"]
        return rows


@dataclass(frozen=True, eq=False)
class Repaired:
    """A finished repair.

    Attributes:
        repair: what it began with.
        result: of ``detoxify``.
        after: of the repaired model on the held-out samples.
        pair: both models on the same held-out samples.
        inspected: rows of the inspections before and after.
    """

    repair: Repair
    result: DetoxResult
    after: Metrics
    pair: PairedAccuracy
    inspected: Rows

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the repaired weights in the suspect's format, and card.json.

        Args:
            folder: it exists; see ``written_together``.

        Returns:
            The path of the weights, a file or a folder, and that of card.json.
        """
        repair, audit = self.repair, self.repair.audit
        weights = audit.suspect.save(self.result.model, folder, self.result.config)
        output = {"output": weights.name, "output_sha256": weights_digest(weights)}
        options, sizes = repair.options, (len(repair.parts[0]), len(repair.parts[1]))
        searched = options.config.restart in SEARCHES
        row = card.repair_row(
            audit, self.result, options.preset, searched, self.pair, repair.limit, output, sizes
        )
        rows = [
            card.model_row("suspect", audit.model, repair.before, audit.sha256),
            card.model_row("repaired", self.result.model, self.after, output["output_sha256"]),
            row,
            *card.epoch_rows(self.result),
            card.distance_row(audit.model, self.result.model),
        ]
        used = {"batch_size": options.batch_size, "held_out": options.held_out, "seed": audit.seed}
        more = None if repair.unlabelled is None else repair.unlabelled.data
        settings = {
            **audit.settings(),
            "unlabelled": 0 if more is None else len(more),
            "unlabelled_sha256": None if more is None else fingerprint(more),
            "config": self.result.config.record(),
            "options": {**used, "preset": options.preset, "flip": options.flip},
        }
        document = Results(
            _command(audit, used), settings, [*(row.to_row() for row in rows), *self.inspected]
        )
        document.write(folder / CARD)
        return weights, folder / CARD


def _command(audit: Audit, used: Mapping[str, Any]) -> str:
    """Return the command line without the names of the user's folders."""
    parts = [f"--{key.replace('_', '-')} {value}" for key, value in used.items()]
    weights = "" if audit.checkpoint == audit.spec else f"--checkpoint {audit.checkpoint} "
    return f"d3fast detox --model {audit.spec} {weights}{' '.join(parts)}"


def prepare_repair(
    audit: Audit,
    options: RepairOptions,
    trigger: Trigger | None = None,
    unlabelled: Data | None = None,
) -> Repair:
    """Split and measure the samples of a repair.

    Args:
        audit: the suspect and its clean samples.
        options: of the repair.
        trigger: a known trigger; it is measured and never used in the repair.
        unlabelled: more clean samples, whose labels are not read.

    Raises:
        ValueError: samples that cannot be split; a trigger that does not fit them.
    """
    repair, held_out = audit.parts(options.held_out)
    if trigger is not None:
        words = audit.suspect.input
        known = len(words.tokenizer) if isinstance(words, TextInput) else None
        check_trigger(trigger, held_out, known)
    augment = usual_augment(repair.shape, options.flip) if isinstance(repair, ImageData) else None
    samples = repair_samples(
        repair, batch_size=options.batch_size, augment=augment, seed=audit.seed
    )
    more = None
    if unlabelled is not None:
        draw = generator(audit.seed, "unlabelled samples")
        more = Unlabelled(unlabelled, options.batch_size, augment, draw)
    before = card.measured(audit.model, held_out, trigger)
    answers = correct_answers(audit.model, held_out.batches(BATCH_SIZE))
    return Repair(audit, options, (repair, held_out), samples, trigger, before, answers, more)
