"""What the demonstration prints and leaves behind."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_model

from d3fast.attacks import BadNets
from d3fast.benchmark import demo
from d3fast.benchmark.report.demo import demo_markdown, print_table, write_report
from d3fast.models import MODELS
from d3fast.results.store import read_results


@pytest.fixture(scope="module")
def run(small_setup):
    return demo.run_seed(small_setup, 0, progress=False)


@pytest.fixture(scope="module")
def written(small_setup, run, tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("demo"), io.StringIO()
    write_report([run], small_setup, "d3fast demo --seeds 1", folder, Console(file=out, width=80))
    return folder, out.getvalue()


def test_results_hold_rows_and_every_choice(run, written):
    results = read_results(written[0] / "results.json")
    assert results.rows == [json.loads(json.dumps(row)) for row in run.rows]
    assert results.command == "d3fast demo --seeds 1"
    assert results.settings["attack"] == {
        "name": "BadNets",
        "target": 0,
        "size": 2,
        "margin": 0,
        "mapping": "all-to-one",
    }
    assert results.settings["d3"]["epochs"] == 2


@pytest.mark.parametrize("name", [demo.BACKDOORED, demo.REPAIRED])
def test_models_load_again(small_setup, run, written, name):
    file = {demo.BACKDOORED: "backdoored", demo.REPAIRED: "repaired"}[name]
    model = MODELS[small_setup.model](10, 1)
    load_model(model, written[0] / f"{file}.safetensors")
    for key, tensor in run.models[name].state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)


def test_the_picture_is_a_png_with_something_in_it(written):
    from matplotlib.image import imread

    pixels = imread(written[0] / "demo.png")
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 1000
    assert 0.02 < (pixels[..., :3] < 0.9).mean() < 0.5


def test_the_table_fits_80_columns(written):
    assert max(map(len, written[1].splitlines())) <= 80
    for name in (demo.CLEAN, demo.BACKDOORED, demo.FINE_TUNED, demo.FINE_TUNED_HOT, demo.REPAIRED):
        assert f"\n{name} " in written[1]


def printed(rows):
    out = io.StringIO()
    print_table(rows, "Title", Console(file=out, width=200))
    return out.getvalue()


def test_the_verdict_is_honest(run):
    good, bad = ([dict(row) for row in run.rows] for _ in range(2))
    good[-1].update(asr_excess=0.05, acc_loss=0.03)
    bad[-1].update(asr_excess=0.051, acc_loss=0.0)
    assert "reached on every seed" in printed(good)
    assert "missed:\n  seed 0: ASR excess 5.1 points, goal <= 5" in printed(bad)
    assert "reached" not in printed(bad)


def test_markdown_has_a_line_per_model(run):
    lines = demo_markdown(run.rows).splitlines()
    assert lines[0].startswith("|  | ACC % | ASR % | floor |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {r['model']}" for r in run.rows]


def test_nothing_is_written_where_the_folder_is_missing(small_setup, run, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        write_report([run], small_setup, "", tmp_path / "missing", Console(file=io.StringIO()))


def test_titles_name_the_patch_in_pixels(small_setup, run):
    from d3fast.benchmark.report.demo import _title

    wide = replace(small_setup, attack=BadNets(target=0, size=3))
    assert _title(wide, "seed 0").startswith("digits, BadNets 3x3 patch, 10 % poisoned")
