"""Runs are found by the names of their documents, and nothing outside the folder is."""

import os

import pytest

from d3fast.view import folders
from d3fast.view.folders import find_runs
from tests.view.runs import audit, everything


def test_every_kind_is_found_with_a_key_of_its_own(tmp_path):
    everything(tmp_path)
    found = find_runs(tmp_path)
    assert set(found.runs) == {
        "audit/net-one",
        "audit/net-two",
        "audit/one-attack",
        "benchmark/bench",
        "demo/demo",
        "attacks/attacks",
    }
    assert found.problems == ()


def test_a_folder_may_be_of_two_kinds_and_the_folder_itself_a_run(tmp_path):
    audit(tmp_path, ".", "inspect")
    (tmp_path / "results.json").write_text("{}")
    assert set(find_runs(tmp_path).runs) == {"audit/.", "demo/."}


def test_hidden_folders_caches_and_deep_ones_are_skipped(tmp_path):
    audit(tmp_path, ".writing.x")
    audit(tmp_path, "bench/cells")
    audit(tmp_path, "a/b/c/d/e/f/g")
    audit(tmp_path, "a/b/c/d/e/f")
    assert set(find_runs(tmp_path).runs) == {"audit/a/b/c/d/e/f"}


def test_a_link_out_of_the_folder_is_refused_and_named(tmp_path):
    outside, root = audit(tmp_path, "outside", "inspect"), tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(outside)
    (root / "run").mkdir()
    (root / "run" / "inspect.json").symlink_to(outside / "inspect.json")
    found = find_runs(root)
    assert found.runs == {}
    assert len(found.problems) == 1
    assert "leads out of" in found.problems[0]


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "card.json").symlink_to(tmp_path / "gone.json")
    (problem,) = find_runs(tmp_path).problems
    assert "No such file" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    folder = audit(tmp_path, "closed")
    folder.chmod(0)
    assert "closed" in find_runs(tmp_path).problems[0]
    folder.chmod(0o700)


def test_the_search_has_an_end_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_MOST_FOLDERS", 3)
    for number in range(9):
        audit(tmp_path, f"net-{number}", "inspect")
    found = find_runs(tmp_path)
    assert len(found.runs) == 2
    assert found.problems == ("Only the first 3 folders were searched.",)


def test_names_that_control_a_terminal_are_not_shown(tmp_path):
    audit(tmp_path, "a\x1b[2J")
    assert find_runs(tmp_path).runs == {}
