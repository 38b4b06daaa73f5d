# SPDX-License-Identifier: Apache-2.0
"""Write the generated pages: ``api/*.rst``, ``commands.md``, ``old-modules.md``, ``notebook.md``.

Every module of d3fast whose name has no leading underscore gets a page. A name that a package
exports in ``__all__`` is documented once, on the page of the outermost package that exports it;
the other pages link to it.
"""

import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

import d3fast
from d3fast import _renamed

ROOT_PACKAGE = "d3fast"
Homes = Mapping[tuple[int, str], str]


def public_modules() -> list[str]:
    """Return the names of all public modules, packages included, in alphabetical order."""
    found = [ROOT_PACKAGE]
    for info in pkgutil.walk_packages(d3fast.__path__, f"{ROOT_PACKAGE}."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            found.append(info.name)
    return sorted(found)


def exported() -> Homes:
    """Map (id of the object, name) to the outermost package that exports the object."""
    homes: dict[tuple[int, str], str] = {}
    for name in sorted(public_modules(), key=lambda name: (name.count("."), name)):
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            for public in getattr(module, "__all__", ()):
                homes.setdefault((id(getattr(module, public)), public), name)
    return homes


def own_names(module: ModuleType) -> list[str]:
    """Return the public classes and functions that a module defines, in their order."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and getattr(value, "__module__", None) == module.__name__
    ]


def _title(text: str, line: str = "=") -> Iterator[str]:
    yield from (text, line * len(text), "")


def _entry(full_name: str, value: object) -> Iterator[str]:
    """Yield the directive that documents one object."""
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        bases = () if value.__bases__ == (object,) else ("   :show-inheritance:",)
        yield from (f".. {kind}:: {full_name}", "   :members:", *bases, "")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {full_name}", "")
    else:
        kind = "Mapping" if isinstance(value, Mapping) else type(value).__name__
        module, _, name = full_name.rpartition(".")
        yield from (f".. py:data:: {name}", f"   :module: {module}", f"   :type: {kind}", "")
        if isinstance(value, Mapping | Set | Sequence) and value:
            yield from (f"   {', '.join(f'``{entry}``' for entry in value)}", "")


def _links(title: str, entries: Sequence[str]) -> Iterator[str]:
    if entries:
        yield from (f".. rubric:: {title}", "", *(f"* {entry}" for entry in entries), "")


def _toctree(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield from (".. toctree::", "   :maxdepth: 1", "   :caption: Modules", "")
        yield from (*(f"   {name}" for name in names), "")


def children(package: str) -> list[str]:
    """Return the public modules directly below a package."""
    return [name for name in public_modules() if name.rpartition(".")[0] == package]


def package_page(package: ModuleType, homes: Homes) -> Iterator[str]:
    """Yield the lines of a package's page: its docstring and every name in ``__all__``."""
    name = package.__name__
    yield from _title(name)
    yield from (f".. automodule:: {name}", "   :no-members:", "")
    elsewhere, entries = [], []
    for public in getattr(package, "__all__", ()):
        value = getattr(package, public)
        home = homes[id(value), public]
        if inspect.ismodule(value):
            elsewhere.append(f"``{public}``: the module :py:mod:`{value.__name__}`")
        elif home != name:
            elsewhere.append(f":py:obj:`{home}.{public}`")
        else:
            entries += _entry(f"{name}.{public}", value)
    yield from _links("Documented on other pages", elsewhere)
    yield from entries
    yield from _toctree(children(name) if name != ROOT_PACKAGE else [])


def module_page(module: ModuleType, homes: Homes) -> Iterator[str]:
    """Yield the lines of a module's page: its docstring and the names that it defines."""
    name = module.__name__
    yield from _title(name)
    parent, _, last = name.rpartition(".")
    if inspect.ismodule(getattr(importlib.import_module(parent), last)):
        yield from (f".. automodule:: {name}", "   :no-members:", "")
    else:  # the package exports an object under the name of its module: only one can be indexed
        yield from (*escaped_bars((inspect.getdoc(module) or "").splitlines()), "")
    elsewhere = []
    for public in own_names(module):
        value = getattr(module, public)
        home = homes.get((id(value), public), name)
        if home == name:
            yield from _entry(f"{name}.{public}", value)
        else:
            elsewhere.append(f":py:obj:`{home}.{public}`")
    yield from _links("Documented on the page of the package", elsewhere)


def index_page() -> Iterator[str]:
    """Yield the lines of the first page of the reference."""
    yield from _title("API reference")
    yield from (
        "Every public module and every public name, generated from the docstrings. A name that a",
        "package exports is documented on the page of the package: import it from there.",
        "",
    )
    yield from _toctree([ROOT_PACKAGE, *children(ROOT_PACKAGE)])


def write_api(folder: Path) -> None:
    """Write one page per public module and the index into an emptied folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    homes = exported()
    for name in public_modules():
        module = importlib.import_module(name)
        page = package_page if hasattr(module, "__path__") else module_page
        (folder / f"{name}.rst").write_text("\n".join(page(module, homes)), encoding="utf-8")
    (folder / "index.rst").write_text("\n".join(index_page()), encoding="utf-8")


def write_commands(path: Path) -> None:
    """Write every command and option, by Typer's own generator."""
    command = (sys.executable, "-m", "typer", "d3fast.cli", "utils", "docs", "--name", "d3fast")
    done = subprocess.run(
        [*command, "--title", "Commands"], check=True, capture_output=True, text=True
    )
    path.write_text(done.stdout, encoding="utf-8")


def write_old_modules(path: Path) -> None:
    """Write the table of modules that moved, from ``d3fast._renamed``."""
    rows = (f"| `{old}` | `{new}` |" for old, new in sorted(_renamed.MODULES.items()))
    text = (
        "# Modules that moved",
        "",
        "An old module name can be imported for one release, with a `DeprecationWarning`.",
        "",
        "| old | new |",
        "|---|---|",
        *rows,
        "",
    )
    path.write_text("\n".join(text), encoding="utf-8")


def write_notebook(notebook: Path, path: Path) -> None:
    """Write the cells of a notebook as a page; a test runs them."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        # Not "python": lines of the shell are no Python.
        parts.append(text if cell["cell_type"] == "markdown" else f"```text\n{text}\n```")
    parts.append(f"The notebook itself: {{download}}`{notebook.name} <examples/{notebook.name}>`.")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    """Write all generated pages before Sphinx reads its sources."""
    source = Path(app.srcdir)
    write_api(source / "api")
    write_commands(source / "commands.md")
    write_old_modules(source / "old-modules.md")
    write_notebook(source / "examples" / "check_and_repair.ipynb", source / "notebook.md")


def escaped_bars(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines with ``|x|`` escaped: docutils would look for a substitution named x."""
    literal = None  # indentation of the line that announced a literal block
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and literal is not None and depth <= literal:
            literal = None
        if literal is None and not line.lstrip().startswith(">>>"):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = (part.replace("|", r"\|") for part in parts[::2])
            if line.rstrip().endswith("::"):
                literal = depth
            line = "".join(parts)
        yield line


def process_docstring(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Rewrite a docstring in place before napoleon reads it."""
    lines[:] = escaped_bars(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", process_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
