"""``d3fast record``: hashes of an audit in one file, and what differs from it."""

import json

from tests.audit.report.documents import write


def test_a_record_is_written_and_verified(call, tmp_path):
    write(tmp_path, "inspect")
    result = call("record", tmp_path)
    assert result.exit_code == 0, result.output
    held = json.loads((tmp_path / "record.json").read_text())
    assert list(held["files"]) == ["inspect.json"]
    assert held["settings"]["seed"] == 0
    assert call("record --verify", tmp_path).exit_code == 0
    write(tmp_path, "inspect", seed=1)
    changed = call("record --verify", tmp_path)
    assert changed.exit_code == 1
    assert "inspect.json differs from the record" in changed.stdout


def test_a_folder_without_an_audit_or_a_record_is_one_line(call, tmp_path):
    for line in ("record", "record --verify"):
        result = call(line, tmp_path)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
