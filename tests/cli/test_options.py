"""Shared options: deprecated names, and the default folder of an audit."""

from pathlib import Path

import pytest

from d3fast.cli.options import AUDIT, OLD_AUDIT, audit_folder, existing_audit, renamed, request
from d3fast.hub import Request


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_deprecated_name_gives_its_value_and_warns(capsys):
    assert renamed("--push", "--track", "head", None) == "head"
    assert capsys.readouterr().err == "warning: --push is now --track\n"


def test_without_the_deprecated_name_nothing_is_said(capsys):
    assert renamed("--push", "--track", None, "all") == "all"
    assert capsys.readouterr().err == ""


def test_the_folder_of_an_audit_is_made(capsys):
    assert audit_folder(AUDIT).is_dir()
    assert capsys.readouterr().err == ""


def test_the_old_default_folder_is_mentioned_once(capsys):
    OLD_AUDIT.mkdir(parents=True)
    audit_folder(AUDIT)
    assert capsys.readouterr().err.count(str(OLD_AUDIT)) == 2
    audit_folder(AUDIT)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("folder", [AUDIT, Path("mine")])
def test_a_folder_to_read_is_returned_as_it_is(folder):
    assert existing_audit(folder) == folder


def test_only_the_old_default_folder_is_an_error_that_names_it():
    OLD_AUDIT.mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{AUDIT} is missing; {OLD_AUDIT} has results"):
        existing_audit(AUDIT)


def test_a_request_has_what_the_options_say():
    asked = request("timm:resnet18", mean="0.5, 0.4,0.3", std="1", size=64, answers="bad, good")
    assert (asked.mean, asked.std) == ((0.5, 0.4, 0.3), (1.0,))
    assert (asked.size, asked.answers) == (64, ("bad", "good"))
    assert request("timm:resnet18") == Request("timm:resnet18")


def test_a_mean_that_is_no_number_is_one_line():
    with pytest.raises(ValueError, match=r"mean must be numbers like .*, got 'a'"):
        request("timm:resnet18", mean="a")
