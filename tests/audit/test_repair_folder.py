"""A repair in a folder: its state while it runs, its files when it is done."""

import pytest

from d3fast.audit.repair import RepairOptions, prepare_repair
from d3fast.audit.repair_folder import repair_in_folder, save_partial, state_file
from d3fast.detox import D3Config
from d3fast.models import load_weights
from tests.audit.audits import small_audit

OPTIONS = RepairOptions(D3Config(epochs=2, backend="reference"), inspection=None)


@pytest.fixture
def repair():
    return prepare_repair(small_audit(), OPTIONS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fails(place):
    raise OSError("no space")


def test_the_files_are_there_together_and_no_state_is_left(repair, tmp_path):
    seen = []
    _, weights = repair_in_folder(
        repair, tmp_path / "a", beside=lambda place: seen.extend(names(place)), progress=False
    )
    assert seen == ["card.json", "repaired.safetensors"] == names(tmp_path / "a")
    assert weights == tmp_path / "a" / "repaired.safetensors"


def test_a_failure_leaves_the_state_and_resuming_gives_the_same_weights(repair, tmp_path):
    with pytest.raises(OSError, match="no space"):
        repair_in_folder(repair, tmp_path / "a", beside=fails, progress=False)
    assert names(tmp_path / "a") == ["resume.pt"]
    for folder, resume in (("a", True), ("b", False)):
        again = prepare_repair(small_audit(), OPTIONS)
        repair_in_folder(again, tmp_path / folder, resume=resume, progress=False)
    first, second = (tmp_path / f / "repaired.safetensors" for f in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_failure_before_the_first_epoch_leaves_no_folder(repair, tmp_path, monkeypatch):
    monkeypatch.setattr("d3fast.audit.repair.detoxify", lambda *_, **__: fails(None))
    with pytest.raises(OSError, match="no space"):
        repair_in_folder(repair, tmp_path / "a" / "b", progress=False)
    assert names(tmp_path) == []


def test_a_state_must_be_continued_on_purpose(tmp_path):
    assert state_file(tmp_path, False) == tmp_path / "resume.pt"
    (tmp_path / "resume.pt").write_text("")
    with pytest.raises(ValueError, match="continue it with --resume"):
        state_file(tmp_path, False)
    assert state_file(tmp_path, True).exists()
    with pytest.raises(ValueError, match="nothing to resume"):
        state_file(tmp_path / "a", True)


def test_partial_weights_are_those_of_the_last_finished_epoch(repair, tmp_path):
    assert "No epoch was finished" in save_partial(repair, tmp_path)
    with pytest.raises(OSError, match="no space"):
        repair_in_folder(repair, tmp_path, beside=fails, progress=False)
    assert "epochs were finished." in save_partial(repair, tmp_path)
    load_weights(small_audit(seed=1).model, tmp_path / "partial.safetensors")
