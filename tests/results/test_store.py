"""The JSON of results: what is written is what is read, and nothing else is."""

import json
from datetime import datetime, timezone

import pytest

from d3fast.results.schema.audit import EpochRow
from d3fast.results.store import Results, read_results

ROWS = [
    {"seed": 0, "acc": 0.1 + 0.2, "interval": [0.9, 0.95], "note": "ä – ok", "asr": None},
    {"seed": 1, "acc": 1e-300, "interval": [0, 1], "note": "", "asr": 0},
]


@pytest.fixture
def written(tmp_path):
    """A good document: its path and what was written."""
    results = Results("d3fast demo", {"seeds": [0, 1], "lr": 0.01}, ROWS)
    results.write(tmp_path / "results.json")
    return tmp_path / "results.json", results


def test_what_was_written_is_read_back_exactly(written):
    path, results = written
    assert read_results(path) == results


def test_the_document_says_what_it_is(written):
    path, _ = written
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["schema"] == "d3fast.results"
    assert document["version"] == 1
    assert set(document) == {
        "schema",
        "version",
        "command",
        "settings",
        "rows",
        "versions",
        "machine",
        "commit",
        "created",
    }


def test_structs_are_written_as_their_json_fields(tmp_path):
    row = EpochRow(epoch=1, loss=0.5, accuracy=0.25)
    Results("d3fast detox", {}, [row]).write(tmp_path / "card.json")
    assert read_results(tmp_path / "card.json").rows == [row.to_row()]


def test_more_rows_than_any_command_writes_are_refused(written):
    with pytest.raises(ValueError, match="rows must be of length <= 200000, got 200001"):
        read_results(_changed(written[0], rows=200_001 * [{}]))


def test_texts_are_written_as_readable_utf_8_with_a_final_newline(written):
    content = written[0].read_bytes()
    assert "ä – ok".encode() in content
    assert content.endswith(b"}\n")


def test_the_time_of_creation_is_now_in_utc(written):
    created = datetime.fromisoformat(written[1].created)
    assert created.utcoffset().total_seconds() == 0
    assert abs((datetime.now(timezone.utc) - created).total_seconds()) < 3600


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_are_refused_and_the_old_file_stays(written, bad):
    path, _ = written
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        Results("d3fast demo", {}, [{"acc": bad}]).write(path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        Results("d3fast demo", {}, ROWS).write(tmp_path / "nowhere" / "results.json")


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, True])
def test_other_versions_are_refused(written, version):
    path = _changed(written[0], version=version)
    with pytest.raises(ValueError, match=f"has version {version!r}, this d3fast reads 1"):
        read_results(path)


@pytest.mark.parametrize("field", ["rows", "machine", "versions", "commit", "created", "command"])
def test_a_missing_field_is_refused_not_filled_with_this_machines(written, field):
    path = written[0]
    document = json.loads(path.read_text())
    del document[field]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"no d3fast.results document: {field} is missing"):
        read_results(path)


def _changed(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "nowhere.json")
