"""Precision study: storage formats, the error measures and the table."""

import pytest
import torch

from benchmarks.studies import precision as study
from d3fast.results.store import Results


def problem(dtype=torch.bfloat16, start="near"):
    return study.random_problem((10, 64), start, dtype, 0)


@pytest.mark.parametrize("dtype", study.DTYPES.values(), ids=study.DTYPES)
def test_the_spacing_is_that_of_neighbouring_numbers(dtype):
    x = torch.tensor([1.0, 1.5, 3.0, -0.3, 2.0**-20]).to(dtype)
    bits = x.abs().view(torch.int16)
    neighbours = (bits + 1).view(dtype).float() - x.abs().float()
    assert torch.equal(study.spacing(x.float(), dtype), neighbours)


@pytest.mark.parametrize("dtype", study.DTYPES.values(), ids=study.DTYPES)
def test_stochastic_rounding_is_right_on_average_and_takes_neighbours_only(dtype):
    third = 1 + torch.finfo(dtype).eps / 4
    (got,) = study.STORAGE["stochastic"](
        torch.full((40000,), third), dtype, torch.Generator().manual_seed(0)
    )
    assert set(got.tolist()) == {1.0, 1 + torch.finfo(dtype).eps}
    assert (got.double().mean() - 1) / torch.finfo(dtype).eps == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("dtype", study.DTYPES.values(), ids=study.DTYPES)
@pytest.mark.parametrize(
    ("way", "bits"), [("Kahan", 15), ("int16 remainder", 22), ("fp32 master", 24)]
)
def test_two_tensors_know_the_weight_to_so_many_bits(way, bits, dtype):
    x = 1 + torch.rand(1000, generator=torch.Generator().manual_seed(0))
    kept = study.STORAGE[way](x, dtype, torch.Generator())
    assert torch.equal(kept[0], x.to(dtype))
    assert ((study._joined(*kept) - x).abs() <= 2.0**-bits).all()


def test_runs_leave_their_case_as_it_was_and_repeat_to_the_same_bits():
    one = problem()
    start = one.start.clone()
    first, second = (
        study.run_half(one, torch.bfloat16, "stochastic", "same", 1e-2, 3, 0) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(one.start, start)


def test_every_way_agrees_with_float64_where_steps_are_large():
    one = problem(start="random")
    want = study.run_float64(one, 0.05, 20)
    for way in study.STORAGE:
        got = study.run_half(one, torch.bfloat16, way, "fp32", 0.05, 20, 0)[0]
        assert study.errors(one, got, want)["way"] < 0.05, way


def test_a_table_has_a_line_per_way_and_momentum_and_a_column_per_learning_rate():
    rows = [
        {
            "dtype": "bf16",
            "lr": lr,
            "seed": seed,
            "way_kept": way,
            "momentum": momentum,
            "bytes": 8,
            "way": 0.5 * (seed + 1),
        }
        for lr in (1e-3, 1e-2)
        for seed in (0, 1)
        for way, momentum in (("Kahan", "fp32"), ("Kahan", "same"), (study.ROUNDED, None))
    ]
    lines = study.precision_table(Results("", {}, rows), "bf16", "way").splitlines()
    assert [line.split("|")[1:4] for line in lines[2:]] == [
        [" Kahan ", " bf16 ", " 8 "],
        [" Kahan ", " fp32 ", " 8 "],
        [f" {study.ROUNDED} ", " – ", " 8 "],
    ]
    assert lines[2].endswith("| 75 (50–100) | 75 (50–100) |")
