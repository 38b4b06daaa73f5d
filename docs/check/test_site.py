# SPDX-License-Identifier: Apache-2.0
"""Every public name is in the API reference of the built site, with a docstring."""

import importlib
import inspect
import sys

import pytest

from docs.check.pages import DOCS, ROOT

sys.path.insert(0, str(DOCS / "_ext"))
inventory = pytest.importorskip("sphinx.util.inventory")
generated_pages = importlib.import_module("generated_pages")
BUILT = ROOT / "build" / "docs" / "objects.inv"


@pytest.fixture(scope="module")
def documented():
    loaded = inventory.InventoryFile.loads(BUILT.read_bytes(), uri="")
    return {name for kind, names in loaded.data.items() if kind.startswith("py:") for name in names}


def full_names():
    """Return (where it is documented, the object) of every public name and public module."""
    homes = generated_pages.exported()
    for name in generated_pages.public_modules():
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            names = getattr(module, "__all__", ())
        else:
            names = generated_pages.own_names(module)
        for public in names:
            value = getattr(module, public)
            if not inspect.ismodule(value):
                yield f"{homes.get((id(value), public), name)}.{public}", value
        yield name, module


def test_every_public_name_is_in_the_reference(documented):
    assert {name for name, _ in full_names()} - documented == set()


def test_every_public_class_function_and_module_has_a_docstring():
    bare = [
        name
        for name, value in full_names()
        if (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value))
        and not inspect.getdoc(value)
    ]
    assert bare == []
