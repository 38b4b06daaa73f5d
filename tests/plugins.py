"""Packages of other people, written as pip installs them."""

import sys
from pathlib import Path

import pytest


def install(
    folder: Path, name: str, points: dict[str, dict[str, str]], *, version: str = "1.0", **modules
) -> Path:
    """Write a distribution with entry points (group -> name -> spec) and modules into a folder."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, named in points.items()
        for line in (f"[{group}]", *(f"{key} = {spec}" for key, spec in named.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (info / "top_level.txt").write_text("\n".join(modules))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages on ``sys.path``; its modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
