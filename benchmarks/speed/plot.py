# SPDX-License-Identifier: Apache-2.0
"""Roofline plot: useful bytes per second of a step over its memory footprint.

All contenders have nearly the same operations per byte, so the horizontal axis is the footprint
instead of the arithmetic intensity.
"""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.speed.contenders import FREE, SPHERE
from benchmarks.speed.peers import AUTOGRAD, COMPILE, FOREACH, SGD
from d3fast.results.plot import BLUE, GREY, ORANGE, PINK
from d3fast.results.store import Results

_MARKS = {
    FREE: ("o", BLUE, "d3fast, no constraint"),
    SPHERE: ("s", BLUE, "d3fast, norm sphere"),
    SGD: ("x", GREY, "torch fused SGD (no D3)"),
    FOREACH: ("^", ORANGE, "foreach"),
    COMPILE: ("v", ORANGE, "torch.compile"),
    AUTOGRAD: ("D", PINK, "autograd"),
}


def _quiet(workload: str) -> bool:
    return not workload.endswith("busy")


def roofline(results: Results) -> Figure:
    """Draw the roofline.

    Args:
        results: rows of kinds ``step`` and ``bandwidth``.
    """
    bandwidth = [r for r in results.rows if r["kind"] == "bandwidth" and _quiet(r["workload"])]
    footprints = {r["workload"]: r["footprint"] for r in bandwidth}
    best = {w: max(r["gbps"] for r in bandwidth if r["workload"] == w) for w in footprints}
    order = sorted(footprints, key=lambda w: footprints[w])
    with matplotlib.rc_context({"font.size": 9, "figure.dpi": 150}):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            [footprints[w] / 1e6 for w in order],
            [best[w] for w in order],
            color="black",
            linewidth=1,
            label="best yardstick",
        )
        for name, (marker, colour, label) in _MARKS.items():
            rows = [
                r
                for r in results.rows
                if r["kind"] == "step"
                and r["contender"] == name
                and r["skipped"] is None
                and _quiet(r["workload"])
                and r["plain"] == 0
            ]
            hollow = (
                {} if marker == "x" else {"markerfacecolor": colour if name != FREE else "none"}
            )
            axes.plot(
                [footprints[r["workload"]] / 1e6 for r in rows],
                [r["gbps"] for r in rows],
                marker,
                color=colour,
                label=label,
                **hollow,
            )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="weights, gradients, momentum, references: MB",
            ylabel="GB/s at 24 bytes per parameter",
        )
        axes.set_title(
            "One step over tracked tensors, below what the same memory gives", loc="left"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.set_yticks([5, 10, 20, 50, 100])
        figure.legend(frameon=False, fontsize=8, loc="outside right center")
    return figure
