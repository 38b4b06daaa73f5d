# SPDX-License-Identifier: Apache-2.0
"""``d3fast repair``: inspect, repair and inspect again; write the model, its card and the page."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d3fast.audit import InspectOptions
from d3fast.audit.budget import plan_inspection, plan_repair
from d3fast.audit.check import inspect_audit, inspection_document
from d3fast.audit.repair import Repair, RepairOptions
from d3fast.audit.repair_folder import STATE, repair_in_folder, state_file
from d3fast.audit.report.card import inspected_before, suspect_rows
from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.model_card import README, write_section
from d3fast.audit.report.page import write_audit_page
from d3fast.audit.report.record import RECORD, record_of, write_record
from d3fast.audit.resolve import INSPECTION, PAGE, Audit
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.detox import Resume, finish, repair_log
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.gate import GateOptions
from d3fast.cli.inspect import InspectionOptions
from d3fast.cli.method import MethodOptions
from d3fast.cli.output import Output
from d3fast.integrations.epoch_log import parse_trackers
from d3fast.results.store import Results

_INSPECTION_SHARE = 0.2  # of a budget, for each of the two inspections


def repair(
    model: options.ModelArgument,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    inspection: InspectionOptions,
    method: MethodOptions,
    config: ConfigFile,
    output: Output,
    gate: GateOptions,
    out: options.Out = None,
    resume: Resume = False,
    log: options.Log = None,
    budget_minutes: options.Budget = None,
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Repair a model with a few clean samples, into the format it came in; write a page.

    Exit code 1 if the repaired model shows signs of a backdoor, 3 if the accuracy limit is missed.
    """
    started = time.perf_counter()
    chosen = method.chosen(config.config, seed, inspection.chosen())
    fails, trackers = parse_fail_on(fail_on), parse_trackers(log)
    gate.check()
    if resume and budget_minutes is not None:
        raise ValueError("budget-minutes has no effect with resume: give the epochs instead")
    audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
    budget = None if budget_minutes is None else _Budget(budget_minutes, started, output)
    chosen = chosen if budget is None else budget.inspections(audit, chosen)
    prepared = method.prepare(audit, chosen, reading)
    folder = options.audit_folder(out, audit)
    state_file(folder, resume)
    document, earlier = _suspect(audit, chosen.inspection, folder, output)
    prepared = prepared if budget is None else budget.epochs(prepared)
    said = list[str]()

    def beside(place: Path) -> None:
        if document is not None:
            document.write(place / INSPECTION)
        said.extend(write_audit_page(folder, place / PAGE, newer=place))
        said.extend(_model_card(folder, place))
        write_record(place, record_of(folder, place))

    try:
        with repair_log(trackers, prepared, folder, resume=resume) as on_epoch:
            _, weights = repair_in_folder(
                prepared,
                folder,
                resume=resume,
                suspect_rows=earlier,
                beside=beside,
                on_epoch=on_epoch,
                progress=output.bars,
            )
    except KeyboardInterrupt:
        if (folder / STATE).exists():
            output.say(f"{folder / STATE} has the state: the same command with --resume continues.")
        raise
    output.say(*said)
    written = [weights.name, PAGE, RECORD, *gate.write(folder, model)]
    finish(folder, ", ".join(written), output, fails)


def _model_card(folder: Path, place: Path) -> list[str]:
    """Write the section of a hub folder's README.md; return a sentence where that cannot be."""
    audit = read_audit(folder, place)
    if audit.card is None or not (place / audit.card.repair.output).is_dir():
        return []
    try:
        write_section(place / audit.card.repair.output, facts_of(audit), audit.card)
    except ValueError as error:  # a stranger's file, which must not cost the repair
        return [f"{README} of the model has no section about the repair: {error}."]
    return []


@dataclass(frozen=True)
class _Budget:
    """A budget of minutes, and the plans that fit into what is left of it."""

    minutes: float
    started: float
    output: Output

    def _say(self, cut: Sequence[str]) -> None:
        self.output.notes([f"to fit {self.minutes:g} minutes, {clause}" for clause in cut])

    def inspections(self, audit: Audit, wanted: RepairOptions) -> RepairOptions:
        """Fit both inspections."""
        if wanted.inspection is None:
            return wanted
        share = _INSPECTION_SHARE * 60 * self.minutes
        chosen, cut = plan_inspection(audit, wanted.inspection, share)
        self._say(cut)
        return replace(wanted, inspection=chosen)

    def epochs(self, prepared: Repair) -> Repair:
        """Fit the repair between now and the second inspection."""
        left = (1 - _INSPECTION_SHARE) * 60 * self.minutes - (time.perf_counter() - self.started)
        chosen, cut = plan_repair(prepared, left)
        self._say(cut)
        return chosen


def _suspect(
    audit: Audit, inspection: InspectOptions | None, folder: Path, output: Output
) -> tuple[Results | None, Sequence[Mapping[str, Any]]]:
    """Return the rows of the suspect's inspection, and its document if the folder lacks it."""
    earlier = inspected_before(folder / INSPECTION, audit.settings())
    if earlier or inspection is None:
        return None, earlier
    found = inspect_audit(audit, inspection, progress=output.bars)
    document = inspection_document(audit, found, inspection)
    return document, suspect_rows(document.rows)
