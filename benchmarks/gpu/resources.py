# SPDX-License-Identifier: Apache-2.0
"""Registers, spills and 16-byte memory accesses of the compiled kernels, from nvcc and SASS."""

import re
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.tools import (
    BUILD,
    Failed,
    capability,
    check_exit,
    find_tool,
    require_tools,
    run,
)

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


def compiled(nvcc: str, arch: str, seconds: float) -> tuple[Path, str]:
    """Compile the kernels for one architecture; return the cubin and what ptxas said."""
    BUILD.mkdir(parents=True, exist_ok=True)
    cubin = BUILD / "launch.cubin"
    options = ["-std=c++17", "-O3", "-Icsrc", "-Xptxas", "-v", f"-arch=sm_{arch}", "-cubin"]
    done = run([nvcc, *options, "-o", str(cubin), "csrc/cuda/launch.cu"], seconds)
    check_exit(done, "nvcc")
    return cubin, done.output


def measure(seconds: float) -> list[Figure]:
    """Measure registers, spills and 16-byte accesses of every kernel.

    Raises:
        Failed: a kernel spills, or one that steps has no 16-byte access.
    """
    (nvcc,) = require_tools("nvcc")
    cubin, said = compiled(nvcc, capability() or "90", seconds)
    kernels = spills(said)
    if not kernels:
        raise Failed("nvcc reported no kernel")
    spilled = sum(k["spilled"] for k in kernels)
    found = [
        Figure("kernels", len(kernels), ""),
        Figure("registers: most", max(k["registers"] for k in kernels), ""),
        Figure("spilled bytes", spilled, "B"),
    ]
    cuobjdump = find_tool("cuobjdump")
    if cuobjdump is not None:
        counts = wide_accesses(run([cuobjdump, "-sass", str(cubin)], seconds).output)
        found.append(Figure("16-byte accesses", sum(counts.values()), ""))
        narrow = [k for k, n in counts.items() if n == 0 and re.search("(update|step)_kernel", k)]
        if narrow:
            raise Failed(f"no 16-byte accesses in {', '.join(narrow)}", found)
    if spilled:
        names = ", ".join(k["kernel"] for k in kernels if k["spilled"])
        raise Failed(f"{spilled} bytes spilled: {names}", found)
    return found
