# SPDX-License-Identifier: Apache-2.0
"""How the options of the table were chosen: ``python -m benchmarks.search d3|all|final|hard``.

Every line is run on the suspects of seeds that no table shows, with the trigger known: this is
the search, the tables are the test. ``ROADS`` are the ways that were tried with D3, ``CHOICES``
are what every defence, D3 among them, was then allowed: its published options and two others.
The one with the best mean DER is taken. ``HARD`` is D3's second search, which decided its step.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from d3fast.attacks import ATTACKS as PLAIN
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import Attacks, GridPreset
from d3fast.benchmark.presets import PRESETS, options_of
from d3fast.benchmark.repair_jobs import Repair
from d3fast.detox import D3Config
from d3fast.io.files import make_folder
from d3fast.results.jobs import Row, RunDir
from d3fast.results.store import Results
from d3fast.results.table import Column, mean_table, to_markdown
from d3fast.runtime import environment

RESULTS = Path(__file__).parent / "results"
SEEDS: Mapping[str, Sequence[int]] = {
    "all": (100,),
    "d3": (100,),
    "final": (100,),
    "hard": (100, 101, 102),
}
# One that fine-tuning forgets, one that it does not, one that a suspect's own answers bring back.
ATTACKS: Mapping[str, Attacks] = {
    "all": (("badnets", None), ("sig", None)),
    "d3": (("sig", None), ("wanet", None)),
    "final": tuple((name, None) for name in PLAIN),
    # What the first default left most of.
    "hard": (("ssba", None), ("input-aware", None), ("low-frequency", None), ("blended", "sam-3")),
}

_E: Mapping[str, Any] = {"epochs": 50}
# D3 as published, at the epochs of the others.
_AUTHORS = options_of(D3Config.authors(epochs=50))
_NO_DISTANCE: Mapping[str, Any] = {
    "distance_weight": 0.0,
    "constraint": None,
    "warm_start": "near",
    "epsilon": 0.0,
}


# The step of the first default, from which the first roads start.
_FIRST: Mapping[str, Any] = {"lr": 0.03}


def _road(label: str, augment: bool | None = None, **changes: Any) -> Repair:
    return Repair("d3", ({**_FIRST, **changes},), label=label, augment=augment)


def _roads() -> tuple[Repair, ...]:
    hard: Mapping[str, Any] = {"distillation": 0.0, "lr": 0.02}
    return (
        _road("first default, lr 0.03"),
        _road("authors", **_AUTHORS),
        _road("authors, no augmentation", augment=False, **_AUTHORS),
        _road("paper", **options_of(D3Config.paper(epochs=50))),
        Repair(
            "d3+fine-tuning",
            ({**_AUTHORS, "clean_weight": 10.0, "epochs": 30}, {"epochs": 20}),
            label="authors, lambda 10, then 20 epochs of fine-tuning",
        ),
        _road("no distillation, lr 0.02", **hard),
        _road(
            "no distillation, lr 0.02, linear and convolutions",
            **hard,
            track="conv+linear",
            warm_start="near",
        ),
        _road(
            "no distillation, lr 0.02, dual ascent to 0.5 nats", **hard, epsilon=0.5, dual_step=5.0
        ),
        _road("no augmentation", augment=False),
        _road("no averaging", averaging=0.0),
        _road("distillation 0.5", distillation=0.5),
        _road("distillation 0.9", distillation=0.9),
        _road("lr 0.06", lr=0.06),
        _road("lr 0.1", lr=0.1),
        _road("warm start near", warm_start="near"),
        _road("warm start far", warm_start="far"),
        _road("warm start noise", warm_start="noise"),
        _road("no constraint", constraint=None),
        _road("annulus 0.5 to 1.5", constraint="distance_shell", radius=(0.5, 1.5)),
        _road("floor 1, no push", constraint="distance_floor", radius=1.0, distance_weight=0.0),
        _road("no distance at all", **_NO_DISTANCE),
    )


def _choices(name: str, published: Mapping[str, Any], *others: Mapping[str, Any]) -> list[Repair]:
    lines = [Repair(name, (published,), label=f"{name}: published")]
    for changes in others:
        said = ", ".join(f"{option} {value}" for option, value in changes.items())
        lines.append(Repair(name, ({**published, **changes},), label=f"{name}: {said}"))
    return lines


# Shorter searches than published: what two cores can pay for.
_ANP: Mapping[str, Any] = {"steps": 600}
_NC: Mapping[str, Any] = {**_E, "inversion": {"steps": 150}}
_SAU: Mapping[str, Any] = {"epochs": 12}


def _all_choices() -> Mapping[str, list[Repair]]:
    return {
        "fine-tuning": _choices("fine-tuning", _E, {"lr": 0.03}, {"lr": 0.06}),
        "ft-sam": _choices("ft-sam", _E, {"lr": 0.03}, {"rho": 1.0}),
        "fine-pruning": _choices("fine-pruning", _E, {"lr": 0.03}, {"lr": 0.06}),
        "nad": _choices("nad", _E, {"lr": 0.03}, {"lr": 0.06}),
        "neural-cleanse": _choices("neural-cleanse", _NC, {"lr": 0.03}, {"threshold": 1.5}),
        "anp": _choices("anp", _ANP, {"max_acc_drop": 0.05}, {"max_acc_drop": 0.1}),
        "i-bau": _choices("i-bau", {}, {"rounds": 20}, {"lr": 3e-3, "rounds": 20}),
        "sau": _choices("sau", _SAU, {"lr": 1e-3}, {"lr": 3e-3}),
        "fst": _choices("fst", _E, {"lr": 0.03}, {"lr": 0.06}),
        "d3": [
            Repair("d3", (_AUTHORS,), label="d3: published"),
            Repair("d3", ({"lr": 0.03},), label="d3: lr 0.03"),
            Repair("d3", ({"lr": 0.06},), label="d3: lr 0.06"),
        ],
    }


# What was left in the end, looked at under every attack.
FINALISTS = (
    _road("first default, lr 0.03"),
    _road("warm start near", warm_start="near"),
    _road("no distance at all", **_NO_DISTANCE),
    _road("lr 0.06", lr=0.06),
    _road("lr 0.06, warm start near", lr=0.06, warm_start="near"),
    _road("lr 0.06, no distance at all", lr=0.06, **_NO_DISTANCE),
)
# The second search, on three seeds, after the table had shown where the first default falls short.
HARD = (
    Repair("fine-tuning", (_E,)),
    _road("lr 0.03, distillation 0.2", lr=0.03, distillation=0.2),
    _road("lr 0.06, distillation 0.2", lr=0.06, distillation=0.2),
    _road("lr 0.06, distillation 0.1", lr=0.06, distillation=0.1),
    _road("lr 0.06, distillation 0", lr=0.06, distillation=0.0),
    _road("lr 0.1, distillation 0.2", lr=0.1, distillation=0.2),
    _road("lr 0.1, distillation 0.3", lr=0.1, distillation=0.3),
    _road("lr 0.06, distillation 0.2, averaging 0.8", lr=0.06, distillation=0.2, averaging=0.8),
    _road("lr 0.1, distillation 0.3, averaging 0.8", lr=0.1, distillation=0.3, averaging=0.8),
    _road(
        "lr 0.06, distillation 0.2, weight decay 5e-4", lr=0.06, distillation=0.2, weight_decay=5e-4
    ),
)
ROADS = _roads()
CHOICES = _all_choices()


def search_preset(what: str) -> GridPreset:
    """The grid of a search: D3's roads, every defence's choices, or the finalists."""
    choices = tuple(line for lines in CHOICES.values() for line in lines)
    lines = {"d3": ROADS, "all": choices, "final": FINALISTS, "hard": HARD}[what]
    cpu = PRESETS["cpu"]
    suspects = replace(cpu.suspects[0], attacks=ATTACKS[what])
    return replace(
        cpu,
        suspects=(suspects,),
        repairs=lines,
        augment=True,
        against_adaptive=None,
        ablations=(),
        relearning=(),
    )


def search_markdown(rows: Sequence[Row]) -> str:
    """One line per setting: means over attacks and seeds, and the ASR excess of each attack."""

    def name(row: Row) -> str:
        adaptive = row.get("adaptive")
        return f"{row['attack']} ({adaptive})" if adaptive else row["attack"]

    measured = [row for row in rows if row["kind"] == "repair" and not row["refused"]]
    lines: dict[str, list[Row]] = {}
    for label in dict.fromkeys(row["defense"] for row in measured):
        own = [row for row in measured if row["defense"] == label]
        line = {key: fmean(row[key] for row in own) for key in ("acc", "asr_excess", "ra", "der")}
        for attack in {name(row) for row in own}:
            line[attack] = fmean(row["asr_excess"] for row in own if name(row) == attack)
        lines[label] = [line]
    attacks = dict.fromkeys(map(name, measured))
    shared = [
        ("acc", "ACC %"),
        ("asr_excess", "ASR excess"),
        *((a, a) for a in attacks),
        ("ra", "RA %"),
        ("der", "DER %"),
    ]
    return to_markdown(mean_table([Column(key, title, scale=100) for key, title in shared], lines))


def best_choices(rows: Sequence[Row]) -> dict[str, Repair]:
    """For every defence the choice with the best mean DER."""

    def rating(choice: Repair) -> float:
        return fmean(row["der"] for row in rows if row["defense"] == choice.label)

    return {name: max(choices, key=rating) for name, choices in CHOICES.items()}


def main() -> None:
    """Run what is not finished yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(ATTACKS))
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    parser.add_argument("--workers", type=int, default=environment.cores())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    preset = search_preset(asked.what)
    run_dir = RunDir(make_folder(asked.out))
    outcome = run_grid(preset, run_dir, seeds=SEEDS[asked.what], devices=["cpu"] * asked.workers)
    if outcome.missing:
        raise SystemExit(f"{outcome.missing} jobs are missing")
    path = RESULTS / f"search-{asked.what}-cpu.json"
    Results(f"python -m benchmarks.search {asked.what}", asdict(preset), outcome.rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)


if __name__ == "__main__":
    main()
