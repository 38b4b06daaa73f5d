# SPDX-License-Identifier: Apache-2.0
"""Backdoors in transformers: search for settings, table of defences, tracked weights of a decoder.

MiniLM is fine-tuned on the sentiment of film reviews with a rare-token or a sentence trigger and
repaired by each defence (``text_jobs``). ``search`` measures three settings of every defence on a
seed that the table does not show, under the sentence trigger; ``best_choices`` picks the setting of
the table. ``optimizers`` compares SGD and AdamW with either form of the push, on seeds of the
search. ``decoder`` compares tracked weights of a causal language model whose head is tied to the
input embeddings. ``base`` begins at the public model and learns from texts without labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.studies.harness import RESULTS, Workers, save, start_workers
from benchmarks.studies.search import measured_repairs, search_markdown
from benchmarks.studies.text_jobs import ARCHIVE, PUBLIC, TRIGGERS, TextRepair, TextSuspect
from d3fast.benchmark.labels import CLEAN_MODEL, NONE
from d3fast.benchmark.presets import options_of
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.benchmark.report.benchmark import summary_markdown
from d3fast.detox import D3Config
from d3fast.results.jobs import Job, Row
from d3fast.results.schema.benchmark import read_grid
from d3fast.results.store import read_results
from d3fast.runtime import environment
from d3fast.runtime.checks import check_choice

SEARCHED: tuple[str, ...] = ("sentence",)
SEARCH_SEED, SEEDS = 100, 3
# Gradients are clipped, as is usual for transformers.
_SHARED: Mapping[str, Any] = {"epochs": 10, "max_grad_norm": 1.0}
_AUTHORS = options_of(D3Config.authors(**_SHARED))
# Every linear layer of the feed-forward blocks, of encoders and decoders alike.
MLP = r"(intermediate\.dense|(?<!attention\.)output\.dense|mlp\.\w+)\.weight$"


def upper(blocks: int, depth: int = 6) -> str:
    """Return a regex of the linear layers of the last blocks of MiniLM, pooler and classifier."""
    last = rf"layer\.[{depth - blocks}-{depth - 1}]\.(?!.*LayerNorm)"
    return rf"({last}.*|pooler\.dense\.|classifier\.)weight$"


def _choices(name: str, *settings: Mapping[str, Any]) -> list[DefenseSpec]:
    lines = []
    for changes in settings:
        text = ", ".join(f"{option} {value:g}" for option, value in changes.items())
        lines.append(DefenseSpec(name, ({**_SHARED, **changes},), label=f"{name}: {text}"))
    return lines


def _d3(label: str, **changes: Any) -> DefenseSpec:
    return DefenseSpec("d3", ({**_AUTHORS, **changes},), label=label)


UPPER = "d3 on upper blocks"
CHOICES: Mapping[str, list[DefenseSpec]] = {
    "fine-tuning": _choices("fine-tuning", {"lr": 0.01}, {"lr": 0.03}, {"lr": 0.1}),
    "ft-sam": _choices(
        "ft-sam", {"lr": 0.03, "rho": 2.0}, {"lr": 0.03, "rho": 0.5}, {"lr": 0.1, "rho": 0.5}
    ),
    "fst": _choices(
        "fst", {"lr": 0.03, "alpha": 0.2}, {"lr": 0.1, "alpha": 0.2}, {"lr": 0.03, "alpha": 0.02}
    ),
    "d3": [_d3(f"d3: lr {lr:g}", lr=lr) for lr in (0.01, 0.03, 0.1)],
    # No restart: a random start would undo the pretraining.
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
    # Restart from random weights: these blocks are trained again.
    UPPER: [
        _d3(f"d3 on the last blocks: {blocks}", lr=0.03, track=upper(blocks), distance_weight=0.1)
        for blocks in (1, 2, 3)
    ],
}
MOST_LOST = 0.05
STUDIES = ("search", "table", "optimizers", "base", "decoder")


def _rule(label: str, optimizer: str, lr: float, weight: float, **more: Any) -> DefenseSpec:
    changes = {"lr": lr, "track": upper(2), "distance_weight": weight, "optimizer": optimizer}
    return _d3(label, **changes, **more)


# The same restart under both optimizers; the push enters AdamW's moments or is added beside them.
OPTIMIZERS = (
    _rule("sgd, no push", "sgd", 0.03, 0.0),
    _rule("sgd, w 0.1", "sgd", 0.03, 0.1),
    *(_rule(f"adamw, lr {lr:g}, no push", "adamw", lr, 0.0) for lr in (1e-4, 3e-4, 1e-3)),
    *(
        _rule(f"adamw, coupled, w {w:g}", "adamw", 3e-4, w, decoupled_push=False)
        for w in (0.03, 0.1, 0.3)
    ),
    *(
        _rule(f"adamw, decoupled, w {w:g}", "adamw", 3e-4, w, decoupled_push=True)
        for w in (3.0, 10.0, 30.0)
    ),
)


@dataclass(frozen=True)
class BaseLine:
    """A line of the study on the public model and on texts without labels."""

    repair: DefenseSpec
    unlabelled: int = 0


def _base(label: str, unlabelled: int, **changes: Any) -> BaseLine:
    options: dict[str, Any] = {
        "optimizer": "adamw",
        "lr": 1e-4,
        "epochs": 12,
        "restart": r"\bbert\.",
        "base": PUBLIC,
        "distance_weight": 3.0,
        "distillation": 0.7 if unlabelled else 0.0,
    }
    return BaseLine(_d3(label, **{**options, **changes}), unlabelled)


# Everything but the head begins at the public model; texts without labels make up for what the
# labelled ones are too few to teach. Chosen in trials on seed 100 under the sentence trigger.
_MORE = 4000
BASES = (
    BaseLine(_choices("fine-tuning", {"lr": 0.01})[0]),
    _base("two blocks, no base, 4,000 unlabelled", _MORE, restart=2, base=None),
    _base("base, none unlabelled", 0),
    _base("base, 4,000 unlabelled", _MORE),
)


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
    repairs: Sequence[DefenseSpec | BaseLine], poisoned: Sequence[TextSuspect], workers: Workers
) -> list[dict[str, Any]]:
    """Return the rows of the clean models, the suspects and every defence on every suspect."""
    twins = list(dict.fromkeys(suspect.twin() for suspect in poisoned))
    lines = [line if isinstance(line, BaseLine) else BaseLine(line) for line in repairs]
    jobs: list[Job] = [
        TextRepair(
            suspect,
            line.repair.name,
            line.repair.label,
            line.repair.all_options(suspect.seed),
            unlabelled=line.unlabelled,
        )
        for suspect in poisoned
        for line in lines
    ]
    rows: list[dict[str, Any]] = []
    for kind, part in (("clean", twins), ("suspect", poisoned), ("repair", jobs)):
        for job, row in zip(part, workers.run(part, title=f"{kind} models"), strict=True):
            label = {"clean": CLEAN_MODEL, "suspect": NONE}.get(kind)
            name = label or (job.label if isinstance(job, TextRepair) else "")
            rows.append({"kind": kind, "defense": name, "ablation": None, **row})
    return rows


def best_choices(rows: Sequence[Row]) -> list[DefenseSpec]:
    """Return the setting with the best DER of every defence, under the name of the defence.

    Settings that lose more than five points of ACC are used only if there is no other: on two
    classes a constant prediction has a DER of 84 %.
    """

    def rating(choice: DefenseSpec) -> tuple[bool, float]:
        own = [row for row in repairs if row.defense == choice.label]
        lost = fmean(row.acc_loss or 0.0 for row in own)
        return lost <= MOST_LOST, fmean(row.der or 0.0 for row in own)

    repairs = measured_repairs(rows)
    best = {name: max(choices, key=rating) for name, choices in CHOICES.items()}
    return [DefenseSpec(repair.name, repair.options, label=name) for name, repair in best.items()]


def table_lines(rows: Sequence[Row]) -> list[DefenseSpec]:
    """Return the lines of the table: the chosen settings, and the restart without a push."""
    chosen = {repair.label: repair for repair in best_choices(rows)}
    del chosen["d3 on feed-forward layers"]  # does not remove the backdoor; see the search
    restart = {**chosen[UPPER].options[0], "distance_weight": 0.0}  # the sphere keeps them tracked
    return [*chosen.values(), DefenseSpec("d3", (restart,), label=f"{UPPER}, no push")]


def _summary(rows: Sequence[Row]) -> str:
    return summary_markdown(read_grid(rows))


def text(
    what: Annotated[str, typer.Argument(help=", ".join(STUDIES))],
    snippets: Annotated[Path, typer.Option(help=f"Folder of {ARCHIVE}.")],
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/text"),
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = SEEDS,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = environment.cores(),
) -> None:
    """Run the jobs that are not finished and write ``text-WHAT-cpu.json``."""
    check_choice("WHAT", what, STUDIES)
    chosen, triggers = range(seeds), tuple(TRIGGERS)
    show: Callable[[Sequence[Row]], str] = _summary
    setting, training = "minilm", {}
    lines: list[DefenseSpec] | list[BaseLine]
    if what == "search":
        lines = [line for choices in CHOICES.values() for line in choices]
        chosen, triggers, show = range(SEARCH_SEED, SEARCH_SEED + 1), SEARCHED, search_markdown
    elif what == "optimizers":
        lines, show, triggers = list(OPTIMIZERS), search_markdown, SEARCHED
        chosen = range(SEARCH_SEED, SEARCH_SEED + seeds)
    elif what == "base":
        lines = list(BASES)
    elif what == "table":
        lines = table_lines(read_results(RESULTS / "text-search-cpu.json").rows)
    else:
        lines, setting, training = list(DECODER), "decoder", dict(_DECODER_TRAINING)
    poisoned = [
        TextSuspect(setting, seed, trigger, **training) for seed in chosen for trigger in triggers
    ]
    with start_workers(out, workers, snippets) as pool:
        rows = run(lines, poisoned, pool)
    settings = {"seeds": list(chosen), "triggers": {name: TRIGGERS[name] for name in triggers}}
    Console().print(show(rows), highlight=False)
    save(f"text-{what}-cpu", f"text {what} --snippets . --seeds {seeds}", settings, rows)
