"""Registries and the packages that extend them."""

import re

import pytest

from d3fast.runtime.plugins import Registry, import_object, is_spec, origin
from tests.plugins import install, site

__all__ = ["site"]
GROUP = "d3fast.shapes"
SHAPES = "class Oval: ...\nclass Star: ...\n"


@pytest.fixture
def shapes():
    return Registry("shape", GROUP, {"round": 1, "square": 2})


def test_built_in_names_come_first_in_their_order_and_nothing_is_imported(site, shapes):
    install(site, "other", {GROUP: {"star": "no_such:Star", "oval": "no_such:Oval"}})
    assert list(shapes) == ["round", "square", "oval", "star"]
    assert len(shapes) == 4
    assert "star" in shapes
    assert "oblong" not in shapes


def test_a_name_of_an_installed_package_is_imported_when_it_is_asked_for(site, shapes):
    install(site, "other", {GROUP: {"oval": "shapes_of_others:Oval"}}, shapes_of_others=SHAPES)
    assert shapes.find("oval").__name__ == "Oval"
    assert shapes["oval"] is shapes.find("shapes_of_others:Oval")
    assert shapes.origin("oval") == "other 1.0"


def test_a_package_that_cannot_be_imported_breaks_its_own_names_alone(site, shapes):
    install(site, "broken", {GROUP: {"dent": "dents:Dent"}}, dents="1 / 0\n")
    install(site, "other", {GROUP: {"oval": "shapes_of_others:Oval"}}, shapes_of_others=SHAPES)
    message = (
        "shape 'dent' of broken 1.0: 'dents:Dent': importing dents raised "
        "ZeroDivisionError: division by zero"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        shapes.find("dent")
    assert (shapes["round"], shapes["oval"].__name__) == (1, "Oval")


def test_a_name_that_two_packages_use_is_refused_with_both(site, shapes):
    install(site, "one", {GROUP: {"oval": "ones:Oval", "round": "ones:Round"}}, ones=SHAPES)
    install(site, "two", {GROUP: {"oval": "twos:Oval"}}, twos=SHAPES)
    with pytest.raises(ValueError, match=r"'oval' is a name of one 1\.0 \(ones:Oval\) and two 1"):
        shapes.find("oval")
    with pytest.raises(ValueError, match=r"'round' is a name of d3fast and one 1\.0 \(ones:Round"):
        shapes.find("round")
    assert list(shapes) == ["round", "square", "oval"]
    assert shapes["square"] == 2
    assert shapes.find("ones:Oval").__name__ == "Oval"


def test_packages_of_the_current_folder_are_no_plugins(site, shapes, monkeypatch):
    install(site, "other", {GROUP: {"oval": "shapes_of_others:Oval"}}, shapes_of_others=SHAPES)
    monkeypatch.chdir(site)
    assert list(shapes) == ["round", "square"]
    with pytest.raises(ValueError, match="shape must be one of 'round', 'square', or package"):
        shapes.find("oval")


def test_of_one_package_in_two_folders_the_first_counts(site, shapes, tmp_path, monkeypatch):
    for folder, version in ((site, "1.0"), (tmp_path / "first", "2.0")):
        install(folder, "other", {GROUP: {"oval": "ovals:Oval"}}, version=version, ovals=SHAPES)
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert shapes.origin("oval") == "other 2.0"


def test_an_unknown_name_lists_the_others(shapes):
    with pytest.raises(KeyError):
        shapes["oblong"]
    with pytest.raises(ValueError, match=r"'round', 'square', or package.module:name, got 'a/b'"):
        shapes.find("a/b")


def test_a_module_that_is_missing_is_told_from_one_that_misses_another(site):
    (site / "needy.py").write_text("import nowhere_at_all\n")
    with pytest.raises(ValueError, match="there is no module 'nowhere_at_all' in the folders"):
        import_object("shape", "nowhere_at_all:Oval")
    with pytest.raises(ValueError, match="importing needy raised ModuleNotFoundError: No module"):
        import_object("shape", "needy:Oval")
    with pytest.raises(ValueError, match="re has no 'Oval'"):
        import_object("shape", "re:Oval")
    with pytest.raises(ValueError, match=r"shape must be package\.module:name, got 're'"):
        import_object("shape", "re")
    assert not is_spec(3)


def test_the_origin_of_a_module_is_its_distribution_or_a_digest_of_its_file(site):
    install(site, "other", {}, version="3.1", ovals=SHAPES)
    (site / "loose.py").write_text(SHAPES)
    assert origin("ovals:Oval") == "other 3.1"
    assert re.fullmatch("sha256 [0-9a-f]{16}", origin("loose:Oval"))
    assert origin("sys:path") == "no version"


def test_only_what_is_not_built_in_has_an_origin(site, shapes):
    install(site, "other", {GROUP: {"oval": "ovals:Oval"}}, ovals=SHAPES)
    assert shapes.origins("round", None, "oval", "re:compile") == {
        "shape oval": "other 1.0",
        "shape re:compile": origin("re:compile"),
    }
