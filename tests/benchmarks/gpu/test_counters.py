"""What ncu says, in the format in which it says it; the numbers are made up."""

import pytest

from benchmarks.gpu import counters
from benchmarks.gpu.counters import CASES, KEEPING, Case, command, figures, parse
from benchmarks.gpu.tools import ROOT, Done, Failed, Skipped

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",'
    '"Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)
KERNEL = (
    '"0","4711","python3.12","127.0.0.1","void d3::update_kernel<d3::DTypes<float, float, float>, '
    '(d3::Tracking)3, (d3::UpdateRule)1>(d3::DeviceStep)","1","7","(256, 1, 1)","(30518, 1, 1)",'
    '"0","9.0","Command line profiler metrics"'
)
METRICS = {
    "dram__bytes_read.sum": ("byte", "4,000,000,000"),
    "dram__bytes_write.sum": ("byte", "2000000000"),
    "lts__t_sector_hit_rate.pct": ("%", "12.50"),
    "gpu__time_duration.sum": ("ns", "1,500,000"),
}


def output(metrics=METRICS, parameters=250_000_000):
    rows = [f'{KERNEL},"{name}","{unit}","{value}"' for name, (unit, value) in metrics.items()]
    lines = [
        "==PROF== Connected to process 4711 (/usr/bin/python3.12)",
        '==PROF== Profiling "update_kernel": 0%....50%....100% - 2 passes',
        f"parameters: {parameters}",
        "==PROF== Disconnected from process 4711",
        HEADER,
        *rows,
    ]
    return "\n".join(lines) + "\n"


def test_bytes_per_parameter_and_hits_are_read():
    got = figures(Case("1x250M", "free"), output())
    assert [(f.name, f.value, f.unit) for f in got] == [
        ("1x250M, free: DRAM", 24.0, "B"),
        ("1x250M, free: L2 hits", 12.5, "%"),
        ("1x250M, free: one launch", 1.5, "ms"),
    ]


def test_the_lag_is_a_part_of_the_name():
    dram, *_ = figures(Case("ViT-B/16", "norm_sphere", 128), output())
    assert dram.name == "ViT-B/16, norm_sphere, lag 128: DRAM"
    dram, *_ = figures(Case("ViT-B/16", "norm_sphere", 128, keeps=True), output())
    assert dram.name == "ViT-B/16, norm_sphere, lag 128, stores kept: DRAM"


WRONG = {
    "missing": {k: v for k, v in METRICS.items() if k != "dram__bytes_write.sum"},
    "unit": {**METRICS, "dram__bytes_read.sum": ("Gbyte", "4.0")},
    "time": {**METRICS, "gpu__time_duration.sum": ("msecond", "1.5")},
    "no number": {**METRICS, "dram__bytes_read.sum": ("byte", "n/a")},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_output_without_the_metrics_fails(name):
    with pytest.raises(Failed, match="1x250M, free: "):
        figures(Case("1x250M", "free"), output(WRONG[name]))


def test_two_kernels_are_not_taken_for_one():
    with pytest.raises(ValueError, match="4 metrics of one kernel expected, got 8"):
        parse(output() + "\n".join(output().splitlines()[-4:]))


def test_an_output_without_the_number_of_parameters_fails():
    with pytest.raises(Failed):
        figures(Case("1x250M", "free"), output().replace("parameters: ", "tensors: "))


def test_the_clocks_are_left_alone():
    options = command("ncu")
    assert options[options.index("--clock-control") + 1] == "none"


@pytest.fixture
def ncu(monkeypatch):
    """Replaces ncu; the answers are given out in order, and the calls recorded."""
    calls = []

    def use(*answers):
        left = list(answers)

        def run_module(module, arguments, seconds, prefix):
            calls.append((module, arguments, seconds, prefix))
            return left.pop(0)

        monkeypatch.setattr(counters, "run_module", run_module)
        monkeypatch.setattr(counters, "require_tools", lambda *names: list(names))
        return calls

    return use


def test_every_case_is_profiled_within_the_time_of_all(ncu):
    calls = ncu(*[Done(0, output())] * len(CASES))
    assert len(counters.measure(100)) == 3 * len(CASES)
    assert all(module == "benchmarks.gpu.probe" for module, *_ in calls)
    assert [s for *_, s, _ in calls] == sorted((s for *_, s, _ in calls), reverse=True)
    assert calls[0][2] <= 100
    assert next(a for _, a, *_ in calls if "--lag" in a)[-2:] == ["--lag", "128"]


def test_a_user_who_may_not_read_the_counters_is_told(ncu):
    ncu(Done(1, "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access ..."))
    with pytest.raises(Skipped, match="ERR_NVGPUCTRPERM"):
        counters.measure(100)


def test_figures_measured_before_a_failure_are_kept(ncu):
    ncu(Done(0, output()), Done(None, ""))
    with pytest.raises(Failed, match="time limit") as error:
        counters.measure(100)
    assert len(error.value.figures) == 3


def test_the_build_that_keeps_its_stores_is_profiled_at_every_lag(ncu, monkeypatch, tmp_path):
    built = []

    def extension(folder, seconds, flags):
        built.append(flags)
        return tmp_path / "_C.so"

    monkeypatch.setattr(counters.build, "extension", extension)
    calls = ncu(*[Done(0, output())] * len(KEEPING))
    assert len(counters.keeping(100)) == 3 * len(KEEPING)
    assert built == ["-DD3_KEEP_STORES"]
    module, arguments, *_ = calls[0]
    assert module == "benchmarks.gpu.variant"
    assert arguments[:3] == [str(tmp_path / "_C.so"), "benchmarks.gpu.probe", "--workload"]
    assert {case.lag for case in KEEPING} == set(counters.LAGS)


def test_the_define_is_that_of_the_kernels():
    assert "#if defined(D3_KEEP_STORES)" in (ROOT / "csrc/cuda/access.cuh").read_text()
