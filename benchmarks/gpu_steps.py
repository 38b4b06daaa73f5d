# SPDX-License-Identifier: Apache-2.0
"""The steps of ``gpu_check``: each runs a tool in a process of its own and reads what it says.

A step returns columns for its row; it raises ``Skipped`` where something it needs is missing and
``Failed`` where the tool ran and did not like what it saw.
"""

import csv
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "gpu-check"
TOOLS = ("cmake", "ninja", "nvcc", "cuobjdump", "nvdisasm", "compute-sanitizer", "ncu")
PROBED = 25_000_000  # elements of the tensor that ncu looks at


class Skipped(Exception):
    """Something the step needs is not there."""


class Failed(Exception):
    """The step ran and found something wrong; ``found`` are columns for its row."""

    def __init__(self, reason: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.found = dict(found or {})


@dataclass(frozen=True)
class Limits:
    """What a step is given: seconds, and the folder for files."""

    seconds: float
    out: Path


def _tool(name: str) -> str | None:
    homes = [Path(v) / "bin" for n in ("CUDA_HOME", "CUDA_PATH") if (v := os.environ.get(n))]
    places = os.pathsep.join([os.environ.get("PATH", ""), *map(str, homes), "/usr/local/cuda/bin"])
    return shutil.which(name, path=places)


def tools() -> list[str]:
    """Names of the tools that are there."""
    return [name for name in TOOLS if _tool(name)]


def _need(*names: str) -> list[str]:
    missing = [name for name in names if _tool(name) is None]
    if missing:
        raise Skipped(f"{' and '.join(missing)} not found")
    return [path for name in names if (path := _tool(name))]


def _need_module(*names: str) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"Python has no {' and no '.join(missing)}")


def _need_gpu() -> None:
    if not torch.cuda.is_available():
        raise Skipped("torch sees no GPU")


@dataclass(frozen=True)
class Done:
    """A process that ended: its exit code, ``None`` if it ran out of time, and what it said."""

    code: int | None
    output: str

    def last_lines(self, count: int = 6) -> str:
        """The end of the output, without the folder of the checkout."""
        lines = self.output.replace(str(ROOT), ".").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-count:])


def run(command: Sequence[str], seconds: float, **variables: str) -> Done:
    """Run a command in the checkout; when its time is over it ends, its children too.

    Example:
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
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Done(None, output)
    return Done(process.returncode, output)


def _insist(done: Done, what: str, limits: Limits, found: Mapping[str, Any] | None = None) -> None:
    if done.code is None:
        raise Failed(f"{what} was not done in {limits.seconds:.0f} s: {done.last_lines(2)}", found)
    if done.code != 0:
        raise Failed(f"{what} ended with {done.code}: {done.last_lines()}", found)


# ---------------------------------------------------------------------- build


def build(limits: Limits) -> dict[str, Any]:
    """The extension, in place, for the GPU that is there.

    What setup.py does, less setuptools, whose version here may be older than pyproject.toml needs.
    """
    cmake, ninja, nvcc = _need("cmake", "ninja", "nvcc")
    _need_module("pybind11")
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(BUILD / "lib"),
        "CMAKE_MAKE_PROGRAM": ninja,
        "CMAKE_CUDA_COMPILER": nvcc,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "D3FAST_CUDA": "on",
    }
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        options["CMAKE_CUDA_ARCHITECTURES"] = f"{major}{minor}-real"
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    given = [f"-D{name}={value}" for name, value in options.items()]
    configured = run([cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(BUILD), *given], 90)
    _insist(configured, "cmake", limits)
    _insist(run([cmake, "--build", str(BUILD)], limits.seconds), "the build", limits)
    name = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    built = BUILD / "lib" / name
    if not built.exists():
        raise Failed(f"the build made no {name}")
    fresh = ROOT / "d3fast" / f"{name}.new"
    shutil.copy2(built, fresh)
    fresh.replace(ROOT / "d3fast" / name)  # another process may have the old one open
    said = re.search(r"CUDA kernels with nvcc (\S+) for (.*)", configured.output)
    return {"nvcc": said[1], "archs": said[2]} if said else {}


# ---------------------------------------------------------------------- what the compiler made

_SPILLS = re.compile(
    r"Compiling entry function '(\S+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill "
    r"loads.*?Used (\d+) registers",
    re.S,
)
_WIDE = re.compile(r"\b(?:LDG|STG)\.E\S*\.128\b")


def spills(ptxas: str) -> list[dict[str, Any]]:
    """What ``ptxas -v`` says of each kernel.

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
    """16-byte loads and stores of global memory in a disassembly, by kernel.

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
    """Registers, spills and 16-byte accesses of every kernel; a spill fails."""
    (nvcc,) = _need("nvcc")
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
    _insist(done, "nvcc", limits)
    kernels = spills(done.output)
    found: dict[str, Any] = {
        "arch": f"sm_{arch}",
        "kernels": len(kernels),
        "most_registers": max((k["registers"] for k in kernels), default=0),
        "spilled": sum(k["spilled"] for k in kernels),
        "by_kernel": [f"{k['kernel']}: {k['registers']} registers" for k in kernels],
        "wide_accesses": None,
    }
    cuobjdump = _tool("cuobjdump")
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
        raise Failed("nvcc said nothing of any kernel", found)
    if found["spilled"]:
        names = ", ".join(k["kernel"] for k in kernels if k["spilled"])
        raise Failed(f"{found['spilled']} bytes spilled: {names}", found)
    return found


# ---------------------------------------------------------------------- tests and sanitizer


def _counts(output: str) -> dict[str, int]:
    """What pytest's last line counts.

    Example:
        >>> _counts("== 1 failed, 12 passed, 3 skipped in 2.00s ==")
        {'failed': 1, 'passed': 12, 'skipped_tests': 3}
    """
    names = {"failed": "failed", "passed": "passed", "skipped": "skipped_tests", "error": "errors"}
    last = output.strip().splitlines()[-1] if output.strip() else ""
    found = re.findall(r"(\d+) (failed|passed|skipped|error)", last)
    return {names[word]: int(count) for count, word in found}


def gpu_tests(limits: Limits) -> dict[str, Any]:
    """The tests that need a GPU, on fresh random inputs."""
    _need_module("pytest", "hypothesis")
    _need_gpu()
    done = run([sys.executable, "-m", "pytest", "-q", "tests/gpu"], limits.seconds)
    found = _counts(done.output)
    _insist(done, "pytest", limits, found)
    if not found.get("passed"):
        raise Failed(f"no test ran: {done.last_lines()}", found)
    return found


def _sanitize(tool: str, limits: Limits) -> dict[str, Any]:
    (sanitizer,) = _need("compute-sanitizer")
    _need_module("pytest")
    _need_gpu()
    done = run(
        [
            sanitizer,
            "--tool",
            tool,
            "--error-exitcode",
            "99",
            "--report-api-errors",
            "no",
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/gpu/test_small.py",
        ],
        limits.seconds,
        # A buffer of the allocator's hides what is written past a tensor.
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", done.output)
    found = {"summary": "; ".join(summary) or None}
    _insist(done, f"compute-sanitizer --tool {tool}", limits, found)
    if "passed" not in done.output:
        raise Failed(f"no test ran: {done.last_lines()}", found)
    return found


def memcheck(limits: Limits) -> dict[str, Any]:
    """Accesses outside of allocations, on the small tests."""
    return _sanitize("memcheck", limits)


def racecheck(limits: Limits) -> dict[str, Any]:
    """Races in shared memory, on the small tests."""
    return _sanitize("racecheck", limits)


# ---------------------------------------------------------------------- ncu and the suite


def dram_sum(lines: Iterable[str]) -> float | None:
    """Bytes read and written, from ``ncu --csv --print-units base``.

    Example:
        >>> dram_sum(['"ID","Metric Name","Metric Unit","Metric Value"',
        ...           '"0","dram__bytes_read.sum","byte","1,000"',
        ...           '"0","dram__bytes_write.sum","byte","500"'])
        1500.0
    """
    table = [line for line in lines if line.startswith('"')]
    rows = [r for r in csv.DictReader(table) if (r.get("Metric Name") or "").startswith("dram__")]
    if len(rows) != 2 or any(r["Metric Unit"] != "byte" for r in rows):
        return None
    return sum(float(r["Metric Value"].replace(",", "")) for r in rows)


def dram_bytes(limits: Limits) -> dict[str, Any]:
    """Bytes per parameter that a step moves, by the memory's own counters.

    Without projection over one tensor, and on the norm sphere over ten, whose second sweep is
    meant to find the weights in the second-level cache.
    """
    (ncu,) = _need("ncu")
    _need_gpu()
    found: dict[str, Any] = {"elements": PROBED}
    for key, kernel, options in (
        ("bytes_per_parameter", "update_kernel", []),
        ("bytes_per_parameter_sphere", "step_kernel", ["--sphere", "--tensors", "10"]),
    ):
        done = run(
            [
                ncu,
                "--csv",
                "--print-units",
                "base",
                "--metrics",
                "dram__bytes_read.sum,dram__bytes_write.sum",
                "--kernel-name",
                f"regex:{kernel}",
                "--launch-skip",
                "2",
                "--launch-count",
                "1",
                sys.executable,
                "-m",
                "benchmarks.gpu_probe",
                "--elements",
                str(PROBED),
                *options,
            ],
            limits.seconds / 2,
        )
        if "ERR_NVGPUCTRPERM" in done.output:
            raise Skipped("ERR_NVGPUCTRPERM: this user may not read the GPU's counters")
        _insist(done, "ncu", limits)
        moved = dram_sum(done.output.splitlines())
        if moved is None:
            raise Failed(f"ncu reported no bytes: {done.last_lines()}")
        found[key] = round(moved / PROBED, 3)
    if found["bytes_per_parameter"] > 1.05 * 24:
        raise Failed("the update kernel moves more than 24 bytes per parameter", found)
    return found


def benchmarks(limits: Limits) -> dict[str, Any]:
    """The suite of ``make bench`` on the GPU; its numbers go into a JSON of their own."""
    _need_module("pytest")
    _need_gpu()
    # Twelve workloads and the yardsticks: their rounds take half of the time, the rest (drawing,
    # compiling, host times) comes on top.
    seconds = max(1.0, limits.seconds / 2 / 13 - 3)
    plugin = importlib.util.find_spec("pytest_benchmark")
    without = [] if plugin else ["-p", "benchmarks.no_plugin"]
    done = run(
        [
            sys.executable,
            "-m",
            "pytest",
            *without,
            "-q",
            "benchmarks/test_bandwidth.py",
            "benchmarks/test_step.py",
            "--device",
            "cuda",
            "--seconds",
            f"{seconds:.1f}",
            "--results",
            str(limits.out.resolve()),
        ],
        limits.seconds,
    )
    found = {"rounds_seconds": round(seconds, 1), **_counts(done.output)}
    _insist(done, "the suite", limits, found)
    return found
