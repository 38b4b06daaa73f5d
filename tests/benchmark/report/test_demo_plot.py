"""The figure of the demo."""

import pytest

from d3fast.benchmark import demo
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.presets import FINE_TUNED, FINE_TUNED_FASTER, REPAIRED
from d3fast.benchmark.report.demo_plot import demo_figure
from d3fast.results.plot import BLUE


@pytest.fixture(scope="module")
def run(demo_preset):
    return demo.run_seed(demo_preset, 0, progress=False)


@pytest.fixture(scope="module")
def panels(run):
    clean, triggered, asr, acc, distance = demo_figure(run, "title").axes
    return {"examples": (clean, triggered), "asr": asr, "acc": acc, "distance": distance}


@pytest.mark.parametrize(("key", "scale"), [("asr", 100), ("acc", 100), ("distance", 1)])
def test_every_repair_is_a_line_over_its_epochs(run, panels, key, scale):
    lines = {line.get_label(): line for line in panels[key].lines}
    for name in (FINE_TUNED, FINE_TUNED_FASTER, REPAIRED):
        curve = run.curves[name]
        assert list(lines[name].get_xdata()) == curve.epochs
        expected = [scale * value for value in getattr(curve, key)]
        assert list(lines[name].get_ydata()) == pytest.approx(expected)
    assert lines[REPAIRED].get_color() == BLUE


def test_the_clean_model_is_a_level(run, panels):
    level = next(line for line in panels["asr"].lines if line.get_label() == CLEAN_MODEL)
    assert set(level.get_ydata()) == {100 * run.rows[0].asr}


def test_the_examples_show_what_both_models_predict(panels):
    for axes in panels["examples"]:
        title = axes.get_title().splitlines()
        assert [line.split(":")[0] for line in title[1:]] == ["backdoored", "after D3"]
