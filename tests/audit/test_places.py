"""Where an audit is written, and whose it is."""

import os

import pytest

from d3fast.audit.places import check_owner, default_folder, newest_audit, owners
from tests.audit.report.documents import write

SHA = 64 * "a"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("model", "model"),
        ("my model (2)", "my-model-2"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("…", "model"),
        ("x" * 500, "x" * 60),
    ],
)
def test_the_default_folder_has_a_plain_name_and_the_first_digits_of_the_hash(name, folder):
    assert default_folder(name, SHA).as_posix() == f"runs/{folder}-aaaaaaaa"


def test_an_empty_or_missing_folder_belongs_to_nobody(tmp_path):
    check_owner(tmp_path, SHA)
    check_owner(tmp_path / "missing", SHA)
    assert owners(tmp_path) == {}


@pytest.mark.parametrize("name", ["inspect", "card", "pilot"])
def test_a_folder_of_another_model_is_refused_in_one_line(tmp_path, name):
    write(tmp_path, name, sha256=64 * "c")
    check_owner(tmp_path, 64 * "c")
    with pytest.raises(ValueError, match=rf"another model .*cccccccc… in {name}.json") as caught:
        check_owner(tmp_path, SHA)
    assert "\n" not in str(caught.value)


def test_a_damaged_document_is_named(tmp_path):
    (tmp_path / "pilot.json").write_text("{}")
    with pytest.raises(ValueError, match=r"pilot\.json"):
        check_owner(tmp_path, SHA)


def test_the_newest_audit_is_the_one_with_the_newest_document(tmp_path):
    for age, name in enumerate(("b-00000001", "a-00000002", "demo")):
        (tmp_path / name).mkdir()
        os.utime(write(tmp_path / name, "inspect"), (age, age))
    (tmp_path / "empty-00000003").mkdir()
    assert newest_audit(tmp_path) == (tmp_path / "a-00000002", 2)


def test_no_audit_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"there is no audit in .*: run d3fast check"):
        newest_audit(tmp_path / "missing")
