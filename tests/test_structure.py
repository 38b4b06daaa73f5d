"""The checks of the repository's layout find what they should."""

import pytest

from tests import structure


@pytest.fixture
def root(tmp_path):
    """A package with one module and its test."""
    for name in ("d3fast/a/__init__.py", "d3fast/a/b.py", "tests/a/test_b.py", "csrc/x.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_a_complete_tree_passes(root, capsys):
    assert structure.main(root) == 0
    assert capsys.readouterr().out == ""


def test_a_module_without_a_test_is_named(root, capsys):
    (root / "d3fast" / "a" / "_c.py").write_text("")
    assert structure.main(root) == 1
    assert capsys.readouterr().out == "d3fast/a/_c.py has no tests/a/test_c.py\n"


def test_a_test_folder_without_a_source_folder_is_named(root):
    for folder in ("tests/old", "tests/csrc/old", "tests/hostile"):
        (root / folder).mkdir(parents=True)
        (root / folder / "test_x.py").write_text("")
    found = list(structure.stray_folders(root))
    assert found == ["tests/csrc/old has no csrc/old", "tests/old has no d3fast/old"]


def test_long_files_of_every_language_are_named(root):
    (root / "csrc" / "x.h").write_text("//\n" * 401)
    (root / "d3fast" / "a" / "b.py").write_text("#\n" * 400)
    assert list(structure.long_files(root)) == ["csrc/x.h has 401 lines, more than 400"]


def test_many_switches_of_the_formatter_are_counted(root):
    marker = "# fmt: " + "skip\n"
    (root / "d3fast" / "a" / "b.py").write_text(marker * 50)
    assert not list(structure.format_skips(root))
    (root / "tests" / "a" / "test_b.py").write_text(marker)
    assert "51 times" in next(structure.format_skips(root))
