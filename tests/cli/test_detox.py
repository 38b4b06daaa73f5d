"""``d3fast detox``: what it writes, when it says no, and what Ctrl-C leaves."""

import hashlib
import json
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from d3fast.attacks import SSBA, BadNets, TrainConfig, train_backdoored
from d3fast.attacks.files import save_attack
from d3fast.data import ImageData, load, save_samples
from d3fast.detox import save_weights
from d3fast.models import load_weights, make_model
from d3fast.runtime.seeding import global_seed
from tests.processes import interrupt, python, wait_until

MODEL = "preact_resnet_tiny"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model that knows the digits, and clean samples."""
    place = tmp_path_factory.mktemp("suspect")
    splits = load("digits", 0, train=600, clean=100)
    with global_seed(0):
        model = make_model(MODEL, 10, 1)
    train_backdoored(model, splits.train, None, config=TrainConfig(epochs=4), progress=False)
    save_weights(model, place / "suspect.safetensors")
    save_samples(splits.clean, place / "clean.npz")
    return place


def suspect(files):
    """The options of every command on the suspect."""
    return f"--model {MODEL} --checkpoint {files}/suspect.safetensors --out audit --device cpu"


@pytest.fixture
def detox(call, files, tmp_path, monkeypatch):
    """Calls the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def invoke(more, data=files / "clean.npz"):
        return call(f"detox {suspect(files)} --data {data} {more}")

    return invoke


def card(tmp_path):
    return json.loads((tmp_path / "audit" / "card.json").read_text())


def rows(tmp_path, kind):
    return [row for row in card(tmp_path)["rows"] if row["kind"] == kind]


ONE = "--epochs 1 --max-acc-drop 100"
SHORT = "--epochs 3 --max-acc-drop 100 --no-inspect"


def test_weights_and_card_belong_together(detox, files, tmp_path):
    result = detox(SHORT)
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "audit").iterdir()} == {"repaired.safetensors", "card.json"}
    (repair,) = rows(tmp_path, "repair")
    for key, path in (
        ("input_sha256", files / "suspect.safetensors"),
        ("output_sha256", tmp_path / "audit" / repair["output"]),
    ):
        assert repair[key] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (repair["repair_samples"], repair["held_out_samples"]) == (75, 25)
    models = rows(tmp_path, "model")
    assert [row["role"] for row in models] == ["suspect", "repaired"]
    assert all(row["images"] == 25 and row["asr"] is None for row in models)
    lost = 100 * (models[0]["acc"] - models[1]["acc"])
    assert repair["acc_drop_low"] <= repair["acc_drop"] == pytest.approx(lost)
    assert [row["epoch"] for row in rows(tmp_path, "epoch")] == [1, 2, 3]
    assert str(files) not in json.dumps(card(tmp_path))


def test_an_unknown_log_is_refused_before_anything_is_read(call):
    result = call("detox --model nothing --data nowhere --log paper")
    assert result.exit_code == 2
    assert result.output.startswith("error: log must be one of 'jsonl'")


def test_a_log_has_the_epochs_of_the_card(detox, tmp_path):
    result = detox(f"{SHORT} --restart 0 --log jsonl")
    assert result.exit_code == 0, result.output
    first, *lines = map(json.loads, (tmp_path / "audit/log/epochs.jsonl").read_text().splitlines())
    assert (first["run"], first["settings"]["epochs"]) == ("audit", 3)
    assert [line["loss"] for line in lines] == [row["loss"] for row in rows(tmp_path, "epoch")]


def test_the_repaired_file_fits_the_model_and_is_another_one(detox, files, tmp_path):
    detox(SHORT)
    model = make_model(MODEL, 10, 1)
    load_weights(model, tmp_path / "audit" / "repaired.safetensors")
    before = load_file(files / "suspect.safetensors")["head.weight"]
    assert not torch.equal(model.head.weight, before)


def test_the_inspection_of_both_models_is_in_the_card(detox, tmp_path):
    result = detox("--epochs 2 --max-acc-drop 100")
    assert result.exit_code == 0, result.output
    for kind, count in (("inversion", 10), ("verdict", 1)):
        roles = [row["role"] for row in rows(tmp_path, kind)]
        assert roles == ["suspect"] * count + ["repaired"] * count
    assert "Inspection, repaired:" in result.output


def test_an_inspection_of_the_same_model_is_not_repeated(call, detox, files, tmp_path):
    line = f"inspect {suspect(files)} --data {files}/clean.npz --steps 10"
    assert call(line).exit_code == 0
    path = tmp_path / "audit" / "inspect.json"
    document = json.loads(path.read_text())
    (verdict,) = (row for row in document["rows"] if row["kind"] == "verdict")
    verdict["text"] = "what the file says"
    path.write_text(json.dumps(document))
    assert "what the file says" in detox(ONE).output
    save_samples(load("digits", 1, train=600, clean=100).clean, tmp_path / "others.npz")
    others = detox(ONE, data=tmp_path / "others.npz")
    assert others.exit_code == 0
    assert "what the file says" not in others.output
    del verdict["targets"]
    path.write_text(json.dumps(document))
    result = detox(ONE)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: inspect.json: verdict row")


def test_options_go_over_a_file_and_that_over_a_preset(detox, tmp_path):
    (tmp_path / "d3.toml").write_text('epochs = 2\nlr = 0.02\nconstraint = "none"\n')
    options = "--preset authors --config d3.toml --lr 0.03 --track all --restart 1"
    options += " --optimizer adamw"
    result = detox(f"{options} --no-inspect --max-acc-drop 100")
    assert result.exit_code == 0, result.output
    config = card(tmp_path)["settings"]["config"]
    assert (config["epochs"], config["lr"], config["constraint"]) == (2, 0.03, None)
    assert (config["track"], config["schedule"], config["averaging"]) == ("all", "cosine", 0.0)
    assert (config["restart"], config["optimizer"]) == (1, "adamw")
    assert rows(tmp_path, "repair")[0]["preset"] == "d3.toml over authors"


def test_a_limit_that_is_missed_is_said_and_is_no_success(detox, tmp_path):
    result = detox(
        "--preset authors --epochs 1 --clean-weight 0 --lr 5 --max-acc-drop 0 --no-inspect"
    )
    assert result.exit_code == 3, result.output
    assert "Limit of 0.0 points: MISSED." in " ".join(result.output.split())
    assert rows(tmp_path, "repair")[0]["kept"] is False
    assert (tmp_path / "audit" / "repaired.safetensors").exists()


def test_a_known_trigger_is_measured_with(detox, tmp_path):
    save_attack(BadNets(target=0, size=2, margin=0), tmp_path / "t.safetensors", "badnets")
    plain = detox(SHORT)
    weights = (tmp_path / "audit" / "repaired.safetensors").read_bytes()
    result = detox(f"{SHORT} --trigger t.safetensors")
    assert plain.exit_code == result.exit_code == 0, result.output
    assert all(0 <= row["asr"] <= 1 for row in rows(tmp_path, "model"))
    assert weights == (tmp_path / "audit" / "repaired.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("more", "error_text"),
    [
        ("--constraint cube", "constraint must be one of"),
        ("--track 'nothing at all'", "nothing at all"),
        ("--radius far", "radius must be a number"),
        ("--distance-schedule soon", "distance_schedule must be one of"),
        ("--preset best", "preset must be one of"),
        ("--held-out 1.5", "cannot be split"),
        ("--max-acc-drop -1", "max_acc_drop"),
        ("--config missing.toml", "missing.toml"),
        ("--resume", "nothing to resume"),
    ],
)
def test_what_cannot_be_used_is_one_line(detox, tmp_path, more, error_text):
    result = detox(f"--epochs 1 {more}")
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert error_text in line
    assert not list((tmp_path / "audit").glob("*")) or "resume" in error_text


@pytest.mark.parametrize("option", ["--schedule", "--distance-schedule"])
def test_the_schedule_is_that_of_the_learning_rate_as_in_toml(detox, option):
    result = detox(f"{option} soon")
    assert f"{option[2:].replace('-', '_')} must be one of" in result.stderr


def test_the_old_name_of_track_works_and_warns(detox):
    warning, error = detox("--push 'nonsense at all'").stderr.splitlines()
    assert warning == "warning: --push is now --track"
    assert "nonsense at all" in error


@pytest.mark.parametrize(
    ("attack", "error_text"),
    [
        (BadNets(target=0, size=300), "does not fit images of shape (1, 8, 8)"),
        (BadNets(target=999, size=2), "target must be in 0..9 for these samples, got 999"),
        (SSBA(target=0), "does not fit images of shape"),
    ],
)
def test_a_trigger_that_does_not_fit_fails_before_the_repair(detox, tmp_path, attack, error_text):
    save_attack(attack, tmp_path / "t.safetensors", type(attack).__name__.lower())
    result = detox(f"{SHORT} --trigger t.safetensors")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert error_text in line
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    "step", ["d3fast.audit.check.inspect_model", "d3fast.audit.repair.Results.write"]
)
def test_an_error_after_the_repair_leaves_neither_weights_nor_card(
    detox, tmp_path, monkeypatch, step
):
    def fails(*_, **__):
        raise ValueError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(step, fails)
        result = detox(ONE)
    assert (result.exit_code, result.stderr) == (2, "error: no space\n")
    assert {path.name for path in (tmp_path / "audit").iterdir()} == {"resume.pt"}
    assert detox(f"{ONE} --no-inspect --resume").exit_code == 0


def test_a_toml_file_with_an_unknown_option_is_refused(detox, tmp_path):
    (tmp_path / "d3.toml").write_text("epoch = 2\n")
    result = detox("--config d3.toml")
    assert result.exit_code == 2
    assert "'epoch'; did you mean 'epochs'?" in result.stderr


EPOCHS = 12  # enough to be interrupted within
# One depth of the restart: trials of others take longer.
INTERRUPTED = f"--epochs {EPOCHS} --no-inspect --max-acc-drop 100 --restart 1"


def start(files, tmp_path, more=""):
    line = f"detox {suspect(files)} --data {files}/clean.npz {INTERRUPTED} {more}"
    return python("-m", "d3fast", *line.split(), cwd=tmp_path)


def test_after_ctrl_c_there_is_a_usable_file_and_resuming_gives_the_same_bits(
    detox, files, tmp_path
):
    folder = tmp_path / "audit"
    with start(files, tmp_path) as process:
        wait_until(lambda: (folder / "resume.pt").exists() or process.poll() is not None, 120)
        output, errors = interrupt(process)
    assert process.returncode == -signal.SIGINT
    assert errors == "interrupted\n"
    assert "--resume continues" in output
    load_weights(make_model(MODEL, 10, 1), folder / "partial.safetensors")
    with safe_open(folder / "partial.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["d3fast.config"])["epochs"] == EPOCHS
    assert not (folder / "repaired.safetensors").exists()

    again = detox(INTERRUPTED)  # not by accident
    assert again.exit_code == 2
    assert "--resume" in again.stderr

    with start(files, tmp_path, "--resume") as resumed:
        resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    assert {p.name for p in folder.iterdir()} == {"card.json", "repaired.safetensors"}
    bits = (folder / "repaired.safetensors").read_bytes()
    (folder / "repaired.safetensors").unlink()
    assert detox(INTERRUPTED).exit_code == 0
    assert bits == (folder / "repaired.safetensors").read_bytes()


def test_the_labels_of_unlabelled_samples_are_not_read(detox, tmp_path):
    splits = load("digits", 1, train=600, clean=40)
    save_samples(
        ImageData(splits.clean.images, splits.clean.labels, tuple("abcdefghij")),
        tmp_path / "more.npz",
    )
    result = detox(f"{SHORT} --unlabelled {tmp_path}/more.npz")
    assert result.exit_code == 0, result.output
    assert card(tmp_path)["settings"]["unlabelled"] == 40


def test_unlabelled_samples_of_a_preset_without_distillation_are_refused(detox, files):
    result = detox(f"--preset authors {SHORT} --unlabelled {files}/clean.npz")
    assert result.exit_code == 2
    assert "--distillation" in result.output
