# SPDX-License-Identifier: Apache-2.0
"""Ablations of D3 and of its clean samples, one change at a time, and pipelines.

Every point changes one option of the recipe of ``D3Config()``, which restarts the head alone, or
the samples that the defender has. Where the samples change, fine-tuning and ``d3fast repair`` are
the other lines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.studies.harness import save
from d3fast.attacks import recipe
from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, AttackPreset, parse_attacks
from d3fast.benchmark.clean_shift import CORRUPTIONS, CleanShift
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import Ablation, BenchmarkPreset
from d3fast.benchmark.presets import BENCHMARK_PRESETS, options_of
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.benchmark.report.benchmark import ablation_markdown
from d3fast.detox import D3Config
from d3fast.io.files import make_folder
from d3fast.optim.schedules import SHAPES
from d3fast.results.jobs import RunDir
from d3fast.results.schema.benchmark import DefenseRow, read_grid
from d3fast.results.store import Results
from d3fast.runtime import environment
from d3fast.runtime.checks import check_choice

FIRST_SEED, SEEDS = 100, 3  # no table of defences shows them
_FINE_TUNING = DefenseSpec("fine-tuning", ({"epochs": 50},))
_D3 = DefenseSpec("d3")
_AUTO = DefenseSpec("d3", (options_of(D3Config.auto()),), label="d3-auto")


@dataclass(frozen=True)
class Bench:
    """What the study runs on.

    Attributes:
        suspects: data and model.
        clean: numbers of the defender's samples; the last is that of all other points. The first
            are 1 % of the training images and fewer.
    """

    suspects: AttackPreset
    clean: tuple[int, ...]


BENCHES: Mapping[str, Bench] = {
    "digits": Bench(ATTACK_PRESETS["digits"], (12, 50, 100, 260)),
    "fashion-mnist": Bench(ATTACK_PRESETS["cpu"], (100, 200, 500, 1_000)),
}


def _changed(factor: str, option: str, values: Iterable[Any], **fixed: Any) -> tuple[Ablation, ...]:
    """D3 with one option changed."""
    return tuple(
        Ablation(factor, value, DefenseSpec("d3", ({option: value, **fixed},))) for value in values
    )


def _samples(clean: Iterable[int], target: int) -> tuple[Ablation, ...]:
    """D3, the default of ``d3fast repair`` and fine-tuning on other samples."""
    other = 1 if target == 0 else 0
    shifts = {
        "a tenth of the target class": CleanShift(rare_class=target),
        "a tenth of another class": CleanShift(rare_class=other),
        **{name: CleanShift(corruption=name) for name in CORRUPTIONS},
    }
    return tuple(
        point
        for defense in (_D3, _AUTO, _FINE_TUNING)
        for point in (
            *(Ablation("clean samples", n, defense, clean=n) for n in clean),
            *(Ablation("kind of samples", label, defense, shift=s) for label, s in shifts.items()),
        )
    )


def ablation_points(clean: Iterable[int], target: int) -> tuple[Ablation, ...]:
    """Return the points of the study.

    Args:
        clean: numbers of the defender's samples.
        target: the attack's target class, of which a defender may have few samples.
    """
    pipelines = {
        "d3": (),
        "fine-pruning+d3": ({"epochs": 50},),
        "d3+fine-tuning": ({}, {"epochs": 20}),
    }
    return (
        *_changed("epsilon", "epsilon", (0.0, 0.1, 0.3, 1.0)),
        *_changed("warm start", "warm_start", ("near", "middle", "far", "noise", "random")),
        *_samples(clean, target),
        *(
            Ablation("pipeline", name, DefenseSpec(name, options, label="stages"))
            for name, options in pipelines.items()
        ),
        *_changed("p of the distance", "distance_p", (1.0, 2.0, 4.0)),
        *_changed("distance schedule", "distance_schedule", ("constant", *SHAPES)),
    )


def ablation_preset(data: str, attack: str) -> BenchmarkPreset:
    """Return the grid of the study.

    Args:
        data: a key of ``BENCHES``.
        attack: name of the attack.

    Raises:
        ValueError: unknown data or attack.
    """
    check_choice("data", data, BENCHES)
    bench, attacks = BENCHES[data], parse_attacks(attack)
    target = recipe(attack, data).target
    return replace(
        BENCHMARK_PRESETS["cpu"],
        suspects=(replace(bench.suspects, attacks=attacks),),
        defenses=(_D3,),
        clean=bench.clean[-1],
        ablations=ablation_points(bench.clean, target),
        ablated=attacks,
        relearning=(),
        reactivation=(),
    )


def ablations_table(results: Results) -> str:
    """Return a table of every factor of which more than one value was measured."""
    points = [
        row for row in read_grid(results.rows) if isinstance(row, DefenseRow) and row.ablation
    ]
    values: dict[str, set[str]] = {}
    for row in points:
        assert row.ablation is not None
        values.setdefault(row.ablation.factor, set()).add(str(row.ablation.value))
    shown = [row for row in points if row.ablation and len(values[row.ablation.factor]) > 1]
    return ablation_markdown(shown)


def ablations(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/ablations"),
    data: Annotated[str, typer.Option(help=f"One of {', '.join(BENCHES)}.")] = "digits",
    attack: Annotated[str, typer.Option(help="The attack.")] = "low-frequency",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = environment.cores(),
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``ablations-cpu.json``."""
    torch.set_num_threads(1)
    preset = ablation_preset(data, attack)
    outcome = run_grid(
        preset,
        RunDir(make_folder(out)),
        seeds=range(FIRST_SEED, FIRST_SEED + SEEDS),
        devices=["cpu"] * workers,
        minutes=minutes,
    )
    settings = {**asdict(preset), "missing": outcome.missing}
    save("ablations-cpu", f"ablations --data {data} --attack {attack}", settings, outcome.rows)
