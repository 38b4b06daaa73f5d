"""The CPU kernels under sanitizers (see sanitized.cpp)."""

from pathlib import Path

import pytest

# Those of sanitized.cpp.
DTYPES = (
    "DTypeTriples<DTypeTriple<float, float, float>, DTypeTriple<double, double, double>, "
    "DTypeTriple<Bf16, float, Bf16>, DTypeTriple<F16, F16, F16>>"
)
SOURCES = ("common/options.cpp", "common/partition.cpp", "cpu/kernels.cpp", "cpu/launch.cpp")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "undefined", "thread"])
def test_kernels_pass_sanitizers(run_sanitized, sanitizer):
    """No access out of bounds, misaligned or undefined; no race between threads."""
    sources = (*SOURCES, "cpu/parallel.cpp", "cpu/simd_level.cpp")
    flags = ("-DD3_SIMD_LEVEL=baseline", f"-DD3_CPU_DTYPES={DTYPES}", "-Wno-psabi", "-ldl")
    run_sanitized(sanitizer, Path(__file__).parent / "sanitized.cpp", *sources, flags=flags)
