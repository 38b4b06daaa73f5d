# SPDX-License-Identifier: Apache-2.0
"""The options of a repair that ``detox`` and ``repair`` share, and the configuration they make."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from d3fast.audit.inspect import InspectOptions
from d3fast.audit.repair import Repair, RepairOptions, prepare_repair
from d3fast.audit.resolve import Audit
from d3fast.audit.trigger import load_trigger
from d3fast.cli import options
from d3fast.detox import PRESETS, D3Config, read_config
from d3fast.detox.config import OPTIMIZERS, SEARCHES
from d3fast.detox.depth import freed
from d3fast.detox.samples import BATCH_SIZE
from d3fast.detox.text_recipe import BATCH_SIZE as TEXTS
from d3fast.detox.text_recipe import text_recipe
from d3fast.detox.toml_file import D3_TABLE
from d3fast.io.toml_file import read_toml
from d3fast.runtime.checks import check_choice

_PANEL = "Method"


@dataclass(frozen=True)
class MethodOptions:
    """Options of D3; those of the command line override the file, that overrides the preset."""

    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PRESETS)}; auto by default, of texts a recipe of their own.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    max_acc_drop: Annotated[
        str | None,
        typer.Option(
            help="Allowed loss of held-out accuracy, in points, or none; 1 with auto, or what "
            "the held-out samples resolve.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    track: Annotated[
        str | None,
        typer.Option(
            help="Tracked weights: head, linear, conv+linear, all, or a regex.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    push: options.Deprecated = None
    restart: Annotated[
        str | None,
        typer.Option(
            help="Restart the last N blocks from random weights, or weights by a regex; auto and "
            "auto-all search for the most that accuracy allows.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the public model that the suspect was trained from: restarted blocks "
            "begin there.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    constraint: Annotated[
        str | None,
        typer.Option(
            help="norm_sphere, norm_ball, distance_ball, _floor, _shell, or none.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    radius: Annotated[
        str | None,
        typer.Option(
            help="Radius of the constraint, relative to the initial norm: R or R,R.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    distance_schedule: Annotated[
        str | None,
        typer.Option(
            help="Schedule of the distance weight: constant, linear, cosine, step.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Schedule of the learning rate: constant or cosine.", rich_help_panel=_PANEL
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs.", rich_help_panel=_PANEL)
    ] = None
    optimizer: Annotated[
        str | None,
        typer.Option(help=f"{' or '.join(OPTIMIZERS)}; sgd by default.", rich_help_panel=_PANEL),
    ] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=_PANEL)] = None
    clean_weight: Annotated[
        float | None, typer.Option(help="Initial value of lambda.", rich_help_panel=_PANEL)
    ] = None
    epsilon: Annotated[
        float | None, typer.Option(help="Bound on the clean loss, in nats.", rich_help_panel=_PANEL)
    ] = None
    distance_weight: Annotated[
        float | None, typer.Option(help="Weight of the distance.", rich_help_panel=_PANEL)
    ] = None
    distillation: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the clean loss that is learned from the model's own answers.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Samples per step; {BATCH_SIZE} images or {TEXTS} texts by default.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    flip: Annotated[
        bool, typer.Option(help="Augment with mirrored samples.", rich_help_panel=_PANEL)
    ] = False
    held_out: Annotated[
        float, typer.Option(help="Held-out share of the samples.", rich_help_panel=_PANEL)
    ] = 0.25
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="More clean samples, whose labels are not read: the model's answers on them are "
            "learned.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    trigger: Annotated[
        Path | None,
        typer.Option(
            help="A known trigger: measured, not used in the repair.", rich_help_panel=_PANEL
        ),
    ] = None

    def chosen(
        self, file: Path | None, seed: int, inspection: InspectOptions | None
    ) -> RepairOptions:
        """Return the options of a repair.

        Args:
            file: of ``--config``.
            seed: of the audit.
            inspection: of the models before and after; ``None`` leaves it out.
        """
        name, config = self._preset(file)
        given = {**self._given(), "seed": seed}
        config = replace(config, **given)
        asked = "max_acc_drop" in given or "max_acc_drop" in _d3_table(file)
        return RepairOptions(
            config=config,
            preset=name,
            limited=asked,
            batch_size=self.batch_size or BATCH_SIZE,
            flip=self.flip,
            held_out=self.held_out,
            inspection=inspection,
        )

    def prepare(
        self, audit: Audit, chosen: RepairOptions, reading: options.SampleOptions
    ) -> Repair:
        """Split and measure the samples; the trigger is read and tried."""
        trigger = None if self.trigger is None else load_trigger(self.trigger)
        if audit.task == "text":
            chosen = self._for_texts(audit, chosen)
        more = None
        if self.unlabelled is not None:
            if not chosen.config.distillation:
                raise ValueError("--unlabelled needs --distillation above 0, such as 0.5")
            more = reading.open_unlabelled(self.unlabelled, audit)
        return prepare_repair(audit, chosen, trigger, more)

    def _for_texts(self, audit: Audit, chosen: RepairOptions) -> RepairOptions:
        """Return the recipe for texts in place of the preset that nobody asked for."""
        if self.batch_size is None:
            chosen = replace(chosen, batch_size=TEXTS)
        if self.preset is None and chosen.preset == "auto":
            given = {**self._given(), "seed": audit.seed}
            config = replace(text_recipe(audit.model), **given)
            if config.restart not in SEARCHES and "track" not in given:
                config = freed(audit.model, config)
            chosen = replace(chosen, config=config, preset="text")
        return chosen

    def _preset(self, file: Path | None) -> tuple[str, D3Config]:
        """Return name and configuration: the preset, and the file over it."""
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)
        name = self.preset or "auto"
        if file is None:
            return name, PRESETS[name]()
        name = file.name if self.preset is None else f"{file.name} over {self.preset}"
        return name, read_config(file, self.preset, strict=False)

    def _given(self) -> dict[str, Any]:
        """Return the fields of ``D3Config`` that the command line sets."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own["track"] = options.renamed("--push", "--track", self.push, self.track)
        known = {field.name for field in fields(D3Config)}
        given = {key: v for key, v in own.items() if key in known and v is not None}
        for name, read in (("max_acc_drop", _number), ("restart", _restart), ("radius", _radius)):
            if name in given:
                given[name] = read(given[name], name)
        if given.get("constraint") == "none":
            given["constraint"] = None
        return given


def _number(text: str, name: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None


def _radius(text: str, name: str) -> Any:
    ends = [_number(part, name) for part in text.split(",")]
    return ends[0] if len(ends) == 1 else tuple(ends)


def _restart(text: str, name: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _d3_table(file: Path | None) -> dict[str, Any]:
    table = {} if file is None else read_toml(file).get(D3_TABLE, {})
    return table if isinstance(table, dict) else {}
