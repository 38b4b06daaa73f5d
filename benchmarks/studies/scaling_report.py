# SPDX-License-Identifier: Apache-2.0
"""Tables of the study ``scaling`` for the documentation."""

from benchmarks.speed.report import of_kind
from d3fast.results.format import MISSING, count, fixed, percent, significant
from d3fast.results.store import Results
from d3fast.results.table import Row, text_table, to_markdown

SHOWN = (1, 8, 64, 512)
DEVICE = "H100 SXM"


def bytes_table(results: Results) -> str:
    """Return bytes per parameter: kept, moved by a step, asked by the plain step."""
    parts = ("parameters", "gradients", "momentum", "reference", "compensation")
    headings = [
        "bytes per parameter",
        *parts,
        "kept",
        "step",
        "projection",
        "plain step asks",
        "temporaries",
    ]
    lines = []
    for row in of_kind(results, "bytes"):
        kept = [str(row[part] or MISSING) for part in parts]
        lines.append(
            [
                f"{row['precision']}, {'tracked' if row['tracked'] else 'untracked'}",
                *kept,
                str(row["state"]),
                str(row["sweep"]),
                str(row["projection"] or MISSING),
                fixed(row["asked"], 0),
                f"{fixed(row['held'], 0)} + {fixed(row['passing'], 0)}",
            ]
        )
    return to_markdown(text_table(headings, lines))


def models_table(results: Results) -> str:
    """Return tracked parameters and the communication of a step beside that of FSDP2."""
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
            fixed(row["parameters"] / 1e9, 2),
            fixed(row["tracked_parameters"] / 1e9, 2),
            str(row["tracked_tensors"]),
            *(f"+{percent(row[f'added_{kind}'])} %" for kind in ("fp32", "bf16")),
            fixed(row["message_bytes"] / 1e3, 2),
            *(fixed(steps[row["model"], kind]["fsdp_bytes"] / 1e9) for kind in ("fp32", "bf16")),
        ]
        for row in of_kind(results, "model")
    ]
    return to_markdown(text_table(headings, lines))


def _steps(results: Results) -> dict[str, dict[int, Row]]:
    """Return the rows of ``DEVICE`` by line and number of GPUs."""
    found: dict[str, dict[int, Row]] = {}
    for row in of_kind(results, "step"):
        if row["device"] == DEVICE:
            line = f"{row['model']}, {row['tracked']}, {row['precision']}"
            found.setdefault(line, {})[row["gpus"]] = row
    return found


def memory_table(results: Results) -> str:
    """Return GB per GPU between steps, the part of D3, and a mark where it does not fit."""

    def cell(row: Row) -> str:
        ours = row["reference"] + row["compensation"]
        own = f"{significant(row['state'] / 1e9)} ({significant(ours / 1e9)})"
        return own + ("" if row["fits"] else " †")

    lines = [[line, *(cell(rows[g]) for g in SHOWN)] for line, rows in _steps(results).items()]
    return to_markdown(text_table(["GB per GPU (of it D3's)", *(_gpus(g) for g in SHOWN)], lines))


def time_table(results: Results) -> str:
    """Return milliseconds of a step: from the bytes of the kernel, and of the plain step."""
    headings = [
        "ms per step",
        *(f"kernel, {_gpus(g)}" for g in SHOWN),
        *(f"plain, {_gpus(g)}" for g in SHOWN[1:]),
    ]
    lines = []
    for line, rows in _steps(results).items():
        kernel = (significant(rows[g]["kernel_ms"] + rows[g]["all_reduce_ms"]) for g in SHOWN)
        plain = (significant(rows[g]["plain_ms"] + rows[g]["all_reduce_ms"]) for g in SHOWN[1:])
        lines.append([line, *kernel, *plain])
    return to_markdown(text_table(headings, lines))


def check_table(results: Results) -> str:
    """Return time over the floor of 24 bytes: predicted from bytes, and measured on a CPU."""
    found: dict[str, dict[str, Row]] = {}
    for row in of_kind(results, "check"):
        found.setdefault(row["workload"], {})[row["step"]] = row
    steps = ("free", "norm_sphere", "distance_ball")
    predicted = {row["step"]: f"{fixed(row['predicted'], 2)}×" for row in of_kind(results, "check")}
    lines = [["predicted", *(predicted[step] for step in steps)]]
    for workload, rows in found.items():
        lines.append(
            [
                workload,
                *(f"{fixed(rows[s]['measured'], 2)}×" if s in rows else MISSING for s in steps),
            ]
        )
    return to_markdown(text_table(["time / floor", *steps], lines))


def _gpus(number: int) -> str:
    return count(number, "GPU")
