"""Build a wheel for every CPython of this machine: ``python -m tests.wheels``.

``make wheels`` runs it. It takes the sdist in ``dist``, so that what is missing there is noticed.
Each wheel is unpacked elsewhere and takes steps in its own Python (``wheel_step.py``). auditwheel,
where installed, names the oldest C library that the wheel runs with. With ccache the kernels are
compiled once for all. ``PYTHONS=3.11,3.13`` builds for these versions alone.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST, WORK = ROOT / "dist", ROOT / "build" / "wheels"
OLDEST = (3, 10)
NEWEST_MINOR = 20  # of the names that are looked for
# Name, version and ABI of an interpreter that can build: CPython with its headers.
PROBE = """
import pathlib, sys, sysconfig
assert sys.implementation.name == "cpython"
assert pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
print(*sys.version_info[:2], "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""


def candidates() -> list[str]:
    """Return paths that may be interpreters: this one, then those on PATH, then those of pyenv."""
    names = [f"python3.{minor}{t}" for minor in range(OLDEST[1], NEWEST_MINOR) for t in ("", "t")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(map(str, pyenv.glob("versions/*/bin/python3")))
    return [sys.executable, *filter(None, map(shutil.which, names)), *installed]


def interpreters(paths: Iterable[str]) -> dict[str, str]:
    """Return the interpreters that can build, by version such as ``3.13`` or ``3.13t``."""
    found: dict[str, str] = {}
    for path in paths:
        probe = subprocess.run([path, "-c", PROBE], check=False, capture_output=True, text=True)
        if probe.returncode == 0:
            major, minor, *threads = probe.stdout.split()
            if (int(major), int(minor)) >= OLDEST:
                found.setdefault(f"{major}.{minor}{''.join(threads)}", path)
    return found


def build(python: str, source: Path, folder: Path) -> Path:
    """Build a wheel with an interpreter; return its path in ``folder``."""
    folder.mkdir(parents=True)
    variables = dict(os.environ, D3FAST_EXTENSION="on")
    if shutil.which("ccache"):
        variables.update(CMAKE_CXX_COMPILER_LAUNCHER="ccache", CCACHE_BASEDIR=str(ROOT))
    pip = [sys.executable, "-m", "pip", "--python", python]
    command = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, env=variables, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def repair(wheel: Path) -> Path:
    """Move a wheel to ``dist``, under the name of the oldest C library it runs with."""
    scripts = sysconfig.get_path("scripts")
    variables = dict(os.environ, PATH=os.pathsep.join([scripts, os.environ.get("PATH", "")]))
    command = ["auditwheel", "repair", "--strip", "--wheel-dir", str(DIST), str(wheel)]
    before = set(DIST.glob("*.whl"))
    if shutil.which("auditwheel", path=variables["PATH"]):
        subprocess.run(command, env=variables, check=True)
        (repaired,) = set(DIST.glob("*.whl")) - before
        return repaired
    return Path(shutil.copy(wheel, DIST))


def main() -> None:
    """Build and check all wheels."""
    shutil.rmtree(WORK, ignore_errors=True)
    (archive,) = DIST.glob("*.tar.gz")
    shutil.unpack_archive(archive, WORK)
    (source,) = WORK.iterdir()
    found = interpreters(candidates())
    if wanted := os.environ.get("PYTHONS"):
        found = {version: found[version] for version in wanted.split(",")}
    for version, python in found.items():
        wheel = repair(build(python, source, WORK / version / "built"))
        unpacked = WORK / version / "unpacked"
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(unpacked)
        subprocess.run([python, str(ROOT / "tests" / "wheel_step.py"), str(unpacked)], check=True)
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if own not in found:
        return
    variables = dict(os.environ, PYTHONPATH=str(WORK / own / "unpacked"))
    subprocess.run([sys.executable, "-m", "d3fast", "env"], env=variables, cwd=DIST, check=True)


if __name__ == "__main__":
    main()
