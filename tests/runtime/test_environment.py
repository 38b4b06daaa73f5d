"""What results say about where they were made, and what they must not say."""

import importlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from d3fast.runtime import environment


def test_versions_are_those_that_run():
    assert environment.versions() == {
        "d3fast": metadata.version("d3fast"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def test_a_package_that_is_not_installed_says_so(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert environment.versions()["d3fast"] == "not installed"


def test_the_machine_is_described_in_plain_json_values():
    facts = environment.machine()
    assert list(facts) == ["system", "cpu", "cores", "threads", "gpus"]
    assert json.loads(json.dumps(facts)) == facts
    assert 1 <= facts["cores"] <= os.cpu_count()
    assert facts["threads"] == torch.get_num_threads()
    assert len(facts["gpus"]) == torch.cuda.device_count()


@pytest.mark.parametrize("facts", [environment.machine, environment.build_info])
def test_nothing_names_the_machine_its_user_or_its_folders(facts):
    text = json.dumps(facts())
    words = set(re.findall(r"[\w./-]+", text))
    secrets = {socket.gethostname(), platform.node(), os.environ.get("USER", "nobody")}
    assert not words & secrets
    for folder in (Path.home(), Path.cwd(), Path(environment.__file__).parents[1]):
        assert folder == Path("/") or str(folder) not in text


def test_gpus_are_named_with_capability_and_memory(monkeypatch):
    card = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=80 * 2**30 + 5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert environment.gpus() == ["NVIDIA H100 (sm_90, 80 GiB)"] * 2


def test_the_cpu_has_a_name_even_without_proc(monkeypatch):
    def missing(*_, **__):
        raise OSError

    assert environment.cpu_model()
    monkeypatch.setattr(Path, "read_text", missing)
    assert environment.cpu_model() == (platform.processor() or platform.machine())


def test_the_extension_says_how_it_was_built():
    built = environment.build_info()
    assert built["compiler"]
    assert built["simd_level"] in built["simd_levels"]


def test_a_missing_extension_is_no_error_and_described_with_its_remedy(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert environment.build_info() is None
    described = dict(environment.describe())
    assert "backend='reference'" in described["extension"]
    assert not any(label.startswith("extension ") for label in described)


def test_lists_are_described_with_commas_and_what_is_missing_as_none(monkeypatch):
    facts = {"levels": ["a", "b"], "archs": [], "cuda": None, "compiler": ""}
    monkeypatch.setattr(environment, "build_info", lambda: facts)
    described = dict(environment.describe())
    assert described["extension levels"] == "a, b"
    assert {described[f"extension {name}"] for name in ("archs", "cuda", "compiler")} == {"none"}


def test_everything_described_is_a_line_of_text():
    described = environment.describe()
    labels = [label for label, _ in described]
    assert len(set(labels)) == len(labels)
    assert {
        "d3fast",
        "torch",
        "extension compiler",
        "extension simd level",
        "cpu",
        "gpus",
        "torch cuda",
        "commit",
    } <= set(labels)
    for label, value in described:
        assert isinstance(value, str), label
        assert value, label
        assert "\n" not in value, label


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty git repository that the package seems to run from."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    for variable in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(variable)  # or this would commit to the repository whose hook runs it

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *who, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    monkeypatch.setattr(
        environment, "__file__", str(tmp_path / "d3fast" / "runtime" / "environment.py")
    )
    return git


def test_the_commit_is_that_of_the_checkout_with_a_plus_for_changes(checkout, tmp_path):
    (tmp_path / "file").write_text("one")
    checkout("add", "file")
    checkout("commit", "--quiet", "-m", "one")
    head = checkout("rev-parse", "HEAD")
    assert environment.commit() == head
    (tmp_path / "untracked").write_text("does not matter")
    assert environment.commit() == head
    (tmp_path / "file").write_text("two")
    assert environment.commit() == head + "+"


def test_a_git_hook_of_another_repository_does_not_mislead_it(checkout, tmp_path, monkeypatch):
    checkout("commit", "--quiet", "--allow-empty", "-m", "one")
    head = checkout("rev-parse", "HEAD")
    other = tmp_path / "other"
    checkout("init", "--quiet", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert environment.commit() == head


def test_it_lies_as_deep_in_the_checkout_as_the_module_of_these_tests():
    root = Path(environment.__file__).resolve().parents[2]
    assert (root / "d3fast" / "runtime" / "environment.py").is_file()


def test_a_checkout_without_commits_has_none(checkout):
    assert environment.commit() is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.commit() is None


def test_a_package_inside_somebody_elses_checkout_has_no_commit(checkout, tmp_path, monkeypatch):
    checkout("commit", "--quiet", "--allow-empty", "-m", "one")
    inside = tmp_path / "venv" / "site-packages" / "d3fast" / "runtime" / "environment.py"
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inside))
    assert environment.commit() is None
