"""The GPU tests and the sanitizer as steps: what they run, and how their output is read."""

import subprocess
import sys

import pytest

from benchmarks.gpu import suite
from benchmarks.gpu.suite import FILES, LEFT_OUT, SANITIZED, run_tests, sanitize, summary
from benchmarks.gpu.tools import ROOT, Done, Failed

MEMCHECK = """========= COMPUTE-SANITIZER
......                                                                   [100%]
6 passed in 31.02s
========= ERROR SUMMARY: 0 errors
"""
WRITE = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at void d3::update_kernel<...>(d3::DeviceStep)+0x4f0
=========     by thread (0,0,0) in block (1,0,0)
=========     Address 0x7f31cc000400 is out of bounds
F
1 failed in 12.31s
========= Target application returned an error
========= ERROR SUMMARY: 1 error
"""
RACES = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at d3::block_total+0x90
=========     and Read access at d3::block_total+0xc0 [16 hazards]
6 passed in 40.00s
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
REFUSED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported.\n"


@pytest.mark.parametrize(
    ("output", "errors"), [(MEMCHECK, 0), (WRITE, 1), (RACES, 1), (REFUSED, None)]
)
def test_errors_and_hazards_are_counted(output, errors):
    assert summary(output) == errors


@pytest.fixture
def answer(monkeypatch):
    """Replaces the process of a step; returns its calls."""
    calls = []

    def use(code, output):
        def run_module(module, arguments, seconds, prefix=(), **variables):
            calls.append((module, arguments, prefix, variables))
            return Done(code, output)

        monkeypatch.setattr(suite, "run_module", run_module)
        monkeypatch.setattr(suite, "require_tools", lambda *names: list(names))
        return calls

    return use


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_six_small_tests_run_under_the_tool(answer, tool):
    calls = answer(0, MEMCHECK)
    assert [(f.name, f.value) for f in sanitize(tool, 60)] == [(f"{tool} errors", 0)]
    ((module, arguments, prefix, variables),) = calls
    assert module == "pytest"
    assert arguments[-6:] == list(SANITIZED)
    assert prefix[:3] == ["compute-sanitizer", "--tool", tool]
    assert variables == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@pytest.mark.parametrize(("code", "output"), [(99, WRITE), (0, REFUSED), (None, ""), (0, "")])
def test_an_error_or_no_test_fails(answer, code, output):
    answer(code, output)
    with pytest.raises(Failed):
        sanitize("memcheck", 60)


def test_every_sanitized_test_exists():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *suite._PYTEST, "--collect-only", *SANITIZED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name.split("::")[1] in done.stdout for name in SANITIZED)
    assert "6 tests collected" in done.stdout


def test_every_gpu_test_is_run_or_left_out_on_purpose():
    present = {path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert set(FILES) | set(LEFT_OUT) == present
    assert next(iter(FILES)) == "test_graphs"


def test_files_whose_packages_are_missing_are_left_out(answer, monkeypatch):
    calls = answer(0, "5 passed, 1 skipped in 3.0s")
    monkeypatch.setattr(suite, "has_module", lambda name: name != "hypothesis")
    found = {f.name: f.value for f in run_tests(60)}
    assert found == {"tests passed": 5, "tests skipped": 1, "test files left out": 3}
    ((_, arguments, *_),) = calls
    needing = ("test_step", "test_adamw", "test_half")
    assert not any(name in argument for argument in arguments for name in needing)
    assert tuple(arguments[arguments.index("-W") :][:2]) == ("-W", "default")


@pytest.mark.parametrize(("code", "output"), [(1, "1 failed in 1s"), (0, "7 skipped in 1s")])
def test_a_failed_test_or_no_test_fails(answer, code, output):
    answer(code, output)
    with pytest.raises(Failed):
        run_tests(60)
