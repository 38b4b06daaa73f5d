# SPDX-License-Identifier: Apache-2.0
"""What setup.py builds follows from the compiler and the environment."""

import importlib.util
from pathlib import Path

import pytest
import setuptools

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def extensions(monkeypatch, tmp_path):
    """Return the extensions that setup.py declares under an environment."""

    def run(**environment):
        declared = []
        monkeypatch.setattr(setuptools, "setup", lambda **given: declared.append(given))
        monkeypatch.delenv("CXX", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("d3fast_setup", SETUP)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return [extension.name for extension in declared[0]["ext_modules"]]

    return run


@pytest.fixture
def compiler(tmp_path):
    """The path of an executable that stands for a compiler."""
    path = tmp_path / "c++"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_extension_is_built_where_there_is_a_compiler(extensions, compiler):
    assert extensions(CXX=compiler, D3FAST_EXTENSION="auto") == ["d3fast._C"]


def test_the_extension_is_left_out_where_there_is_no_compiler(extensions, tmp_path, capsys):
    assert extensions(PATH=str(tmp_path), D3FAST_EXTENSION="auto") == []
    assert "no C++ compiler" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "built"), [("on", ["d3fast._C"]), ("off", [])])
def test_the_environment_decides(mode, built, extensions, compiler, capsys):
    assert extensions(CXX=compiler if mode == "off" else "missing", D3FAST_EXTENSION=mode) == built
    assert capsys.readouterr().err == ""


def test_another_value_is_refused(extensions):
    with pytest.raises(SystemExit, match="must be on, off or auto, got maybe"):
        extensions(D3FAST_EXTENSION="maybe")
