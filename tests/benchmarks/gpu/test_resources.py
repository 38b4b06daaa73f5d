"""Registers and spills, as ptxas and cuobjdump print them; the numbers are made up."""

import pytest

from benchmarks.gpu import resources
from benchmarks.gpu.tools import Done, Failed
from d3fast.results.store import Results, read_results

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN2d313update_kernelIfEEv' for 'sm_90'
ptxas info    : Function properties for _ZN2d313update_kernelIfEEv
    0 bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 8200 bytes smem
ptxas info    : Compiling entry function '_ZN2d313verify_kernelIfEEv' for 'sm_90'
ptxas info    : Function properties for _ZN2d313verify_kernelIfEEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
"""
SASS = """
		Function : _ZN2d313update_kernelIfEEv
        /*0010*/                   {load} R4, desc[UR4][R2.64] ;
		Function : _ZN2d313verify_kernelIfEEv
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;
"""


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Replaces nvcc and cuobjdump."""

    def use(spilled=0, load="LDG.E.128", code=0):
        def run(command, seconds):
            if command[0] == "c++filt":
                return Done(code, "\n".join(command[1:]))
            text = SASS.format(load=load) if "-sass" in command else PTXAS.format(spilled=spilled)
            return Done(code, text)

        monkeypatch.setattr(resources, "BUILD", tmp_path)
        monkeypatch.setattr(resources, "require_tools", lambda *names: list(names))
        monkeypatch.setattr(resources, "find_tool", lambda name: name)
        monkeypatch.setattr(resources, "run", run)

    return use


def test_registers_spills_and_wide_accesses_are_measured(compiler):
    compiler()
    found = {f.name: f.value for f in resources.measure(60)}
    assert found == {"kernels": 2, "registers: most": 80, "spilled bytes": 0, "16-byte accesses": 1}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"spilled": 8}, "16 bytes spilled: _ZN2d313update"),
        ({"load": "LDG.E"}, "no 16-byte accesses in _ZN2d313update"),
        ({"code": 1}, "nvcc exited with 1"),
        ({"code": None}, "nvcc reached its time limit"),
    ],
)
def test_what_must_not_be_fails(compiler, broken, reason):
    compiler(**broken)
    with pytest.raises(Failed, match=reason):
        resources.measure(60)


def test_every_architecture_is_written_with_a_row_per_kind_of_kernel(compiler, tmp_path):
    compiler(spilled=4)
    path = tmp_path / "resources.json"
    assert resources.main(["--arch", "80", "90", "--output", str(path)]) == 1  # spills
    found = read_results(path)
    assert [(r["arch"], r["registers"], r["spilled"]) for r in found.rows] == [
        ("sm_80", 80, 8),
        ("sm_80", 40, 0),
        ("sm_90", 80, 8),
        ("sm_90", 40, 0),
    ]


def test_the_table_has_the_most_registers_of_each_kind_and_all_spills():
    kinds = ("step: float", "step: F16", "step of AdamW: float", "step of AdamW: Bf16", "update: x")
    kinds += ("update of AdamW: x", "shard: x", "shard of AdamW: x", "verify: x", "step: float, B")
    rows = [
        {"arch": arch, "kernel": kind, "registers": 10 * i + more, "spilled": i == 3}
        for arch, more in (("sm_80", 0), ("sm_90", 1))
        for i, kind in enumerate(kinds)
    ]
    lines = resources.resources_table(Results("made up", {}, rows)).splitlines()
    assert lines[0].split() == ["|", "|", "sm_80", "|", "sm_90", "|"]
    assert "| tracked, fp32 weights | 90 | 91 |" in lines
    assert "| tracked, AdamW, half weights | 30 | 31 |" in lines
    assert lines[-1] == "| bytes spilled, all kernels | 1 | 1 |"


def test_a_rule_other_than_sgd_is_named():
    arguments = "INS_11DTypeTripleIfffEELNS_8TrackingE2ENS_9AdamwRuleEEEvNS_10DeviceStepE"
    mangled = f"_ZN2d311step_kernel{arguments}"
    assert resources.readable([mangled]) == ["step of AdamW: float, float, float"]
