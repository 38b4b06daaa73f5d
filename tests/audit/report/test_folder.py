"""An audit folder: which documents belong together, and what is an error."""

import json

import pytest

from d3fast.audit.report.folder import read_audit
from d3fast.io.files import sha256
from tests.audit.report.documents import (
    OTHER_SHA,
    REPAIRED_SHA,
    ROWS,
    card_rows,
    change,
    edit,
    inspect_rows,
    model,
    png,
    settings,
    write,
)


@pytest.fixture
def read(tmp_path):
    """Read a folder with these documents, beside those that are there."""

    def made(*names):
        for name in names:
            write(tmp_path, name)
        return read_audit(tmp_path)

    return made


def test_an_empty_folder_is_told_which_commands_make_what(tmp_path):
    with pytest.raises(ValueError, match="nothing to report on") as caught:
        read_audit(tmp_path)
    for command in ("inspect", "pilot", "detox", "spectrum"):
        assert f"d3fast {command}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_document_is_read(read):
    audit = read(*ROWS)
    names = ("inspect", "pilot", "card", "spectrum", "weights")
    assert list(audit.origins) == [f"{name}.json" for name in names]
    assert audit.before is audit.card.suspect
    assert audit.after is audit.card.repaired
    assert len(audit.pilot.trials) == 9
    assert audit.spectrum.names == ["suspect", "repaired"]
    assert audit.weights.model.head == "fc"
    assert list(audit.classes) == settings()["classes"]


def test_a_card_without_an_inspection_takes_that_of_inspect_json(tmp_path, read):
    kinds = ("inversion", "sign", "verdict")
    rows = [r for r in card_rows() if r["kind"] not in kinds or r["role"] != "suspect"]
    write(tmp_path, "card", rows)
    assert read().before.verdict is None
    assert read("inspect").before.verdict is not None


def test_origins_have_command_versions_and_machine(read):
    origin = read("inspect").origins["inspect.json"]
    assert origin.command == "d3fast inspect"
    assert origin.settings.checkpoint == "backdoored.safetensors"
    assert origin.versions.torch
    assert origin.machine.cores > 0


# Documents that do not belong together


def test_a_card_of_another_model_than_the_inspection_leaves_the_inspection_out(tmp_path, read):
    rows = [{**row, "sha256": OTHER_SHA} if row["kind"] == "model" else row for row in model()]
    write(tmp_path, "inspect", rows, sha256=OTHER_SHA)
    audit = read("card")
    assert audit.inspection is None
    assert "inspect.json" not in audit.origins
    assert "inspect.json is about another model (SHA-256 cccccccccccc…)" in audit.warnings[0]


@pytest.mark.parametrize("name", ["pilot", "spectrum"])
@pytest.mark.parametrize("deciding", ["card", "inspect"])
def test_what_was_measured_on_another_model_is_left_out(tmp_path, read, name, deciding):
    write(tmp_path, name, sha256=OTHER_SHA)
    audit = read(deciding)
    assert f"{name}.json is about another model" in audit.warnings[0]
    assert getattr(audit, name) is None


def test_a_spectrum_of_other_repairs_than_the_cards_is_left_out(tmp_path, read):
    write(tmp_path, "spectrum", repaired={"repaired": OTHER_SHA})
    assert read("card").spectrum is None
    write(tmp_path, "spectrum", repaired={"a": OTHER_SHA, "b": REPAIRED_SHA})
    assert read().spectrum is not None


def test_the_repaired_file_is_compared_with_the_card(tmp_path, read):
    file = tmp_path / "repaired.safetensors"
    assert read("card").output_matches is None
    file.write_bytes(b"weights")
    audit = read()
    assert audit.output_matches is False
    assert "repaired.safetensors" in audit.warnings[0]
    own = sha256(file)
    after = [{**row, "sha256": own} if row["kind"] == "model" else row for row in model("repaired")]
    write(tmp_path, "card", card_rows(after, output_sha256=own))
    assert (read().output_matches, read().warnings) == (True, ())


# Documents from strangers


def clear(document):
    document["rows"] = []


def set_in(part, **fields):
    """Changes fields of settings, versions or machine."""
    return lambda document: document[part].update(fields)


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("inspect", clear, "suspect"),
        ("inspect", change("inversion", picture="javascript:alert(1)"), "picture must begin"),
        ("inspect", set_in("settings", sha256=5), "settings.sha256 must be a text or null, got 5"),
        ("inspect", set_in("settings", classes="abc"), "settings.classes must be a list or null"),
        ("inspect", set_in("settings", model=True), "settings.model must be"),
        ("inspect", set_in("versions", torch=[]), "versions.torch must be"),
        ("inspect", set_in("machine", gpus="many"), "machine.gpus must be"),
        ("inspect", set_in("machine", cores=-1), "machine.cores must be >= 0, got -1"),
        ("card", clear, "a suspect, a repaired model and a repair"),
        ("card", change("repair", output_sha256=OTHER_SHA), "hashes"),
        ("pilot", clear, "no trial"),
        ("spectrum", clear, "one spectrum per model and loss"),
    ],
)
def test_a_malformed_document_is_one_line_that_names_file_and_field(tmp_path, name, spoil, says):
    edit(write(tmp_path, name), spoil)
    with pytest.raises(ValueError, match=rf"^{name}\.json: ") as caught:
        read_audit(tmp_path)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ROWS)
def test_any_value_in_any_field_is_read_or_refused_by_name(tmp_path, name):
    path = write(tmp_path, name)
    document = json.loads(path.read_text(encoding="utf-8"))
    errors = set()
    firsts = {row["kind"]: row for row in reversed(document["rows"])}
    for row in firsts.values():
        for field, old in list(row.items()):
            for value in (None, True, -1, 10**400, "x" * 2000, [], [None], {}, [[1, 2], [3]]):
                row[field] = value
                path.write_text(json.dumps(document), encoding="utf-8")
                try:
                    read_audit(tmp_path)
                except ValueError as error:
                    errors.add(str(error))
            row[field] = old
    assert len(errors) > 20
    for text in errors:
        assert text.startswith(f"{name}.json"), text
        assert text.isprintable()
        assert len(text) < 400


def test_a_model_has_a_largest_number_of_pictures(tmp_path):
    row = next(row for row in inspect_rows() if row["kind"] == "inversion")
    rows = [row for row in inspect_rows() if row["kind"] != "inversion"]
    rows += [{**row, "target": target, "picture": png()} for target in range(17)]
    write(tmp_path, "inspect", rows)
    with pytest.raises(ValueError, match="at most 16, got 17"):
        read_audit(tmp_path)
