# SPDX-License-Identifier: Apache-2.0
"""Steps of the GPU check: build, tests, sanitizer, memory traffic, benchmarks.

A step runs a tool in a process of its own and returns columns for its row. It raises ``Skipped``
if something it needs is missing, and ``Failed`` if the tool reports an error.
"""

import csv
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.gpu.tools import (
    BUILD,
    ROOT,
    Failed,
    Limits,
    Skipped,
    check_exit,
    require_gpu,
    require_modules,
    require_tools,
    run,
)

PROBED = 25_000_000  # elements of the tensor that ncu measures


def build(limits: Limits) -> dict[str, Any]:
    """Build the extension in place for the installed GPU.

    The same as setup.py without setuptools, which may be older than pyproject.toml needs.
    """
    cmake, ninja, nvcc = require_tools("cmake", "ninja", "nvcc")
    require_modules("pybind11")
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
    check_exit(configured, "cmake", limits)
    check_exit(run([cmake, "--build", str(BUILD)], limits.seconds), "the build", limits)
    name = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    built = BUILD / "lib" / name
    if not built.exists():
        raise Failed(f"the build made no {name}")
    new = ROOT / "d3fast" / f"{name}.new"
    shutil.copy2(built, new)
    new.replace(ROOT / "d3fast" / name)  # another process may have the old file open
    said = re.search(r"CUDA kernels with nvcc (\S+) for (.*)", configured.output)
    return {"nvcc": said[1], "archs": said[2]} if said else {}


def _counts(output: str) -> dict[str, int]:
    """Parse the counts in pytest's last line.

    Example:
        >>> _counts("== 1 failed, 12 passed, 3 skipped in 2.00s ==")
        {'failed': 1, 'passed': 12, 'skipped_tests': 3}
    """
    names = {"failed": "failed", "passed": "passed", "skipped": "skipped_tests", "error": "errors"}
    last = output.strip().splitlines()[-1] if output.strip() else ""
    found = re.findall(r"(\d+) (failed|passed|skipped|error)", last)
    return {names[word]: int(count) for count, word in found}


def gpu_tests(limits: Limits) -> dict[str, Any]:
    """Run the tests that need a GPU."""
    require_modules("pytest", "hypothesis")
    require_gpu()
    done = run([sys.executable, "-m", "pytest", "-q", "tests/gpu"], limits.seconds)
    found = _counts(done.output)
    check_exit(done, "pytest", limits, found)
    if not found.get("passed"):
        raise Failed(f"no test ran: {done.last_lines()}", found)
    return found


def _sanitize(tool: str, limits: Limits) -> dict[str, Any]:
    (sanitizer,) = require_tools("compute-sanitizer")
    require_modules("pytest")
    require_gpu()
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
        # The caching allocator would hide writes past the end of a tensor.
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", done.output)
    found = {"summary": "; ".join(summary) or None}
    check_exit(done, f"compute-sanitizer --tool {tool}", limits, found)
    if "passed" not in done.output:
        raise Failed(f"no test ran: {done.last_lines()}", found)
    return found


def memcheck(limits: Limits) -> dict[str, Any]:
    """Check the small tests for accesses outside of allocations."""
    return _sanitize("memcheck", limits)


def racecheck(limits: Limits) -> dict[str, Any]:
    """Check the small tests for races in shared memory."""
    return _sanitize("racecheck", limits)


def dram_sum(lines: Iterable[str]) -> float | None:
    """Parse the bytes read and written from ``ncu --csv --print-units base``.

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
    """Measure the DRAM bytes per parameter of a step with ncu.

    One tensor without projection, and ten tensors on the norm sphere, whose second pass should find
    the weights in L2. ``--clock-control none``: the GPU's clocks are never changed.
    """
    (ncu,) = require_tools("ncu")
    require_gpu()
    found: dict[str, Any] = {"elements": PROBED}
    for key, kernel, options in (
        ("bytes_per_parameter", "update_kernel", []),
        ("bytes_per_parameter_sphere", "step_kernel", ["--sphere", "--tensors", "10"]),
    ):
        done = run(
            [
                ncu,
                "--clock-control",
                "none",
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
                "benchmarks.gpu.probe",
                "--elements",
                str(PROBED),
                *options,
            ],
            limits.seconds / 2,
        )
        if "ERR_NVGPUCTRPERM" in done.output:
            raise Skipped("ERR_NVGPUCTRPERM: this user may not read the GPU's counters")
        check_exit(done, "ncu", limits)
        moved = dram_sum(done.output.splitlines())
        if moved is None:
            raise Failed(f"ncu reported no bytes: {done.last_lines()}")
        found[key] = round(moved / PROBED, 3)
    if found["bytes_per_parameter"] > 1.05 * 24:
        raise Failed("the update kernel moves more than 24 bytes per parameter", found)
    return found


def benchmarks(limits: Limits) -> dict[str, Any]:
    """Run the suite of ``make bench`` on the GPU; it writes a result file of its own."""
    require_modules("pytest")
    require_gpu()
    # Twelve workloads and the yardsticks: half of the time for their rounds, the rest for drawing,
    # compiling and host times.
    seconds = max(1.0, limits.seconds / 2 / 13 - 3)
    done = run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "benchmarks/speed/test_bandwidth.py",
            "benchmarks/speed/test_step.py",
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
    check_exit(done, "the suite", limits, found)
    return found
