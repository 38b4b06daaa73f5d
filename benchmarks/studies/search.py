# SPDX-License-Identifier: Apache-2.0
"""Search for the options of the benchmark table, on seeds that no table shows.

The search knows the trigger and the ASR; the tables are measured on other seeds. ``VARIANTS`` are
the settings tried with D3. ``CHOICES`` are the settings of every defence, D3 included: the
published options and two others, of which the one with the best mean DER is used. ``HARD`` is D3's
second search, which decided its learning rate, ``RESTARTS`` its third: how many blocks restart from
random weights, and how much is learned from the suspect's answers. ``SHARES`` is the fourth: that
share again, under the attacks that the third default left the most of. ``DEPTHS`` is the fifth:
restarted blocks at a large share against none at a small one, both with the recovery, on
Fashion-MNIST and on digits. ``HEAD_SHARES`` is the sixth: the share where no block restarts.
``UNLABELLED`` is the seventh: how much is learned from the suspect where there are images without
labels. ``CLEAN_LABEL``, what removes SIG, of which the default keeps most, was not run to its end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer

from benchmarks.studies.harness import save
from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, PLAIN
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import Attacks, BenchmarkPreset
from d3fast.benchmark.presets import (
    BENCHMARK_PRESETS,
    NO_DISTANCE,
    RECOVERED,
    UNPUSHED,
    options_of,
)
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.benchmark.report.numbers import EFFECTS
from d3fast.detox import D3Config
from d3fast.io.files import make_folder
from d3fast.results.format import mean
from d3fast.results.jobs import Row, RunDir
from d3fast.results.schema.benchmark import DefenseRow, read_grid
from d3fast.results.table import Column, mean_table, to_markdown
from d3fast.runtime import environment
from d3fast.runtime.checks import check_choice

SEEDS: Mapping[str, Sequence[int]] = {
    "all": (100,),
    "d3": (100,),
    "final": (100,),
    "hard": (100, 101, 102),
    "restart": (100, 102),
    "share": (100, 102),
    "depth": (100, 101),
    "depth-digits": (100, 101, 102),
    "head-share": (100, 102),
    "clean-label": (103, 104, 105, 106, 107),
    "unlabelled": (100,),
    "baselines": (102,),
}
# "all": an attack that fine-tuning removes and one that it does not; "d3": one of them, and one
# that distillation from the suspect restores.
ATTACKS: Mapping[str, Attacks] = {
    "all": (("badnets", None), ("sig", None)),
    "d3": (("sig", None), ("wanet", None)),
    "final": PLAIN,
    # The attacks with the highest ASR after the first default.
    "hard": (("ssba", None), ("input-aware", None), ("low-frequency", None), ("blended", "sam-3")),
    "restart": (
        ("badnets", None),
        ("ssba", None),
        ("low-frequency", None),
        ("input-aware", None),
        ("blended", "sam-3"),
    ),
    "share": (("ssba", None), ("low-frequency", None), ("wanet", None)),
    "depth": (
        ("ssba", None),
        ("low-frequency", None),
        ("wanet", None),
        ("sig", None),
        ("blended", "sam-3"),
    ),
    "depth-digits": tuple((name, None) for name in ("badnets", "blended", "wanet", "sig")),
    "head-share": (
        ("ssba", None),
        ("low-frequency", None),
        ("wanet", None),
        ("sig", None),
        ("input-aware", None),
        ("blended", "sam-3"),
    ),
    "clean-label": (("sig", None),),
    "unlabelled": (
        ("wanet", None),
        ("low-frequency", None),
        ("ssba", None),
        ("blended", "sam-3"),
    ),
    # The rows of the benchmark under the easiest and one of the hardest attacks.
    "baselines": (("badnets", None), ("ssba", None)),
}

_E: Mapping[str, Any] = {"epochs": 50}
# D3 as published, at the epochs of the others.
_AUTHORS = options_of(D3Config.authors(epochs=50))
_NO_DISTANCE: Mapping[str, Any] = {**NO_DISTANCE, "epsilon": 0.0}


# Learning rate of the first default.
_FIRST: Mapping[str, Any] = {"lr": 0.03}


def _variant(label: str, augment: bool | None = None, **changes: Any) -> DefenseSpec:
    return DefenseSpec("d3", ({**_FIRST, **changes},), label=label, augment=augment)


def _variants() -> tuple[DefenseSpec, ...]:
    no_distillation: Mapping[str, Any] = {"distillation": 0.0, "lr": 0.02}
    return (
        _variant("first default, lr 0.03"),
        _variant("authors", **_AUTHORS),
        _variant("authors, no augmentation", augment=False, **_AUTHORS),
        _variant("paper", **options_of(D3Config.paper(epochs=50))),
        DefenseSpec(
            "d3+fine-tuning",
            ({**_AUTHORS, "clean_weight": 10.0, "epochs": 30}, {"epochs": 20}),
            label="authors, lambda 10, then 20 epochs of fine-tuning",
        ),
        _variant("no distillation, lr 0.02", **no_distillation),
        _variant(
            "no distillation, lr 0.02, linear and convolutions",
            **no_distillation,
            track="conv+linear",
            warm_start="near",
        ),
        _variant(
            "no distillation, lr 0.02, dual ascent to 0.5 nats",
            **no_distillation,
            epsilon=0.5,
            dual_step=5.0,
        ),
        _variant("no augmentation", augment=False),
        _variant("no averaging", averaging=0.0),
        _variant("distillation 0.5", distillation=0.5),
        _variant("distillation 0.9", distillation=0.9),
        _variant("lr 0.06", lr=0.06),
        _variant("lr 0.1", lr=0.1),
        _variant("warm start near", warm_start="near"),
        _variant("warm start far", warm_start="far"),
        _variant("warm start noise", warm_start="noise"),
        _variant("no constraint", constraint=None),
        _variant("annulus 0.5 to 1.5", constraint="distance_shell", radius=(0.5, 1.5)),
        _variant("floor 1, no push", constraint="distance_floor", radius=1.0, distance_weight=0.0),
        _variant("no distance at all", **_NO_DISTANCE),
    )


def _choices(
    name: str, published: Mapping[str, Any], *others: Mapping[str, Any]
) -> list[DefenseSpec]:
    lines = [DefenseSpec(name, (published,), label=f"{name}: published")]
    for changes in others:
        text = ", ".join(f"{option} {value}" for option, value in changes.items())
        lines.append(DefenseSpec(name, ({**published, **changes},), label=f"{name}: {text}"))
    return lines


def _all_choices() -> Mapping[str, list[DefenseSpec]]:
    return {
        "fine-tuning": _choices("fine-tuning", _E, {"lr": 0.03}, {"lr": 0.06}),
        "ft-sam": _choices("ft-sam", _E, {"lr": 0.03}, {"rho": 1.0}),
        "fine-pruning": _choices("fine-pruning", _E, {"lr": 0.03}, {"lr": 0.06}),
        "nad": _choices("nad", _E, {"lr": 0.03}, {"lr": 0.06}),
        "neural-cleanse": _choices("neural-cleanse", _E, {"lr": 0.03}, {"threshold": 1.5}),
        "anp": _choices("anp", {}, {"max_acc_drop": 0.05}, {"max_acc_drop": 0.1}),
        "i-bau": _choices("i-bau", {}, {"rounds": 20}, {"lr": 3e-3, "rounds": 20}),
        "sau": _choices("sau", _E, {"lr": 1e-3}, {"lr": 3e-3}),
        "fst": _choices("fst", {}, {**_E, "lr": 0.03}, {**_E, "lr": 0.06}),
        "tsbd": _choices("tsbd", _E, {"lr": 0.03}, {"neurons": 0.3}),
        "tsc": _choices("tsc", _E, {"lr": 0.05}, {"point": 0.5}),
        "bti-dbf": _choices("bti-dbf", _E, {"lr": 0.03}, {"inversion": {"bound": 0.1}}),
        "pam": _choices("pam", _E, {"lr": 0.03}, {"rho": 1.0}),
        "d3": [
            DefenseSpec("d3", (_AUTHORS,), label="d3: published"),
            DefenseSpec("d3", ({"lr": 0.03},), label="d3: lr 0.03"),
            DefenseSpec("d3", ({"lr": 0.06},), label="d3: lr 0.06"),
        ],
    }


# The remaining candidates, measured under every attack.
FINALISTS = (
    _variant("first default, lr 0.03"),
    _variant("warm start near", warm_start="near"),
    _variant("no distance at all", **_NO_DISTANCE),
    _variant("lr 0.06", lr=0.06),
    _variant("lr 0.06, warm start near", lr=0.06, warm_start="near"),
    _variant("lr 0.06, no distance at all", lr=0.06, **_NO_DISTANCE),
)
# The second search, on three seeds, under the attacks where the first default falls short.
HARD = (
    DefenseSpec("fine-tuning", (_E,)),
    _variant("lr 0.03, distillation 0.2", lr=0.03, distillation=0.2),
    _variant("lr 0.06, distillation 0.2", lr=0.06, distillation=0.2),
    _variant("lr 0.06, distillation 0.1", lr=0.06, distillation=0.1),
    _variant("lr 0.06, distillation 0", lr=0.06, distillation=0.0),
    _variant("lr 0.1, distillation 0.2", lr=0.1, distillation=0.2),
    _variant("lr 0.1, distillation 0.3", lr=0.1, distillation=0.3),
    _variant("lr 0.06, distillation 0.2, averaging 0.8", lr=0.06, distillation=0.2, averaging=0.8),
    _variant("lr 0.1, distillation 0.3, averaging 0.8", lr=0.1, distillation=0.3, averaging=0.8),
    _variant(
        "lr 0.06, distillation 0.2, weight decay 5e-4", lr=0.06, distillation=0.2, weight_decay=5e-4
    ),
)


def _restart(label: str, **changes: Any) -> DefenseSpec:
    return DefenseSpec("d3", ({"restart": 2, "distillation": 0.4, **changes},), label=label)


# The third search. With 0.8 of the loss from the suspect, labels matter little.
RESTARTS = (
    DefenseSpec("fine-tuning", (_E,)),
    _restart("restart 0, distillation 0.4", restart=0),
    _restart("restart 1, distillation 0.6", restart=1, distillation=0.6),
    _restart("restart 2, distillation 0.6", distillation=0.6),
    _restart("restart 2, distillation 0.8", distillation=0.8),
)
SHARES = (
    DefenseSpec("fine-tuning", (_E,)),
    *(
        _restart(f"restart 2, distillation {share}", distillation=share)
        for share in (0.6, 0.4, 0.2)
    ),
)


def _recovered(label: str, restart: int, share: float, **changes: Any) -> DefenseSpec:
    return _restart(label, restart=restart, distillation=share, **RECOVERED, **changes)


DEPTHS = (
    DefenseSpec("fine-tuning", (_E,)),
    _recovered("restart 0, distillation 0.2", 0, 0.2),
    _recovered("restart 0, distillation 0.2, no distance", 0, 0.2, **NO_DISTANCE),
    _recovered("restart 2, distillation 0.4", 2, 0.4),
    _recovered("restart 2, distillation 0.2", 2, 0.2),
)
HEAD_SHARES = tuple(
    _recovered(f"restart 0, distillation {share}", 0, share) for share in (0.2, 0.3)
)
CLEAN_LABEL = (
    DefenseSpec("fine-tuning", (_E,)),
    DefenseSpec("fst", ({**_E, "lr": 0.06},)),
    _recovered("restart 0, distillation 0.2", 0, 0.2),
    _recovered("restart 1, distillation 0.2", 1, 0.2),
    _recovered("restart 2, distillation 0.4", 2, 0.4),
    _recovered("restart 2, distillation 0.4, no distance", 2, 0.4, **UNPUSHED),
    _recovered("restart 2, distillation 0.2", 2, 0.2),
    _recovered("restart 2, distillation 0.2, no distance", 2, 0.2, **UNPUSHED),
)


def _taught(label: str, restart: int, share: float, **changes: Any) -> DefenseSpec:
    line = _recovered(label, restart, share, **changes)
    return replace(line, unlabelled=2_000)


UNLABELLED = (
    DefenseSpec("fine-tuning", (_E,)),
    _recovered("restart 2, distillation 0.4, none unlabelled", 2, 0.4),
    _taught("restart 2, distillation 0.4", 2, 0.4),
    _taught("restart 2, distillation 0.4, no distance", 2, 0.4, **UNPUSHED),
    _taught("restart 0, distillation 0.2", 0, 0.2),
    _taught("restart 0, distillation 0.2, no distance", 0, 0.2, **NO_DISTANCE),
    _taught("restart 2, distillation 0.7", 2, 0.7),
    _taught("restart 2, distillation 0.7, no distance", 2, 0.7, **UNPUSHED),
    _taught("restart 0, distillation 0.4", 0, 0.4),
    _taught("restart 0, distillation 0.4, no distance", 0, 0.4, **NO_DISTANCE),
)
VARIANTS = _variants()
CHOICES = _all_choices()


def search_preset(what: str) -> BenchmarkPreset:
    """Return the grid of one of the searches in ``SEEDS``."""
    choices = tuple(line for lines in CHOICES.values() for line in lines)
    lines = {
        "d3": VARIANTS,
        "all": choices,
        "final": FINALISTS,
        "hard": HARD,
        "restart": RESTARTS,
        "share": SHARES,
        "depth": DEPTHS,
        "depth-digits": DEPTHS,
        "head-share": HEAD_SHARES,
        "clean-label": CLEAN_LABEL,
        "unlabelled": UNLABELLED,
        "baselines": BENCHMARK_PRESETS["cpu"].defenses,
    }[what]
    cpu = BENCHMARK_PRESETS["cpu"]
    suspects, clean = cpu.suspects[0], cpu.clean
    if what.endswith("digits"):
        suspects = ATTACK_PRESETS["digits"]
        clean = suspects.base.clean
    return replace(
        cpu,
        suspects=(replace(suspects, attacks=ATTACKS[what]),),
        clean=clean,
        defenses=lines,
        augment=True,
        against_adaptive=None,
        ablations=(),
        relearning=(),
        reactivation=(),
    )


_FIRST_COLUMNS = (("acc", "ACC %"), ("asr", "ASR %"), ("floor", "floor"), ("lift", "lift"))
_LAST = (("ra", "RA %"), ("der", "DER %"))


def measured_repairs(rows: Sequence[Row]) -> list[DefenseRow]:
    """Return the repairs that have numbers."""
    return [row for row in read_grid(rows) if isinstance(row, DefenseRow) and not row.refused]


def search_markdown(rows: Sequence[Row]) -> str:
    """Return one line per setting: means over attacks and seeds, the lift of each attack.

    Rows of release 0.1 have no lift: the columns of the attacks are then the ASR excess.
    """

    def name(row: DefenseRow) -> str:
        return f"{row.attack} ({row.adaptive})" if row.adaptive else str(row.attack)

    measured = measured_repairs(rows)
    effect = "asr_excess" if any(row.lift is None for row in measured) else "lift"
    lines: dict[str, list[Row]] = {}
    for label in dict.fromkeys(row.defense for row in measured):
        own = [row for row in measured if row.defense == label]
        line = {key: mean(getattr(row, key) for row in own) for key, _ in (*_FIRST_COLUMNS, *_LAST)}
        for attack in {name(row) for row in own}:
            line[attack] = mean(getattr(row, effect) for row in own if name(row) == attack)
        lines[label] = [line]
    attacks = dict.fromkeys(map(name, measured))
    shared = (*_FIRST_COLUMNS, *((a, f"{a}: {EFFECTS[effect]}") for a in attacks), *_LAST)
    return to_markdown(mean_table([Column(key, title, scale=100) for key, title in shared], lines))


def best_choices(rows: Sequence[Row]) -> dict[str, DefenseSpec]:
    """Return the best choice of every defence whose choices were all run.

    The best is that with the largest mean of ACC minus lift: a point of one is worth a point of the
    other. Rows of release 0.1 have no lift; there it is the one with the best mean DER.
    """

    def value(row: DefenseRow) -> float:
        if by_lift:
            return (row.acc or 0.0) - max(0.0, row.lift or 0.0)
        return row.der or 0.0

    def rating(choice: DefenseSpec) -> float:
        return fmean(value(row) for row in repairs if row.defense == choice.label)

    repairs = measured_repairs(rows)
    by_lift = all(row.lift is not None for row in repairs)
    run = {row.defense for row in repairs}
    return {
        name: max(choices, key=rating)
        for name, choices in CHOICES.items()
        if all(choice.label in run for choice in choices)
    }


def search(
    what: Annotated[str, typer.Argument(help=", ".join(ATTACKS))],
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/search"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = environment.cores(),
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``search-WHAT-cpu.json``."""
    check_choice("WHAT", what, ATTACKS)
    torch.set_num_threads(1)
    preset = search_preset(what)
    run_dir = RunDir(make_folder(out))
    outcome = run_grid(
        preset, run_dir, seeds=SEEDS[what], devices=["cpu"] * workers, minutes=minutes
    )
    if outcome.missing and minutes is None:
        raise SystemExit(f"{outcome.missing} jobs are missing")
    settings = {**asdict(preset), "missing": outcome.missing}
    save(f"search-{what}-cpu", f"search {what}", settings, outcome.rows)
