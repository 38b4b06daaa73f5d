"""The record of an audit: hashes of everything, and what differs from it later."""

import json

import pytest

from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.record import audited_files, differences, record, write_record
from d3fast.io.files import sha256
from tests.audit.report.documents import REPAIRED_SHA, SUSPECT_SHA, write


@pytest.fixture
def folder(tmp_path):
    """An audit with a repaired folder of two files, and its record."""
    for name in ("inspect", "card"):
        write(tmp_path, name)
    (tmp_path / "repaired" / "deep").mkdir(parents=True)
    (tmp_path / "repaired" / "config.json").write_text("{}")
    (tmp_path / "repaired" / "deep" / "model.safetensors").write_text("weights")
    audit = read_audit(tmp_path)
    files = audited_files(tmp_path, "repaired")
    write_record(tmp_path, record(facts_of(audit), audit.card, files, {"seed": 0}))
    return tmp_path


def test_it_holds_hashes_before_and_after_with_settings_and_versions(folder):
    held = json.loads((folder / "record.json").read_text())
    assert (held["suspect"]["sha256"], held["repaired"]["sha256"]) == (SUSPECT_SHA, REPAIRED_SHA)
    assert held["settings"] == {"seed": 0}
    assert held["versions"]["d3fast"]
    assert held["command"].startswith("d3fast ")
    assert set(held["files"]) == {
        "inspect.json",
        "card.json",
        "repaired/config.json",
        "repaired/deep/model.safetensors",
    }
    assert held["files"]["repaired/config.json"] == sha256(folder / "repaired" / "config.json")
    assert str(folder) not in json.dumps(held)


def test_the_same_audit_has_the_same_bytes(folder):
    first = (folder / "record.json").read_bytes()
    write_record(folder, dict(reversed(json.loads(first).items())))
    assert (folder / "record.json").read_bytes() == first


def test_nothing_differs_until_a_file_changes(folder):
    assert differences(folder) == []
    (folder / "repaired" / "config.json").write_text("{ }")
    (folder / "repaired" / "deep" / "model.safetensors").unlink()
    (folder / "repaired" / "added.json").write_text("{}")
    assert differences(folder) == [
        "repaired/added.json is not in the record",
        "repaired/config.json differs from the record",
        "repaired/deep/model.safetensors is missing",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 100_000, "{}", '{"schema": "x", "version": 1, "files": {}}',
     '{"schema": "d3fast.record", "version": 2, "files": {}}',
     '{"schema": "d3fast.record", "version": 1, "files": {"a": "b"}}'],
)  # fmt: skip
def test_a_file_that_is_no_record_is_one_line(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=r"record\.json is no record") as caught:
        differences(tmp_path)
    assert str(caught.value).isprintable()


def test_nothing_outside_the_folder_is_read(folder):
    record = json.loads((folder / "record.json").read_text())
    (folder.parent / "secret").mkdir()
    (folder.parent / "secret" / "file").write_text("")
    record["files"] = {"../secret/file": SUSPECT_SHA}
    (folder / "record.json").write_text(json.dumps(record))
    named = [line for line in differences(folder) if "secret" in line]
    assert named == ["../secret/file is missing"]


def test_a_name_that_leads_out_of_the_folder_is_missing(folder):
    held = json.loads((folder / "record.json").read_text())
    held["files"]["../secret"] = SUSPECT_SHA
    (folder / "record.json").write_text(json.dumps(held))
    assert "../secret is missing" in differences(folder)


def test_a_repaired_file_is_recorded_too(tmp_path):
    (tmp_path / "repaired.safetensors").write_text("weights")
    assert list(audited_files(tmp_path, "repaired.safetensors")) == ["repaired.safetensors"]
    assert audited_files(tmp_path, "gone") == {}
