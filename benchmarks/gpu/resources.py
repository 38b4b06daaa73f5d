# SPDX-License-Identifier: Apache-2.0
"""Registers, spills and 16-byte memory accesses of the compiled kernels, from nvcc and SASS."""

import re
from typing import Any

import torch

from benchmarks.gpu.tools import BUILD, Failed, Limits, check_exit, find_tool, require_tools, run

_SPILLS = re.compile(
    r"Compiling entry function '(\S+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill "
    r"loads.*?Used (\d+) registers",
    re.S,
)
_WIDE = re.compile(r"\b(?:LDG|STG)\.E\S*\.128\b")


def spills(ptxas: str) -> list[dict[str, Any]]:
    """Parse the registers and spilled bytes of each kernel from ``ptxas -v``.

    Example:
        >>> spills('''ptxas info : Compiling entry function 'k' for 'sm_90'
        ... 0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
        ... ptxas info : Used 40 registers''')
        [{'kernel': 'k', 'arch': 'sm_90', 'registers': 40, 'spilled': 12}]
    """
    return [
        {"kernel": k, "arch": a, "registers": int(r), "spilled": int(s) + int(o)}
        for k, a, s, o, r in _SPILLS.findall(ptxas)
    ]


def wide_accesses(sass: str) -> dict[str, int]:
    """Count 16-byte loads and stores of global memory per kernel in a SASS listing.

    Example:
        >>> wide_accesses("Function : k\\n LDG.E.128 R4 ;\\n STG.E.128 R4 ;\\n LDG.E R1 ;")
        {'k': 2}
    """
    counts: dict[str, int] = {}
    for part in sass.split("Function : ")[1:]:
        name, _, body = part.partition("\n")
        counts[name.strip()] = len(_WIDE.findall(body))
    return counts


def resources(limits: Limits) -> dict[str, Any]:
    """Measure registers, spills and 16-byte accesses of every kernel; a spill fails."""
    (nvcc,) = require_tools("nvcc")
    arch = (
        "".join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else "90"
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    cubin = BUILD / "launch.cubin"
    done = run(
        [
            nvcc,
            "-std=c++17",
            "-O3",
            "-Icsrc",
            "-Xptxas",
            "-v",
            f"-arch=sm_{arch}",
            "-cubin",
            "-o",
            str(cubin),
            "csrc/cuda/launch.cu",
        ],
        limits.seconds,
    )
    check_exit(done, "nvcc", limits)
    kernels = spills(done.output)
    found: dict[str, Any] = {
        "arch": f"sm_{arch}",
        "kernels": len(kernels),
        "most_registers": max((k["registers"] for k in kernels), default=0),
        "spilled": sum(k["spilled"] for k in kernels),
        "by_kernel": [f"{k['kernel']}: {k['registers']} registers" for k in kernels],
        "wide_accesses": None,
    }
    cuobjdump = find_tool("cuobjdump")
    if cuobjdump is not None:
        sass = run([cuobjdump, "-sass", str(cubin)], limits.seconds)
        counts = wide_accesses(sass.output) if sass.code == 0 else {}
        if counts:
            found["wide_accesses"] = sum(counts.values())
            narrow = [
                k
                for k, n in counts.items()
                if n == 0 and ("update_kernel" in k or "step_kernel" in k)
            ]
            if narrow:
                raise Failed(f"no 16-byte accesses in {', '.join(narrow)}", found)
    if not kernels:
        raise Failed("nvcc reported no kernel", found)
    if found["spilled"]:
        names = ", ".join(k["kernel"] for k in kernels if k["spilled"])
        raise Failed(f"{found['spilled']} bytes spilled: {names}", found)
    return found
