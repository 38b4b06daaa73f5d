# SPDX-License-Identifier: Apache-2.0
"""Hardware counters of a step by ncu: DRAM bytes per parameter, share of L2 hits, time.

One ncu run of ``benchmarks.gpu.probe`` per case. ``--clock-control none``: ncu would otherwise fix
the clocks of a card that others use too. Bytes are counted at 250 million parameters, where
an L2 of 60 MB cannot hide a second sweep. ncu empties the caches before it measures, so its times
compare lags with each other and not with replays.
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu import build
from benchmarks.gpu.figures import Figure
from benchmarks.gpu.tools import BUILD, Failed, Skipped, check_exit, require_tools, run_module

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
HITS = "lts__t_sector_hit_rate.pct"
TIME = "gpu__time_duration.sum"
METRICS = (READ, WRITTEN, HITS, TIME)
LAGS = (128, 256, 396, 512)  # updates between a norm group's last one and its projection


@dataclass(frozen=True)
class Case:
    """One profiled step.

    Attributes:
        workload: of ``problems``.
        variant: of ``predictions``.
        lag: updates before a projection; what the GPU holds at a time if ``None``.
        keeps: with the build whose stores stay in L2 (``D3_KEEP_STORES``).
    """

    workload: str
    variant: str
    lag: int | None = None
    keeps: bool = False

    @property
    def name(self) -> str:
        """Name of its figures."""
        lag = "" if self.lag is None else f", lag {self.lag}"
        keeps = ", stores kept" if self.keeps else ""
        return f"{self.workload}, {self.variant}{lag}{keeps}"


LISTS = ("ViT-B/16", "10x2.5M")
CASES = (
    Case("1x250M", "free"),
    Case("1x250M", "norm_sphere"),
    Case("10x25M", "norm_sphere"),
    Case("ResNet-18", "norm_sphere"),
    Case("ViT-B/16", "norm_sphere"),
    *(Case(name, "norm_sphere", lag) for name in LISTS for lag in LAGS),
)
KEEPING = tuple(Case(name, "norm_sphere", lag, True) for name in LISTS for lag in LAGS)


def command(ncu: str) -> list[str]:
    """Return the options of ncu for the last step of the probe."""
    return [
        ncu,
        *("--clock-control", "none"),
        *("--csv", "--print-units", "base"),
        *("--metrics", ",".join(METRICS)),
        *("--kernel-name", "regex:update_kernel|step_kernel"),
        *("--launch-skip", "4", "--launch-count", "1"),
    ]


def parse(output: str) -> dict[str, float]:
    """Return the metrics of the one profiled kernel from ``ncu --csv --print-units base``.

    Raises:
        ValueError: not one kernel with every metric, or bytes in another unit.

    Example:
        >>> lines = ['"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"']
        >>> for name, unit, value in ((READ, "byte", "1,000"), (WRITTEN, "byte", "500"),
        ...                           (HITS, "%", "25.5"), (TIME, "ns", "2000")):
        ...     lines.append(f'"0","k","{name}","{unit}","{value}"')
        >>> list(parse("==PROF== Connected\\n" + "\\n".join(lines)).values())
        [1000.0, 500.0, 25.5, 2000.0]
    """
    table = "\n".join(line for line in output.splitlines() if line.startswith('"'))
    rows = [r for r in csv.DictReader(io.StringIO(table)) if r.get("Metric Name") in METRICS]
    units = {r["Metric Name"]: r["Metric Unit"] for r in rows}
    if len(rows) != len(METRICS) or set(units) != set(METRICS):
        raise ValueError(f"{len(METRICS)} metrics of one kernel expected, got {len(rows)}")
    if {units[READ], units[WRITTEN]} != {"byte"}:
        raise ValueError(f"bytes must be in byte, got {units[READ]} and {units[WRITTEN]}")
    if units[TIME] not in ("ns", "nsecond"):
        raise ValueError(f"a time must be in ns, got {units[TIME]}")
    return {r["Metric Name"]: float(r["Metric Value"].replace(",", "")) for r in rows}


def measure(seconds: float, cases: Sequence[Case] = CASES, with_build: str = "") -> list[Figure]:
    """Profile every case.

    Args:
        seconds: time limit of all cases together.
        cases: the steps.
        with_build: path of another build of the extension.

    Raises:
        Skipped: there is no ncu, or this user may not read the counters.
        Failed: ncu failed or said nothing; the figures until then are kept.
    """
    (ncu,) = require_tools("ncu")
    found: list[Figure] = []
    ends = time.monotonic() + seconds
    for case in cases:
        lag = [] if case.lag is None else ["--lag", str(case.lag)]
        options = ["--workload", case.workload, "--variant", case.variant, *lag]
        left = ends - time.monotonic()
        module = "benchmarks.gpu.probe"
        if with_build:
            module, options = "benchmarks.gpu.variant", [with_build, module, *options]
        done = run_module(module, options, left, prefix=command(ncu))
        if "ERR_NVGPUCTRPERM" in done.output:
            raise Skipped("ERR_NVGPUCTRPERM: this user may not read the GPU's counters")
        check_exit(done, f"ncu on {case.name}", found)
        found += figures(case, done.output, found)
    return found


def keeping(seconds: float) -> list[Figure]:
    """Profile the steps of other lags with stores that stay in L2; raise as ``measure`` does."""
    require_tools("ncu")
    started = time.monotonic()
    built = build.extension(BUILD.with_name("gpu-check-keeping"), seconds, "-DD3_KEEP_STORES")
    return measure(seconds - (time.monotonic() - started), KEEPING, str(built))


def figures(case: Case, output: str, earlier: Sequence[Figure] = ()) -> list[Figure]:
    """Return the figures of a case from the output of ncu over the probe.

    Raises:
        Failed: the output has no metrics, or no number of parameters.
    """
    said = [line for line in output.splitlines() if line.startswith("parameters: ")]
    try:
        metrics = parse(output)
        (count,) = (int(line.split()[1]) for line in said)
    except ValueError as error:
        raise Failed(f"{case.name}: {error}", list(earlier)) from None
    moved = metrics[READ] + metrics[WRITTEN]
    return [
        Figure(f"{case.name}: DRAM", moved / count, "B"),
        Figure(f"{case.name}: L2 hits", metrics[HITS], "%"),
        Figure(f"{case.name}: one launch", metrics[TIME] / 1e6, "ms"),
    ]
