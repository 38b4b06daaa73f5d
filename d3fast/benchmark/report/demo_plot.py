# SPDX-License-Identifier: Apache-2.0
"""The figure of the demo: an example, ASR, ACC and distance over the epochs."""

from collections.abc import Mapping

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from d3fast.benchmark.demo import BACKDOORED, Curve, DemoRun
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.presets import FINE_TUNED, FINE_TUNED_FASTER, REPAIRED
from d3fast.data import as_float
from d3fast.results.plot import BLUE, GREEN, GREY, ORANGE, STYLE, show_image

_LINES = {FINE_TUNED: (ORANGE, "--"), FINE_TUNED_FASTER: (GREEN, "-."), REPAIRED: (BLUE, "-")}


def _draw_rates(axes: Axes, curves: Mapping[str, Curve], key: str, level: float) -> None:
    for name, curve in curves.items():
        colour, style = _LINES[name]
        rates = [100 * value for value in getattr(curve, key)]
        axes.plot(curve.epochs, rates, style, color=colour, label=name)
    axes.axhline(100 * level, color=GREY, linewidth=1, linestyle=":", label=CLEAN_MODEL)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("epoch of the repair")


def _draw_distance(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for name, curve in curves.items():
        colour, style = _LINES[name]
        axes.plot(curve.epochs, curve.distance, style, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch of the repair")
    axes.set_title("Relative distance of tracked weights", loc="left")


@torch.no_grad()
def _answers(model: nn.Module, images: torch.Tensor, classes: tuple[str, ...]) -> str:
    return classes[int(model(as_float(images)).argmax())]


def _draw_example(clean: Axes, triggered: Axes, run: DemoRun) -> None:
    others = (run.test.labels != run.attack.target).nonzero().flatten()
    image = run.test.images[others[:1]]
    stamped = run.attack.trigger(image)
    suspect, repaired = run.models[BACKDOORED], run.models[REPAIRED]
    for axes, shown, title in ((clean, image, "clean image"), (triggered, stamped, "with trigger")):
        show_image(axes, as_float(shown[0]))
        said = (
            f"backdoored: {_answers(suspect, shown, run.test.classes)}\n"
            f"after D3: {_answers(repaired, shown, run.test.classes)}"
        )
        axes.set_title(f"{title}\n{said}", fontsize=9)


@matplotlib.rc_context(STYLE)
def demo_figure(run: DemoRun, title: str) -> Figure:
    """Draw one seed of the demo: an example, ASR, ACC and distance over the epochs.

    Args:
        run: the seed's models and curves.
        title: above the figure.
    """
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    layout = "abcde"
    axes = figure.subplot_mosaic([list(layout)], width_ratios=[0.8, 0.8, 1.5, 1.5, 1.5])
    _draw_example(axes["a"], axes["b"], run)
    clean = next(row for row in run.rows if row.model == CLEAN_MODEL)
    _draw_rates(axes["c"], run.curves, "asr", clean.asr)
    axes["c"].set_title("Attack success rate, %", loc="left")
    _draw_rates(axes["d"], run.curves, "acc", clean.acc)
    axes["d"].set_title("Accuracy on clean images, %", loc="left")
    _draw_distance(axes["e"], run.curves)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    handles, labels = axes["c"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), frameon=False)
    return figure
