# SPDX-License-Identifier: Apache-2.0
"""The GPU tests, and the smallest of them under compute-sanitizer."""

import re
from collections.abc import Mapping, Sequence

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.tools import (
    Failed,
    check_exit,
    has_module,
    require_modules,
    require_tools,
    run_module,
)

# Graphs first: a fault there hides behind none. Without the tests of torch.compile, which take
# longer to compile than all others to run, and of attacks, which run no kernel of ours.
FILES: Mapping[str, Sequence[str]] = {
    "test_graphs": (),
    "test_small": (),
    "test_step": ("hypothesis",),
    "test_adamw": ("hypothesis",),
    "test_amp": (),
    "test_half": ("hypothesis",),
    "test_traffic": (),
    "test_hosted_reference": (),
    "test_schedules": (),
}
LEFT_OUT = ("test_compile", "test_attacks")
# Tracked with and without a projection, one norm over all, untracked, and a stale norm.
_STEP = "tests/gpu/test_small.py::test_every_kernel_leaves_finite_weights"
SANITIZED = (
    f"{_STEP}[heavy-sphere-tensor]",
    f"{_STEP}[heavy-sphere-group]",
    f"{_STEP}[nesterov-distance-tensor]",
    f"{_STEP}[none-free-tensor]",
    f"{_STEP}[heavy-plain-tensor]",
    "tests/gpu/test_small.py::test_a_stale_norm_is_corrected_without_touching_anything_else[heavy]",
)
# conftest.py of all tests imports packages that a GPU machine may lack.
_PYTEST = ("-q", "-x", "-W", "default", "-p", "no:cacheprovider", "--confcutdir=tests/gpu")


def counts(output: str) -> dict[str, int]:
    """Parse the counts in pytest's last line.

    Example:
        >>> counts("== 1 failed, 12 passed, 3 skipped in 2.00s ==")
        {'failed': 1, 'passed': 12, 'skipped': 3}
    """
    last = output.strip().splitlines()[-1] if output.strip() else ""
    found = re.findall(r"(\d+) (failed|passed|skipped|error)", last)
    return {word: int(count) for count, word in found}


def run_tests(seconds: float) -> list[Figure]:
    """Run the GPU tests; those whose Python packages are missing are left out.

    Raises:
        Failed: a test failed, or none ran.
    """
    require_modules("pytest")
    files = [f"tests/gpu/{name}.py" for name, needs in FILES.items() if all(map(has_module, needs))]
    done = run_module("pytest", [*_PYTEST, *files], seconds)
    found = counts(done.output)
    figures = [Figure(f"tests {word}", count, "") for word, count in found.items()]
    figures.append(Figure("test files left out", len(FILES) - len(files), ""))
    check_exit(done, "pytest", figures)
    if not found.get("passed"):
        raise Failed(f"no test ran: {done.last_lines()}", figures)
    return figures


def summary(output: str) -> int | None:
    """Parse the number of errors or hazards in the summaries of compute-sanitizer.

    Example:
        >>> summary("========= ERROR SUMMARY: 2 errors")
        2
        >>> summary("========= RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)")
        3
        >>> summary("no such line") is None
        True
    """
    found = re.findall(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+)", output, re.M)
    return sum(map(int, found)) if found else None


def sanitize(tool: str, seconds: float) -> list[Figure]:
    """Run the small tests under a tool of compute-sanitizer.

    Args:
        tool: "memcheck", "racecheck" or "synccheck".
        seconds: time limit.

    Raises:
        Skipped: there is no compute-sanitizer, or it refuses the device.
        Failed: the tool found an error, or no test ran.
    """
    (sanitizer,) = require_tools("compute-sanitizer")
    require_modules("pytest")
    options = ("--tool", tool, "--error-exitcode", "99", "--report-api-errors", "no")
    # The caching allocator would hide writes past the end of a tensor.
    done = run_module(
        "pytest",
        [*_PYTEST, *SANITIZED],
        seconds,
        prefix=[sanitizer, *options],
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
    errors = summary(done.output)
    figures = [] if errors is None else [Figure(f"{tool} errors", errors, "")]
    check_exit(done, f"compute-sanitizer --tool {tool}", figures)
    if errors is None or not counts(_without_marks(done.output)).get("passed"):
        raise Failed(f"no test ran under {tool}: {done.last_lines()}", figures)
    return figures


def _without_marks(output: str) -> str:
    """Return the output without the lines of compute-sanitizer."""
    return "\n".join(line for line in output.splitlines() if not line.startswith("========="))
