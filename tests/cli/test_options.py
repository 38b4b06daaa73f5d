"""Shared options: deprecated names, the folder of an audit, the request for a model."""

from types import SimpleNamespace

import pytest
import typer

from d3fast.cli.options import SuspectOptions, audit_folder, leave, renamed
from d3fast.hub import Request
from tests.audit.report.documents import OTHER_SHA, SUSPECT_SHA, write

AUDIT = SimpleNamespace(suspect=SimpleNamespace(name="net"), sha256=SUSPECT_SHA)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_deprecated_name_gives_its_value_and_warns(capsys):
    assert renamed("--push", "--track", "head", None) == "head"
    assert capsys.readouterr().err == "warning: --push is now --track\n"


def test_without_the_deprecated_name_nothing_is_said(capsys):
    assert renamed("--push", "--track", None, "all") == "all"
    assert capsys.readouterr().err == ""


def test_the_folder_of_an_audit_is_named_after_the_model_and_not_made_yet(tmp_path):
    assert audit_folder(None, AUDIT).as_posix() == "runs/net-aaaaaaaa"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_model_is_taken_and_one_of_another_refused(tmp_path):
    write(tmp_path, "inspect", sha256=SUSPECT_SHA)
    assert audit_folder(tmp_path, AUDIT) == tmp_path
    write(tmp_path, "inspect", sha256=OTHER_SHA)
    with pytest.raises(ValueError, match="results of another model"):
        audit_folder(tmp_path, AUDIT)


def test_a_file_in_the_way_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="a file is in the way"):
        audit_folder(tmp_path / "file", AUDIT)


def test_a_command_leaves_with_the_code_of_what_it_found():
    leave({"signs"}, signs=False)
    with pytest.raises(typer.Exit) as left:
        leave({"signs"}, signs=True)
    assert left.value.exit_code == 1


def test_a_request_has_what_the_options_say():
    said = SuspectOptions(mean="0.5, 0.4,0.3", std="1", size=64, answers="bad, good")
    asked = said.request("timm:resnet18")
    assert (asked.mean, asked.std) == ((0.5, 0.4, 0.3), (1.0,))
    assert (asked.size, asked.answers) == (64, ("bad", "good"))
    assert SuspectOptions().request("timm:resnet18") == Request("timm:resnet18")


def test_a_mean_that_is_no_number_is_one_line():
    with pytest.raises(ValueError, match=r"mean must be numbers like .*, got 'a'"):
        SuspectOptions(mean="a").request("timm:resnet18")
