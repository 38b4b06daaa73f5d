# SPDX-License-Identifier: Apache-2.0
"""Tables of ``scaling.json`` for docs/scaling.md; see ``benchmarks.scaling``."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report import number, of_kind
from d3fast.results.store import Results
from d3fast.results.table import markdown

Row = Mapping[str, Any]
SHOWN = (1, 8, 64, 512)
DEVICE = "H100 SXM"


def bytes_table(results: Results) -> str:
    """Bytes per parameter: what is kept, what a step moves, what it asks for as built."""
    parts = ("parameters", "gradients", "momentum", "reference", "compensation")
    headings = [
        "bytes per parameter",
        *parts,
        "kept",
        "step",
        "projection",
        "as built asks",
        "temporaries",
    ]
    lines = []
    for row in of_kind(results, "bytes"):
        kept = [str(row[part] or "–") for part in parts]
        lines.append(
            [
                f"{row['precision']}, {'tracked' if row['tracked'] else 'untracked'}",
                *kept,
                str(row["state"]),
                str(row["sweep"]),
                str(row["projection"] or "–"),
                f"{row['asked']:.0f}",
                f"{row['held']:.0f} + {row['passing']:.0f}",
            ]
        )
    return markdown(headings, lines)


def models_table(results: Results) -> str:
    """What is tracked, and what one step says to the other ranks beside FSDP2's own traffic."""
    steps = {(r["model"], r["precision"]): r for r in of_kind(results, "step") if r["gpus"] == 64}
    headings = [
        "model, tracked",
        "parameters, 10⁹",
        "tracked, 10⁹",
        "tracked tensors",
        "step's bytes fp32",
        "bf16",
        "all-reduce, kB",
        "FSDP2 fp32, GB",
        "bf16, GB",
    ]
    lines = [
        [
            f"{row['model']}, {row['tracked']}",
            f"{row['parameters'] / 1e9:.2f}",
            f"{row['tracked_parameters'] / 1e9:.2f}",
            str(row["tracked_tensors"]),
            *(f"+{100 * row[f'added_{kind}']:.1f} %" for kind in ("fp32", "bf16")),
            f"{row['message_bytes'] / 1e3:.2f}",
            *(f"{steps[row['model'], kind]['fsdp_bytes'] / 1e9:.1f}" for kind in ("fp32", "bf16")),
        ]
        for row in of_kind(results, "model")
    ]
    return markdown(headings, lines)


def _steps(results: Results) -> dict[str, dict[int, Row]]:
    """Rows of the device shown, by line and number of GPUs."""
    found: dict[str, dict[int, Row]] = {}
    for row in of_kind(results, "step"):
        if row["device"] == DEVICE:
            line = f"{row['model']}, {row['tracked']}, {row['precision']}"
            found.setdefault(line, {})[row["gpus"]] = row
    return found


def memory_table(results: Results) -> str:
    """GB per GPU between steps, what of it is D3's, and where an H100 does not hold it."""

    def cell(row: Row) -> str:
        ours = row["reference"] + row["compensation"]
        return f"{number(row['state'] / 1e9)} ({number(ours / 1e9)}){'' if row['fits'] else ' †'}"

    lines = [[line, *(cell(rows[g]) for g in SHOWN)] for line, rows in _steps(results).items()]
    return markdown(["GB per GPU (of it D3's)", *(_gpus(g) for g in SHOWN)], lines)


def time_table(results: Results) -> str:
    """Milliseconds of a step: as the kernel's bytes have it, and as built for DTensors."""
    headings = [
        "ms per step",
        *(f"kernel, {_gpus(g)}" for g in SHOWN),
        *(f"as built, {_gpus(g)}" for g in SHOWN[1:]),
    ]
    lines = []
    for line, rows in _steps(results).items():
        kernel = (number(rows[g]["kernel_ms"] + rows[g]["all_reduce_ms"]) for g in SHOWN)
        built = (number(rows[g]["built_ms"] + rows[g]["all_reduce_ms"]) for g in SHOWN[1:])
        lines.append([line, *kernel, *built])
    return markdown(headings, lines)


def check_table(results: Results) -> str:
    """Time over the floor of 24 bytes: predicted by counting bytes, and measured on a CPU."""
    found: dict[str, dict[str, Row]] = {}
    for row in of_kind(results, "check"):
        found.setdefault(row["workload"], {})[row["step"]] = row
    steps = ("free", "norm_sphere", "distance_ball")
    predicted = {row["step"]: f"{row['predicted']:.2f}×" for row in of_kind(results, "check")}
    lines = [["predicted", *(predicted[step] for step in steps)]]
    for workload, rows in found.items():
        lines.append(
            [workload, *(f"{rows[s]['measured']:.2f}×" if s in rows else "–" for s in steps)]
        )
    return markdown(["time / floor", *steps], lines)


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"
