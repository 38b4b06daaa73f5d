# SPDX-License-Identifier: Apache-2.0
"""Finding the hub folder that a user named."""

import json
import os

import pytest

from d3fast.hub import folders
from d3fast.hub.folders import find_folder


def folder(path, **config):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_is_found_and_named_without_its_parents(tmp_path, monkeypatch):
    made = folder(tmp_path / "my-model", architectures=["AForImageClassification", "B"])
    (made / "modeling.py").touch()
    found = find_folder(str(made))
    assert (found.name, found.spec, found.path) == ("my-model", "my-model", made)
    assert (found.architecture, found.code) == ("AForImageClassification", ("modeling.py",))
    monkeypatch.chdir(made)
    assert find_folder(".").name == "my-model"


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": [3]}])
def test_a_folder_may_have_no_architecture(tmp_path, config):
    assert find_folder(str(folder(tmp_path / "a", **config))).architecture == ""


@pytest.mark.parametrize("name", ["weights.pt", "nowhere", "timm:resnet18", "", "a\0b", "a/b"])
def test_other_forms_are_none(tmp_path, monkeypatch, name):
    monkeypatch.setattr(folders, "cached", lambda model: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").touch()
    assert find_folder(name) is None


def test_a_folder_without_a_configuration_is_none(tmp_path):
    assert find_folder(str(tmp_path)) is None


def test_an_adapter_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="merge it into its model first"):
        find_folder(str(tmp_path))


@pytest.mark.parametrize("name", [os.fsdecode(b"bad\xff"), "a\x1b[31m", "a\nb"])
def test_a_name_that_does_not_print_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="does not print"):
        find_folder(str(folder(tmp_path / name)))


def test_a_name_of_the_hub_is_looked_up(tmp_path, monkeypatch):
    made = folder(tmp_path / "snapshots" / "0123")
    monkeypatch.setattr(folders, "cached", lambda model: made)
    monkeypatch.setattr(folders, "downloaded", lambda model: made)
    found = find_folder("org/name")
    assert (found.path, found.name, found.spec) == (made, "name", "org/name")
    found = find_folder("hf://org/name@v1")
    assert (found.path, found.name, found.spec) == (made, "name", "hf://org/name@v1")
