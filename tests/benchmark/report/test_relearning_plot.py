"""The figure of the relearning test: what is drawn, and that lines can be told apart."""

import pytest

from d3fast.benchmark.report.relearning_plot import relearning_figure
from d3fast.results.plot import GREY, save_png
from d3fast.results.schema.benchmark import RelearningRow

KS = (0, 1, 10, 100)


def _run(*asr, ks=KS):
    area = sum(asr) / len(asr)
    return RelearningRow(defense="d3", seed=0, attack="badnets", ks=ks, asr=asr, area=area)


D3 = [_run(0.0, 0.0, 0.1, 0.3), _run(0.0, 0.2, 0.3, 0.5)]
CLEAN = [_run(0.0, 0.0, 0.0, 0.1)]


def _line(figure, name):
    return next(x for x in figure.axes[0].lines if x.get_label().startswith(name))


def test_a_line_is_the_mean_over_the_seeds_in_percent():
    line = _line(relearning_figure({"D3": D3}, 0.02), "D3")
    assert tuple(line.get_xdata()) == KS
    assert line.get_ydata() == pytest.approx([0, 10, 20, 40])


def test_a_band_spans_the_seeds_and_one_seed_has_none():
    (band,) = relearning_figure({"D3": D3, "clean model": CLEAN}, 0.02).axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0, 50))


def test_of_many_models_the_first_and_the_clean_model_have_a_band():
    curves = {f"model {i}": D3 for i in range(8)} | {"clean model": D3}
    assert len(relearning_figure(curves, 0.02).axes[0].collections) == 2


def test_the_clean_model_is_grey_and_dotted():
    figure = relearning_figure({"D3": D3, "clean model": CLEAN, "other": CLEAN}, 0.02)
    line = _line(figure, "clean model")
    assert (line.get_color(), line.get_linestyle()) == (GREY, ":")
    assert _line(figure, "other").get_color() != GREY


def test_the_floor_is_a_level():
    level = _line(relearning_figure({"D3": D3}, 0.02), "floor")
    assert set(level.get_ydata()) == {2.0}


def test_the_legend_shows_the_mean_areas_largest_first():
    figure = relearning_figure({"clean model": CLEAN, "D3": D3}, 0.02)
    (legend,) = figure.legends
    texts = [text.get_text().split() for text in legend.get_texts()]
    assert [text[0] for text in texts] == ["D3", "clean", "floor"]
    assert [text[-1] for text in texts[:2]] == ["0.17", "0.03"]


def test_twelve_models_look_different_and_fit(tmp_path):
    curves = {f"model {i}": [_run(0, i / 11, i / 11, i / 11)] for i in range(11)}
    figure = relearning_figure({**curves, "clean model": CLEAN}, 0.02)
    lines = [x for x in figure.axes[0].lines if x.get_label() != "floor"]
    assert len({(x.get_color(), x.get_marker()) for x in lines}) == 12
    assert len({x.get_marker() for x in lines}) == 12
    save_png(figure, tmp_path / "relearning.png")
    assert (tmp_path / "relearning.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("curves", [{}, {"D3": []}], ids=["no model", "no run"])
def test_nothing_to_draw_is_refused(curves):
    with pytest.raises(ValueError, match=r"same ks, got \[\]"):
        relearning_figure(curves, 0.02)


def test_runs_over_different_ks_are_refused():
    odd = {"D3": D3, "other": [_run(0, 1, ks=(0, 1))]}
    with pytest.raises(ValueError, match=r"same ks, got \[\(0, 1\), \(0, 1, 10, 100\)\]"):
        relearning_figure(odd, 0.02)
