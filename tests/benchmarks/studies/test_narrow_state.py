"""Study of a bf16 momentum and reference beside fp32 weights."""

import torch

from benchmarks.studies import narrow_state as study
from benchmarks.studies.precision import errors, random_problem, run_float64
from d3fast.results.store import Results


def test_narrower_states_are_less_exact_and_leave_the_problem_as_it_was():
    problem = random_problem((10, 64), "random", torch.float32, 0)
    start = problem.start.clone()
    want = run_float64(problem, 1e-2, 20)
    errs = [
        errors(problem, study.run_float32(problem, kind, 1e-2, 20), want)["way"]
        for kind in study.KINDS
    ]
    assert errs[0] < 1e-5 < errs[1] < errs[2] < 0.01
    assert torch.equal(problem.start, start)


def test_the_table_has_a_line_per_measure_and_state():
    rows = [
        {"state": kind, "start": start, "lr": lr, "seed": seed, "way": 0.01 * lr}
        | {"distance": 0.02, "norm": 0.5}
        for start in ("near", "random")
        for kind in study.KINDS
        for lr in (0.001, 0.01)
        for seed in range(2)
    ]
    table = study.narrow_table(Results("command", {}, rows)).splitlines()
    assert len(table) == 2 + 3 * 2 * 3
    assert [cell.strip() for cell in table[2].strip("|").split("|")] == [
        "displacement error", "near", "fp32", "24", "0.001 (0.001–0.001)", "0.01 (0.01–0.01)"
    ]  # fmt: skip
