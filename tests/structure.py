# SPDX-License-Identifier: Apache-2.0
"""Check the layout of the repository: ``python -m tests.structure``, part of ``make lint``.

The test of ``d3fast/a/b.py`` is ``tests/a/test_b.py``, a test folder has a source folder of its
name, no source file has more than 400 lines, and ``# fmt: skip`` is rare. Every violation is one
line on stdout; the exit code is 1 if there is any.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
MAX_SKIPS = 50
SUFFIXES = (".py", ".pyi", ".cpp", ".h", ".cu", ".cuh")
FOLDERS = ("d3fast", "csrc", "tests", "benchmarks")
# Re-exports and entry points: the tests of what they call cover them.
NO_TWIN = ("__init__.py", "__main__.py")
# Test folders about a whole: many implementations, hostile files, process groups, a GPU, a package.
NO_SOURCE = ("contracts", "hostile", "distributed", "gpu", "plugin_package")
OUTSIDE = ("benchmarks", "csrc")  # source folders beside d3fast


def missing_tests(root: Path) -> Iterator[str]:
    """Name every module of d3fast without a test file of its own."""
    for source in sorted(root.glob("d3fast/**/*.py")):
        inner = source.relative_to(root / "d3fast")
        twin = root / "tests" / inner.parent / f"test_{inner.stem.lstrip('_')}.py"
        if source.name not in NO_TWIN and not twin.exists():
            yield f"{source.relative_to(root)} has no {twin.relative_to(root)}"


def stray_folders(root: Path) -> Iterator[str]:
    """Name every test folder without a source folder of its name."""
    for folder in sorted({path.parent for path in root.glob("tests/*/**/test_*.py")}):
        inner = folder.relative_to(root / "tests")
        if inner.parts[0] in NO_SOURCE:
            continue
        source = inner if inner.parts[0] in OUTSIDE else Path("d3fast", inner)
        if not (root / source).is_dir():
            yield f"{folder.relative_to(root)} has no {source}"


def _sources(root: Path) -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in SUFFIXES and "templates" not in path.parts
    )


def long_files(root: Path) -> Iterator[str]:
    """Name every source file of more than ``MAX_LINES`` lines."""
    for path in _sources(root):
        count = len(path.read_text().splitlines())
        if count > MAX_LINES:
            yield f"{path.relative_to(root)} has {count} lines, more than {MAX_LINES}"


def format_skips(root: Path) -> Iterator[str]:
    """Report more than ``MAX_SKIPS`` places where the formatter is switched off."""
    marker = "# fmt: " + "skip"
    count = sum(path.read_text().count(marker) for path in _sources(root))
    if count > MAX_SKIPS:
        yield f"'{marker}' stands {count} times, more than {MAX_SKIPS}"


def main(root: Path = ROOT) -> int:
    """Print every violation; return the exit code."""
    checks = (missing_tests, stray_folders, long_files, format_skips)
    lines = [line for check in checks for line in check(root)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
