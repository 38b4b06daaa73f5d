# SPDX-License-Identifier: Apache-2.0
"""``d3fast detox``: parse options, repair a model, write weights and card.json together."""

from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit import InspectOptions
from d3fast.audit.repair import Repair
from d3fast.audit.repair_folder import repair_in_folder, save_partial
from d3fast.audit.report.card import inspected_before, print_card
from d3fast.audit.report.documents import parse_card
from d3fast.audit.report.verdict import backdoored
from d3fast.audit.resolve import CARD, INSPECTION
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.method import MethodOptions
from d3fast.cli.output import Output
from d3fast.integrations.epoch_log import EpochLog, epoch_log, parse_trackers
from d3fast.results.store import read_results

Resume = Annotated[bool, typer.Option(help="Continue an interrupted repair.")]


def detox(
    model: options.Model,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    method: MethodOptions,
    config: ConfigFile,
    output: Output,
    out: options.Out = None,
    inspect: Annotated[bool, typer.Option(help="Inspect the model before and after.")] = True,
    resume: Resume = False,
    log: options.Log = None,
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Repair a model with a few clean samples; write the weights and a card of the repair.

    Exit code 1 if the repaired model shows signs of a backdoor, 3 if the accuracy limit is missed.
    """
    chosen = method.chosen(config.config, seed, InspectOptions() if inspect else None)
    fails, trackers = parse_fail_on(fail_on), parse_trackers(log)
    audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
    repair = method.prepare(audit, chosen, reading)
    folder = options.audit_folder(out, audit)
    earlier = inspected_before(folder / INSPECTION, audit.settings()) if inspect else []
    try:
        with repair_log(trackers, repair, folder, resume=resume) as on_epoch:
            _, weights = repair_in_folder(
                repair,
                folder,
                resume=resume,
                suspect_rows=earlier,
                on_epoch=on_epoch,
                progress=output.bars,
            )
    except KeyboardInterrupt:
        output.say(save_partial(repair, folder))
        raise
    finish(folder, weights.name, output, fails)


def repair_log(
    trackers: Sequence[str], repair: Repair, folder: Path, *, resume: bool
) -> AbstractContextManager[EpochLog | None]:
    """Return the log of a repair, in the folder ``log`` of its audit; see ``epoch_log``."""
    settings = {"model": repair.audit.spec, **repair.options.config.record()}
    return epoch_log(trackers, folder / "log", folder.name, settings, resume=resume)


def finish(folder: Path, written: str, output: Output, fails: Set[str]) -> None:
    """Print the card of a repair and end with its exit code.

    Args:
        folder: of the audit.
        written: names of the files beside card.json.
        output: what to print.
        fails: of ``parse_fail_on``.
    """
    rows = read_results(folder / CARD).rows
    print_card(rows, output.console)
    output.say(f"Written to {folder}: {written}, {CARD}.")
    output.document(folder / CARD)
    card = parse_card(rows)
    missed = not card.repair.within_limit
    options.leave(fails, signs=backdoored(card.repaired), missed=missed)
