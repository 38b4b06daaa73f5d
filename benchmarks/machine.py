# SPDX-License-Identifier: Apache-2.0
"""Name of the machine type for result files, and the size of its last-level cache."""

import re
from pathlib import Path

import torch

from d3fast.runtime import environment

# Words of a GPU's name that do not distinguish models.
_NOISE = {"nvidia", "geforce", "tesla", "quadro", "pcie", "sxm", "gpu", "laptop"}
_L3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def short_name(gpu: str) -> str:
    """Return a GPU's name in one word.

    Example:
        >>> short_name("NVIDIA H100 80GB HBM3"), short_name("NVIDIA GeForce RTX 4090")
        ('h100', 'rtx-4090')
    """
    words = re.findall(r"[a-z0-9]+", gpu.lower())
    kept = [w for w in words if w not in _NOISE and not re.fullmatch(r"\d+gb|hbm\w+|sxm\d", w)]
    return "-".join(kept) or "gpu"


def machine_name(device: torch.device) -> str:
    """Return the first part of a result file's name: ``cpu-2core``, ``h100``."""
    if device.type == "cuda":
        return short_name(torch.cuda.get_device_properties(device).name)
    return f"cpu-{environment.cores()}core"


def cache_bytes(device: torch.device) -> int | None:
    """Return the bytes of the last-level cache, ``None`` if unknown."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None)
    try:
        return int(_L3.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return None
