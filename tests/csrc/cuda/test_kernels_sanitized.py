"""The CUDA kernels on the host under sanitizers (see sanitized.cpp)."""

from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "undefined", "thread"])
def test_kernels_pass_sanitizers(run_sanitized, sanitizer):
    """No access out of bounds, misaligned or undefined; no race between threads or blocks."""
    run_sanitized(sanitizer, Path(__file__).parent / "sanitized.cpp", "common/partition.cpp")
