# SPDX-License-Identifier: Apache-2.0
"""Registers, spills and 16-byte memory accesses of the compiled kernels, from nvcc and SASS.

``python -m benchmarks.gpu.resources`` compiles for every architecture of the wheel, without a GPU,
and writes ``benchmarks/results/kernel-resources.json``: a row per architecture, kind of kernel and
dtypes. Exit code 1: a kernel spills.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

_SPILLS = re.compile(
    r"Compiling entry function '(\S+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill "
    r"loads.*?Used (\d+) registers",
    re.S,
)
_WIDE = re.compile(r"\b(?:LDG|STG)\.E\S*\.128\b")
_KERNEL = re.compile(r"(\w+)_kernel<(?:\w+::)?DTypeTriple<([^>]*)>")
ARCHITECTURES = ("75", "80", "90", "100", "120")
OUTPUT = Path(__file__).parents[1] / "results" / "kernel-resources.json"


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
    cubin = BUILD / f"launch-{arch}.cubin"
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
        disassembled = run([cuobjdump, "-sass", str(cubin)], seconds)
        check_exit(disassembled, "cuobjdump", found)
        counts = wide_accesses(disassembled.output)
        found.append(Figure("16-byte accesses", sum(counts.values()), ""))
        narrow = [k for k, n in counts.items() if n == 0 and re.search("(update|step)_kernel", k)]
        if narrow:
            raise Failed(f"no 16-byte accesses in {', '.join(narrow)}", found)
    if spilled:
        names = ", ".join(k["kernel"] for k in kernels if k["spilled"])
        raise Failed(f"{spilled} bytes spilled: {names}", found)
    return found


def readable(kernels: Sequence[str]) -> list[str]:
    """Return each kernel's kind, its rule unless SGD, and dtypes: weights, momentum, reference.

    Example:
        >>> readable(["_ZN2d313verify_kernelINS_11DTypeTripleIffNS_4Bf16EEEEEvNS_10DeviceStepE"])
        ['verify: float, float, Bf16']
    """
    (filt,) = require_tools("c++filt")
    names = run([filt, *kernels], 60).output.splitlines()
    found = [_KERNEL.search(name) for name in names]
    rules = [" of AdamW" if "AdamwRule" in name else "" for name in names]
    return [
        f"{f[1]}{rule}: {f[2].replace('d3::', '')}" if f else name
        for f, rule, name in zip(found, rules, names, strict=True)
    ]


def rows(arch: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row per kind of kernel: the most registers, all spills, the fewest wide accesses."""
    nvcc, cuobjdump = require_tools("nvcc", "cuobjdump")
    cubin, said = compiled(nvcc, arch, seconds)
    kernels = spills(said)
    disassembled = run([cuobjdump, "-sass", str(cubin)], seconds)
    check_exit(disassembled, "cuobjdump")
    counts = wide_accesses(disassembled.output)
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, kernel in zip(readable([k["kernel"] for k in kernels]), kernels, strict=True):
        groups.setdefault(name, []).append(kernel)
    for name, members in sorted(groups.items()):
        yield {
            "kind": "kernel-resources",
            "arch": f"sm_{arch}",
            "kernel": name,
            "variants": len(members),
            "registers": max(k["registers"] for k in members),
            "spilled": sum(k["spilled"] for k in members),
            "wide_accesses": min(counts[k["kernel"]] for k in members),
        }


def resources_table(results: Results) -> str:
    """Return the most registers by kind of kernel and architecture, and all spilled bytes."""
    kinds = {
        "tracked, fp32 weights": "step: float",
        "tracked, half weights": "step: (Bf16|F16)",
        "tracked, AdamW, fp32 weights": "step of AdamW: float",
        "tracked, AdamW, half weights": "step of AdamW: (Bf16|F16)",
        "untracked": "update: ",
        "untracked, AdamW": "update of AdamW: ",
        "projection of shards": "shard: ",
        "projection of shards, AdamW": "shard of AdamW: ",
        "verification": "verify: ",
    }
    archs = list(dict.fromkeys(row["arch"] for row in results.rows))
    lines = []
    for title, pattern in kinds.items():
        members = [row for row in results.rows if re.match(pattern, row["kernel"])]
        most = (max(r["registers"] for r in members if r["arch"] == arch) for arch in archs)
        if members:
            lines.append([title, *map(str, most)])
    spilled = (sum(r["spilled"] for r in results.rows if r["arch"] == arch) for arch in archs)
    lines.append(["bytes spilled, all kernels", *map(str, spilled)])
    return to_markdown(text_table(["", *archs], lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile for every architecture, print a line for each, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.resources")
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--seconds", type=float, default=1800.0, help="limit of one compilation")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for of_arch in pool.map(lambda arch: list(rows(arch, given.seconds)), given.arch):
            most, spilled = max(r["registers"] for r in of_arch), sum(r["spilled"] for r in of_arch)
            print(f"{of_arch[0]['arch']}: at most {most} registers, {spilled} bytes spilled")
            found += of_arch
    version = run([find_tool("nvcc") or "nvcc", "--version"], 60).output
    release = re.search(r"release ([\d.]+)", version)
    settings = {"arch": given.arch, "nvcc": release[1] if release else None}
    Results("python -m benchmarks.gpu.resources", settings, found).write(given.output)
    return int(any(row["spilled"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
