"""Jobs: keys that hold across releases, and a cache that never gives a damaged row."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from d3fast.results.jobs import CachedJob, RunDir, finished_row, key_of, settings_of


@dataclass(frozen=True)
class Double:
    """Doubles a number."""

    number: int
    kind: ClassVar[str] = "OldName"

    @property
    def name(self):
        return f"double{self.number}"

    def run(self, shared, progress):
        return {"value": 2 * self.number, "pair": (1, 2)}


@pytest.fixture
def cached(tmp_path):
    (tmp_path / "cells").mkdir()
    return CachedJob(Double(2), tmp_path)


def test_settings_hold_the_kind_and_not_the_class_name():
    assert settings_of(Double(2)) == {"cell": "OldName", "number": 2}


def test_a_key_is_the_name_and_a_hash_of_the_settings():
    # Written by release 0.1.0: run directories of it are still read.
    assert key_of(Double(2)) == "double2-2f0974afaf"
    assert key_of(Double(3)) != key_of(Double(2)).replace("2-", "3-")


@dataclass(frozen=True)
class Part:
    """Has a setting whose meaning depends on another package."""

    setting: str

    @property
    def plugins(self):
        return {self.setting: "other 1.0"} if ":" in self.setting else {}


@dataclass(frozen=True)
class Whole(Double):
    parts: tuple[Part, ...] = ()


def test_versions_of_other_packages_enter_the_key_wherever_they_are_in_a_job():
    plain = Whole(2, (Part("own"),))
    assert "plugins" not in settings_of(plain)
    settings = settings_of(Whole(2, (Part("own"), Part("b:B"), Part("a:A"))))
    assert settings["plugins"] == {"a:A": "other 1.0", "b:B": "other 1.0"}


def test_a_row_is_returned_as_the_next_run_reads_it(cached, tmp_path):
    row = cached.run(None, False)
    assert row == {"value": 4, "pair": [1, 2]}
    assert finished_row(Double(2), tmp_path) == row


def test_a_row_that_json_cannot_hold_leaves_no_file(tmp_path, monkeypatch):
    (tmp_path / "cells").mkdir()
    monkeypatch.setattr(Double, "run", lambda *_: {"value": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        CachedJob(Double(2), tmp_path).run(None, False)
    assert not list((tmp_path / "cells").iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {}, "row": {}}'])
def test_a_damaged_file_counts_as_not_finished(cached, tmp_path, content):
    cached.run(None, False)
    path = tmp_path / "cells" / f"{key_of(Double(2))}.json"
    assert json.loads(path.read_text())["row"]["value"] == 4
    path.write_text(content)
    assert finished_row(Double(2), tmp_path) is None


def test_a_run_directory_moves_to_the_device_of_a_worker(tmp_path):
    run_dir = RunDir(tmp_path, keep=frozenset({"a"}))
    moved = run_dir.to(torch.device("cuda", 1))
    assert (moved.device, moved.folder, moved.keep) == ("cuda:1", tmp_path, run_dir.keep)
