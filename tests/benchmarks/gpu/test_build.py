"""When the extension is built again, and when the build is kept."""

import sys
from types import SimpleNamespace

import pytest

from benchmarks.gpu import build
from benchmarks.gpu.tools import Done, Failed, Skipped


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one source, and a build that works."""
    (tmp_path / "csrc").mkdir()
    (tmp_path / "d3fast").mkdir()
    (tmp_path / "csrc" / "a.cpp").write_text("int a;")
    (tmp_path / "CMakeLists.txt").write_text("project(x)")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    monkeypatch.setattr(build, "STAMP", tmp_path / "build" / "stamp")
    monkeypatch.setattr(build, "require_tools", lambda *names: list(names))
    monkeypatch.setattr(build, "require_modules", lambda *names: None)
    stand_in = SimpleNamespace(get_cmake_dir=lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pybind11", stand_in)
    commands = []

    def run(command, seconds):
        commands.append(command)
        if "--build" in command:
            (tmp_path / "build" / "lib").mkdir()
            (tmp_path / "build" / "lib" / build.NAME).write_text("new")
        return Done(0, "")

    monkeypatch.setattr(build, "run", run)
    return tmp_path, commands


def test_a_build_is_kept_until_a_source_changes(checkout):
    root, commands = checkout
    build.measure(60)
    assert (root / "d3fast" / build.NAME).read_text() == "new"
    build.measure(60)
    assert len(commands) == 2  # configured and built once
    (root / "csrc" / "a.cpp").write_text("int b;")
    build.measure(60)
    assert len(commands) == 4


@pytest.mark.parametrize("gone", ["extension", "gpu"])
def test_a_build_is_not_kept_for_another_gpu_or_without_its_file(checkout, monkeypatch, gone):
    root, _ = checkout
    build.measure(60)
    assert build.is_built()
    if gone == "gpu":
        monkeypatch.setattr(build, "capability", lambda: "123")
    else:
        (root / "d3fast" / build.NAME).unlink()
    assert not build.is_built()


def test_the_architecture_is_that_of_the_gpu(checkout, monkeypatch):
    _, commands = checkout
    monkeypatch.setattr(build, "capability", lambda: "90")
    build.measure(60)
    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in commands[0]
    assert "-DD3FAST_CUDA=on" in commands[0]


@pytest.mark.parametrize("code", [1, None])
def test_a_failed_build_leaves_no_stamp(checkout, monkeypatch, code):
    monkeypatch.setattr(build, "run", lambda command, seconds: Done(code, "error: no"))
    with pytest.raises(Failed):
        build.measure(60)
    assert not build.is_built()


def test_a_missing_tool_is_named(checkout, monkeypatch):
    def missing(*names):
        raise Skipped("nvcc not found")

    monkeypatch.setattr(build, "require_tools", missing)
    with pytest.raises(Skipped, match="nvcc"):
        build.measure(60)
