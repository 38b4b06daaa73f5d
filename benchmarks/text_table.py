# SPDX-License-Identifier: Apache-2.0
"""Backdoors in transformers: ``python -m benchmarks.text_table search|table|decoder``.

MiniLM fine-tuned on the sentiment of film reviews, a rare-token and a sentence trigger, and what
each defence leaves of them (``text_cells``). As in the benchmark on images, every defence was
first tried in three settings on a seed that the table does not show, with its sentence trigger
known (``search``); ``best_choices`` says which one is in the table. ``decoder`` asks which
weights of a causal language model to track: its head is tied to the input embeddings.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from benchmarks.search import search_markdown
from benchmarks.text_cells import ARCHIVE, TRIGGERS, TextRepair, TextSuspect
from d3fast.benchmark.presets import options_of
from d3fast.benchmark.repair_jobs import Repair
from d3fast.benchmark.report.benchmark import summary_markdown
from d3fast.detox import D3Config
from d3fast.io.files import make_folder
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Job, Row, RunDir
from d3fast.results.pool import local_engine
from d3fast.results.store import Results, read_results
from d3fast.runtime import environment

RESULTS = Path(__file__).parent / "results"
SEARCHED: tuple[str, ...] = ("sentence",)
SEARCH_SEED, SEEDS = 100, 3
# Gradients are clipped, as is usual for transformers.
_SHARED: Mapping[str, Any] = {"epochs": 10, "max_grad_norm": 1.0}
_AUTHORS = options_of(D3Config.authors(**_SHARED))
# Every linear layer of the feed-forward blocks, of encoders and decoders alike.
MLP = r"(intermediate\.dense|(?<!attention\.)output\.dense|mlp\.\w+)\.weight$"


def upper(blocks: int, depth: int = 6) -> str:
    """All linear layers of the last blocks of MiniLM, and what comes behind them."""
    last = rf"layer\.[{depth - blocks}-{depth - 1}]\.(?!.*LayerNorm)"
    return rf"({last}.*|pooler\.dense\.|classifier\.)weight$"


def _choices(name: str, *settings: Mapping[str, Any]) -> list[Repair]:
    lines = []
    for changes in settings:
        said = ", ".join(f"{option} {value:g}" for option, value in changes.items())
        lines.append(Repair(name, ({**_SHARED, **changes},), label=f"{name}: {said}"))
    return lines


def _d3(label: str, **changes: Any) -> Repair:
    return Repair("d3", ({**_AUTHORS, **changes},), label=label)


UPPER = "d3 on upper blocks"
CHOICES: Mapping[str, list[Repair]] = {
    "fine-tuning": _choices("fine-tuning", {"lr": 0.01}, {"lr": 0.03}, {"lr": 0.1}),
    "ft-sam": _choices(
        "ft-sam", {"lr": 0.03, "rho": 2.0}, {"lr": 0.03, "rho": 0.5}, {"lr": 0.1, "rho": 0.5}
    ),
    "fst": _choices(
        "fst", {"lr": 0.03, "alpha": 0.2}, {"lr": 0.1, "alpha": 0.2}, {"lr": 0.03, "alpha": 0.02}
    ),
    "d3": [_d3(f"d3: lr {lr:g}", lr=lr) for lr in (0.01, 0.03, 0.1)],
    # From where they are: a random start would undo the pretraining.
    "d3 on feed-forward layers": [
        _d3(
            f"d3 on feed-forward layers: lr {lr:g}, w {weight:g}",
            lr=lr,
            track=MLP,
            warm_start="near",
            distance_weight=weight,
        )
        for lr, weight in ((0.01, 0.03), (0.03, 0.03), (0.03, 0.1))
    ],
    # From random weights: what these blocks have learned is learned anew.
    UPPER: [
        _d3(f"d3 on the last blocks: {blocks}", lr=0.03, track=upper(blocks), distance_weight=0.1)
        for blocks in (1, 2, 3)
    ],
}
MOST_LOST = 0.05


# A causal language model of three blocks, its head tied to the embeddings; nothing was chosen.
_LAST = r"layers\.2\.(?!.*norm).*weight$"
DECODER = (
    *_choices("fine-tuning", {"lr": 0.03}),
    _d3("d3 on the tied head, near", lr=0.03, warm_start="near"),
    _d3("d3 on the tied head, random", lr=0.03),
    _d3(
        "d3 on feed-forward layers, near",
        lr=0.03,
        track=MLP,
        warm_start="near",
        distance_weight=0.03,
    ),
    _d3("d3 on the last block", lr=0.03, track=_LAST, distance_weight=0.1),
    _d3("d3 on the last block, no push", lr=0.03, track=_LAST, distance_weight=0.0),
)
_DECODER_TRAINING: Mapping[str, Any] = {"train": 3000, "epochs": 5, "lr": 1e-3, "batch_size": 64}


def run(
    repairs: Sequence[Repair],
    poisoned: Sequence[TextSuspect],
    run_dir: RunDir,
    workers: int,
) -> list[dict[str, Any]]:
    """Rows of the clean twins, the suspects and every defence on every suspect."""
    twins = list(dict.fromkeys(suspect.twin() for suspect in poisoned))
    jobs: list[Job] = [
        TextRepair(suspect, repair.name, repair.label, repair.all_options(suspect.seed))
        for suspect in poisoned
        for repair in repairs
    ]
    rows: list[dict[str, Any]] = []
    with local_engine(run_dir, ["cpu"] * workers, progress=True) as engine:
        for kind, part in (("clean", twins), ("suspect", poisoned), ("repair", jobs)):
            for job, row in zip(part, run_jobs(part, engine, run_dir.folder), strict=True):
                label = {"clean": "clean twin", "suspect": "none"}.get(kind)
                name = label or (job.label if isinstance(job, TextRepair) else "")
                rows.append({"kind": kind, "defense": name, "ablation": None, **row})
    return rows


def best_choices(rows: Sequence[Mapping[str, Any]]) -> list[Repair]:
    """For every defence the setting with the best DER, under the defence's plain name.

    Of those that lose at most five points of ACC, if any does: on two classes a model that gives
    one answer to everything has a DER of 84 %.
    """

    def rating(choice: Repair) -> tuple[bool, float]:
        own = [row for row in rows if row["defense"] == choice.label and not row["refused"]]
        return fmean(row["acc_loss"] for row in own) <= MOST_LOST, fmean(row["der"] for row in own)

    best = {name: max(choices, key=rating) for name, choices in CHOICES.items()}
    return [Repair(repair.name, repair.options, label=name) for name, repair in best.items()]


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[Repair]:
    """The lines of the table: what the search chose, and what the restart does without a push."""
    chosen = {repair.label: repair for repair in best_choices(rows)}
    del chosen["d3 on feed-forward layers"]  # leaves the backdoor where it is; see the search
    restart = {**chosen[UPPER].options[0], "distance_weight": 0.0}  # the sphere keeps them tracked
    return [*chosen.values(), Repair("d3", (restart,), label=f"{UPPER}, no push")]


def main() -> None:
    """Run what is not finished yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("search", "table", "decoder"))
    parser.add_argument("--snippets", type=Path, required=True, help=f"folder of {ARCHIVE}")
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=environment.cores())
    asked = parser.parse_args()
    run_dir = RunDir(make_folder(asked.out), data_dir=asked.snippets)
    seeds, triggers = range(asked.seeds), tuple(TRIGGERS)
    show: Callable[[Sequence[Row]], str] = summary_markdown
    setting, training = "minilm", {}
    if asked.what == "search":
        lines = [line for choices in CHOICES.values() for line in choices]
        seeds, triggers, show = range(SEARCH_SEED, SEARCH_SEED + 1), SEARCHED, search_markdown
    elif asked.what == "table":
        lines = table_lines(read_results(RESULTS / "text-search-cpu.json").rows)
    else:
        lines, setting, training = list(DECODER), "decoder", dict(_DECODER_TRAINING)
    poisoned = [
        TextSuspect(setting, seed, trigger, **training) for seed in seeds for trigger in triggers
    ]
    rows = run(lines, poisoned, run_dir, asked.workers)
    settings = {"seeds": list(seeds), "triggers": {name: TRIGGERS[name] for name in triggers}}
    path = RESULTS / f"text-{asked.what}-cpu.json"
    Results(f"python -m benchmarks.text_table {asked.what} --snippets .", settings, rows).write(
        path
    )
    Console().print(show(rows), f"Written to {path}.", sep="\n", highlight=False)


if __name__ == "__main__":
    main()
