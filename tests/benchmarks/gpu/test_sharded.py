"""The step of shards on one rank, small and on a CPU."""

import pytest
import torch

from benchmarks.gpu import sharded
from benchmarks.gpu.figures import parse_figures
from benchmarks.gpu.problems import problem
from d3fast.optim.backends import dtensor

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)


@pytest.fixture
def small():
    return problem("10x2.5M", "cpu", 20_000)


def test_steps_on_shards_are_those_on_tensors(small):
    usual = dtensor._process_groups
    with sharded.one_rank(small.device) as mesh:
        assert len(dtensor._process_groups(mesh)) == 1
        sharded.require_close(small, mesh, "norm_sphere", 3)
    assert dtensor._process_groups is usual


def test_other_steps_are_noticed(small, monkeypatch):
    monkeypatch.setattr(sharded, "local_weights", lambda opt: torch.zeros(1))
    with sharded.one_rank(small.device) as mesh, pytest.raises(RuntimeError, match="shards differ"):
        sharded.require_close(small, mesh, "free", 1)


def test_every_list_and_the_message_are_measured(capsys):
    sharded.main(["--device", "cpu", "--shrink", "20000", "--seconds", "0.1"])
    names = [figure.name for figure in parse_figures(capsys.readouterr().out)]
    assert len(names) == 4 * len(sharded.LISTS) + 1
    assert names[-1] == "message of 10 tensors: all-reduce"
