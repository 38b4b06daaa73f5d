"""Output of the demo: files, table, goal."""

import io

import pytest
import torch
from msgspec.structs import replace
from rich.console import Console
from safetensors.torch import load_model

from d3fast.attacks import BadNets
from d3fast.benchmark import demo
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.presets import FINE_TUNED, FINE_TUNED_FASTER, REPAIRED
from d3fast.benchmark.report.demo import demo_markdown, print_table, write_report
from d3fast.models import MODELS
from d3fast.results.schema.benchmark import read_demo
from d3fast.results.store import read_results


@pytest.fixture(scope="module")
def run(demo_preset):
    return demo.run_seed(demo_preset, 0, progress=False)


@pytest.fixture(scope="module")
def written(demo_preset, run, tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("demo"), io.StringIO()
    write_report([run], demo_preset, "d3fast demo --seeds 1", folder, Console(file=out, width=80))
    return folder, out.getvalue()


def test_results_hold_rows_and_every_choice(run, written):
    results = read_results(written[0] / "results.json")
    assert read_demo(results.rows) == list(run.rows)
    assert results.command == "d3fast demo --seeds 1"
    assert results.settings["attack"] == {
        "name": "BadNets",
        "target": 0,
        "size": 2,
        "margin": 0,
        "mapping": "all-to-one",
    }
    assert results.settings["defenses"][-1]["options"][0]["epochs"] == 2


@pytest.mark.parametrize("name", [demo.BACKDOORED, REPAIRED])
def test_models_load_again(run, written, name):
    file = {demo.BACKDOORED: "backdoored", REPAIRED: "repaired"}[name]
    model = MODELS["preact_resnet_tiny"](10, 1)
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
    for name in (CLEAN_MODEL, demo.BACKDOORED, FINE_TUNED, FINE_TUNED_FASTER, REPAIRED):
        assert f"\n{name} " in written[1]


def test_ranges_over_seeds_fit_80_columns_unbroken(run):
    ends = [
        {"acc": 0.969, "asr": 0.114, "lift": 0.114, "ra": 0.114, "der": 0.56, "distance": 1.94},
        {"acc": 0.997, "asr": 0.992, "lift": 0.992, "ra": 0.992, "der": 0.99, "distance": 1.95},
    ]
    rows = [replace(row, seed=i, **end) for i, end in enumerate(ends) for row in run.rows]
    lines = printed(rows, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("fine-tuning ") for line in lines)
    assert any({"96.9–99.7", "11.4–99.2", "1.94–1.95"} <= set(line.split()) for line in lines)


def printed(rows, width=200):
    out = io.StringIO()
    print_table(rows, "Title", Console(file=out, width=width))
    return out.getvalue()


def test_the_verdict_is_honest(run):
    *others, repaired = run.rows
    good = [*others, replace(repaired, lift=0.05, acc_loss=0.03)]
    bad = [*others, replace(repaired, lift=0.051, acc_loss=0.0)]
    assert "reached on every seed" in printed(good)
    assert "missed:\n  seed 0: lift 5.1 points, goal <= 5" in printed(bad)
    assert "reached" not in printed(bad)


def test_markdown_has_a_line_per_model(run):
    lines = demo_markdown(run.rows).splitlines()
    assert lines[0].startswith("|  | ACC % | ASR % | floor |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {row.model}" for row in run.rows]


def test_nothing_is_written_where_a_file_is_in_the_way_of_the_folder(demo_preset, run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="a file is in the way"):
        write_report([run], demo_preset, "", tmp_path / "file", Console(file=io.StringIO()))


def test_titles_name_the_patch_in_pixels(demo_preset):
    from d3fast.benchmark.report.demo import _title

    title = _title(demo_preset, BadNets(target=0, size=3), "seed 0")
    assert title == "digits, BadNets 3x3 patch, 10 % poisoned, 100 clean samples, seed 0"


def test_the_clean_model_of_old_results_has_its_present_label(run):
    lines = demo_markdown([replace(run.rows[0], model="clean twin", acc=0.9)]).splitlines()
    assert lines[-1].startswith("| clean model | 90.0 |")
