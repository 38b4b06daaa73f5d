# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast attack`` on a model of the user's own: model, trigger, card, table."""

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from d3fast.attacks.files import save_attack
from d3fast.audit.resolve import Audit
from d3fast.benchmark.own_attack import Planted
from d3fast.benchmark.report.attacks import attacks_table
from d3fast.io.files import written_together
from d3fast.results.store import Results
from d3fast.results.table import to_rich

NAME, CARD = "backdoored", "card.json"
CAPTION = (
    "Held-out samples. ASR: triggered samples of other classes classified as the attacker wants. "
    "Floor and ceiling: ASR and RA of the model as it came. Lift: ASR minus the share of the same "
    "samples classified that way without the trigger."
)


def write_planted(planted: Planted, audit: Audit, folder: Path, console: Console) -> Path:
    """Write the model in the format it came in, its trigger and card.json; print the card.

    Returns:
        The path of the model: a folder, or a safetensors file.
    """
    row, options = planted.row(), planted.options
    settings = {**audit.settings(), "options": asdict(options), "held_out": planted.sizes[1]}
    with written_together(folder) as place:
        saved = audit.suspect.save(planted.model, place)
        model = saved.rename(place / f"{NAME}{saved.suffix}")
        save_attack(planted.trigger, place / f"{NAME}.trigger.safetensors", options.attack)
        Results(_command(planted, audit), settings, [row]).write(place / CARD)
    console.print(to_rich(attacks_table([row]), audit.suspect.name, CAPTION))
    if row.refused:
        console.print(f"warning: {row.refused}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Written to {folder}: {model.name}, {NAME}.trigger.safetensors, {CARD}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return folder / model.name


def _command(planted: Planted, audit: Audit) -> str:
    """Return the command line without the names of the user's folders."""
    given = {
        "model": audit.spec,
        **{
            name: value
            for name, value in asdict(planted.options).items()
            if value is not None and name not in ("words", "batch_size")
        },
    }
    options = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    if planted.options.words is not None:
        options.append(f"--words '{planted.options.words}'")
    return " ".join(["d3fast attack", *options])
