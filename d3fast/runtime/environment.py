# SPDX-License-Identifier: Apache-2.0
"""Versions, the built extension and the machine, for ``d3fast env`` and every result file.

Host names, user names and paths are left out on purpose: results are meant to be shared.
"""

import importlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Return the versions of d3fast, Python and torch."""
    try:
        own = metadata.version("d3fast")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"d3fast": own, "python": platform.python_version(), "torch": torch.__version__}


def cpu_model() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of logical CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the names of the CUDA devices with compute capability and memory."""
    properties = [
        torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())
    ]
    return [f"{p.name} (sm_{p.major}{p.minor}, {p.total_memory >> 30} GiB)" for p in properties]


def machine() -> dict[str, Any]:
    """Describe the machine without identifying it."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpus": gpus(),
    }


def build_info() -> dict[str, Any] | None:
    """Return the build options of the compiled extension, or ``None`` without an extension."""
    try:
        extension = importlib.import_module("d3fast._C")
    except ImportError:
        return None
    return dict(extension.build_info())


def commit() -> str | None:
    """Return the git commit of a source checkout, with ``+`` appended if files differ from it.

    The result is ``None`` if the package does not run from its own checkout or git is missing.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # perhaps installed inside another project's checkout
        return None

    # Inside a git hook these variables point git at another repository.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def describe() -> list[tuple[str, str]]:
    """Return the labels and values that ``d3fast env`` prints."""
    facts: dict[str, Any] = dict(versions())
    built = build_info()
    if built is None:
        facts["extension"] = "missing: only the slower backend='reference' works; reinstall d3fast"
    else:
        facts.update({f"extension {key.replace('_', ' ')}": built[key] for key in built})
    facts.update(machine())
    facts["torch cuda"] = torch.version.cuda
    facts["commit"] = commit()
    return [(label, _shown(value)) for label, value in facts.items()]
