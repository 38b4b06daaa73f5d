# SPDX-License-Identifier: Apache-2.0
"""Drives the CMake build of d3fast/_C; everything else is in pyproject.toml.

Without a C++ compiler the package installs without the extension, and steps run in plain PyTorch.

Environment: D3FAST_EXTENSION and D3FAST_CUDA=on|off|auto, CUDAARCHS or TORCH_CUDA_ARCH_LIST for the
GPU architectures, CMAKE_ARGS for anything else CMake should be told.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def cuda_architectures() -> str | None:
    """CMake's form of TORCH_CUDA_ARCH_LIST ("8.0 9.0+PTX" -> "80-real;90"); CUDAARCHS wins."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if "CUDAARCHS" in os.environ or not re.fullmatch(r"(\d+\.\d+a?(\+PTX)?[; ]*)+", listed):
        return None
    names = re.split(r"[; ]+", listed.strip())
    return ";".join(
        name.removesuffix("+PTX").replace(".", "") + ("" if name.endswith("+PTX") else "-real")
        for name in names
    )


def has_compiler() -> bool:
    """Whether there is a compiler for the kernels, which use vector types of GCC and Clang."""
    if sys.platform == "win32":
        return False
    given = os.environ.get("CXX")
    names = [shlex.split(given)[0]] if given else ["c++", "g++", "clang++"]
    return any(map(shutil.which, names))


def wants_extension() -> bool:
    """Whether to build d3fast/_C: where a compiler is, unless D3FAST_EXTENSION says otherwise."""
    mode = os.environ.get("D3FAST_EXTENSION", "auto").lower()
    if mode not in ("on", "off", "auto"):
        raise SystemExit(f"D3FAST_EXTENSION must be on, off or auto, got {mode}")
    found = mode == "on" or (mode == "auto" and has_compiler())
    if not found and mode == "auto":
        print("d3fast: no C++ compiler, so the extension is left out", file=sys.stderr)
    return found


class CMakeBuild(build_ext):
    def run(self) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath("d3fast._C")).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        if self.editable_mode:  # not in a temporary folder: the next build compiles what changed
            build = (
                ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}" / "cmake"
            )
            (build / "CMakeCache.txt").unlink(missing_ok=True)
        build.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        options = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            # Given again each time: a cached path may lie in a build environment that is gone.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja"),
            "D3FAST_CUDA": os.environ.get("D3FAST_CUDA"),
            "CMAKE_CUDA_ARCHITECTURES": cuda_architectures(),
        }
        given = [f"-D{name}={value}" for name, value in options.items() if value is not None]
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        subprocess.run(["cmake", "-G", "Ninja", ROOT, *given, *extra], cwd=build, check=True)
        subprocess.run(["cmake", "--build", build], check=True)


setup(
    ext_modules=[Extension("d3fast._C", sources=[])] if wants_extension() else [],
    cmdclass={"build_ext": CMakeBuild},
)
