# SPDX-License-Identifier: Apache-2.0
"""External tools of the GPU check: find them, run them with a time limit, report failures."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gpu-check"
TOOLS = ("cmake", "ninja", "nvcc", "cuobjdump", "nvdisasm", "compute-sanitizer", "ncu")


class Skipped(Exception):
    """A step cannot run: something it needs is missing."""


class Failed(Exception):
    """A step ran and found an error; ``figures`` are those measured until then."""

    def __init__(self, reason: str, figures: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.figures = list(figures)


def find_tool(name: str) -> str | None:
    """Return the path of a tool on PATH or in a CUDA installation, or ``None``."""
    homes = [Path(v) / "bin" for n in ("CUDA_HOME", "CUDA_PATH") if (v := os.environ.get(n))]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, homes), "/usr/local/cuda/bin"])
    return shutil.which(name, path=path)


def tools() -> list[str]:
    """Return the names of the installed tools."""
    return [name for name in TOOLS if find_tool(name)]


def require_tools(*names: str) -> list[str]:
    """Return the paths of tools; raise ``Skipped`` if one is missing."""
    missing = [name for name in names if find_tool(name) is None]
    if missing:
        raise Skipped(f"{' and '.join(missing)} not found")
    return [path for name in names if (path := find_tool(name))]


def has_module(name: str) -> bool:
    """Return whether Python has a module, without importing it."""
    return importlib.util.find_spec(name) is not None


def require_modules(*names: str) -> None:
    """Raise ``Skipped`` if a Python module is missing."""
    missing = [name for name in names if not has_module(name)]
    if missing:
        raise Skipped(f"Python has no {' and no '.join(missing)}")


def capability() -> str | None:
    """Return the architecture of the first GPU as in ``sm_90``: ``"90"``; ``None`` without one."""
    if not torch.cuda.is_available():
        return None
    return "".join(map(str, torch.cuda.get_device_capability()))


@dataclass(frozen=True)
class Done:
    """Finished process: its exit code, ``None`` after a timeout, and its output."""

    code: int | None
    output: str

    def last_lines(self, count: int = 6) -> str:
        """Return the end of the output, with the path of the checkout replaced by ``.``."""
        lines = self.output.replace(str(ROOT), ".").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-count:])


def run(command: Sequence[str], seconds: float, **variables: str) -> Done:
    """Run a command in the checkout; after ``seconds`` it is killed with its children.

    Example:
        >>> import sys
        >>> run([sys.executable, "-c", "print(1)"], 60)
        Done(code=0, output='1\\n')
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Done(None, output)
    return Done(process.returncode, output)


def run_module(
    module: str,
    arguments: Sequence[str],
    seconds: float,
    prefix: Sequence[str] = (),
    **variables: str,
) -> Done:
    """Run a module of this checkout with this Python, below a tool if ``prefix`` names one."""
    return run([*prefix, sys.executable, "-m", module, *arguments], seconds, **variables)


def check_exit(done: Done, what: str, figures: Sequence[Any] = ()) -> None:
    """Raise ``Failed`` unless the process exited with 0 in time."""
    if done.code is None:
        raise Failed(f"{what} reached its time limit: {done.last_lines(2)}", figures)
    if done.code != 0:
        raise Failed(f"{what} exited with {done.code}: {done.last_lines()}", figures)
