# SPDX-License-Identifier: Apache-2.0
"""Build of the extension in place for the installed GPU, as setup.py does without setuptools.

setuptools may be older than pyproject.toml needs. A build of the same sources for the same GPU and
Python is kept, so that every stage can be run alone.
"""

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.tools import (
    BUILD,
    ROOT,
    Failed,
    capability,
    check_exit,
    require_modules,
    require_tools,
    run,
)

STAMP = BUILD / "stamp"
NAME = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"


def fingerprint() -> str:
    """Return what a build follows from: sources, architecture and Python."""
    sources = sorted(p for p in (ROOT / "csrc").rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for path in (ROOT / "CMakeLists.txt", *sources):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{digest.hexdigest()} sm_{capability()} {NAME}"


def is_built() -> bool:
    """Return whether the extension in place is that of these sources."""
    present = STAMP.exists() and (ROOT / "d3fast" / NAME).exists()
    return present and STAMP.read_text() == fingerprint()


def extension(folder: Path, seconds: float, flags: str = "") -> Path:
    """Build the extension in a folder of its own and return its path.

    Args:
        folder: of the build, emptied first.
        seconds: time limit of the compiler.
        flags: further ones for nvcc.

    Raises:
        Skipped: a tool or pybind11 is missing.
        Failed: the build failed.
    """
    cmake, ninja, nvcc = require_tools("cmake", "ninja", "nvcc")
    require_modules("pybind11")
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(folder / "lib"),
        "CMAKE_MAKE_PROGRAM": ninja,
        "CMAKE_CUDA_COMPILER": nvcc,
        "CMAKE_CUDA_ARCHITECTURES": f"{capability() or 90}-real",
        "CMAKE_CUDA_FLAGS": flags,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "D3FAST_CUDA": "on",
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = [f"-D{name}={value}" for name, value in options.items()]
    check_exit(run([cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), *given], 90), "cmake")
    check_exit(run([cmake, "--build", str(folder)], seconds), "the build")
    built = folder / "lib" / NAME
    if not built.exists():
        raise Failed(f"the build made no {NAME}")
    return built


def measure(seconds: float) -> list[Figure]:
    """Build the extension in place, unless that is done; raise as ``extension`` does."""
    if is_built():
        return []
    built = extension(BUILD, seconds)
    new = ROOT / "d3fast" / f"{NAME}.new"
    shutil.copy2(built, new)
    new.replace(ROOT / "d3fast" / NAME)  # another process may have the old file open
    STAMP.write_text(fingerprint())
    return []
