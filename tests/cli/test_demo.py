"""``d3fast demo``."""

import json

import pytest


def test_demo_writes_its_files_and_prints_its_table(call, small, tmp_path):
    out = tmp_path / "new" / "run"
    result = call("demo --seeds 2 --first-seed 3 --device cpu --out", out)
    assert result.exit_code == 0, result.output
    files = {
        "demo.png",
        "clean.npz",
        "results.json",
        "backdoored.safetensors",
        "fine-tuned.safetensors",
        "repaired.safetensors",
        "backdoored.trigger.safetensors",
    }
    assert {p.name for p in out.iterdir()} == files
    document = json.loads((out / "results.json").read_text())
    assert document["command"] == "d3fast demo --dataset digits --seeds 2 --first-seed 3"
    assert [row["seed"] for row in document["rows"]] == [3] * 5 + [4] * 5
    assert "2 seeds" in result.output
    assert str(tmp_path) not in (out / "results.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset fashion-mnist --data-dir nowhere", "files are not in nowhere"),
        ("--device warp", "device must be"),
        ("--device cuda:99", "not available"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_code_2(
    call, small, tmp_path, arguments, message
):
    result = call(f"demo {arguments} --out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_file_in_the_way_of_the_output_is_found_before_anything_is_trained(call, tmp_path):
    (tmp_path / "file").write_text("")
    result = call("demo --out", tmp_path / "file")
    assert (result.exit_code, "a file is in the way" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", ["--seeds 0", "--dataset imagenet", "--nonsense"])
def test_wrong_options_are_explained(call, arguments):
    result = call(f"demo {arguments}")
    assert result.exit_code == 2
    assert arguments.split()[0] in result.stderr
