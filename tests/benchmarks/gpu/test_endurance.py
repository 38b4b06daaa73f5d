"""The long runs, small and on the host: what they compare, and that they can fail."""

import pytest
import torch

from benchmarks.gpu import endurance, probe, replay
from benchmarks.gpu.figures import parse_figures
from benchmarks.gpu.problems import d3, problem
from benchmarks.gpu.tools import run
from d3fast.optim import D3FusedSGD

SMALL = ["--device", "cpu", "--shrink", "2000"]


@pytest.mark.parametrize("name", ["long", "streams", "replays", "huge"])
def test_a_run_prints_its_figure(name, capsys):
    endurance.main([*SMALL, name])
    figures = parse_figures(capsys.readouterr().out)
    assert len(figures) == (2 if name == "long" else 1)
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.parametrize("name", ["long", "streams", "replays"])
def test_one_wrong_bit_fails(name, monkeypatch):
    taken, step = [0], D3FusedSGD.step

    def wrong_once(self):
        step(self)
        taken[0] += 1
        if taken[0] == 7:
            self.param_groups[0]["params"][0].data.view(-1)[0] += 1e-3

    monkeypatch.setattr(D3FusedSGD, "step", wrong_once)
    with pytest.raises(RuntimeError, match="weights differ"):
        endurance.main([*SMALL, name])


def test_a_weight_that_is_not_finite_fails():
    opt = d3(problem("60x36k", "cpu", 1000), "free")
    opt.param_groups[0]["params"][3].data[0] = torch.nan
    with pytest.raises(RuntimeError, match="not finite"):
        endurance.weights(opt)


def test_an_inactive_constraint_fails():
    drawn = problem("60x36k", "cpu", 100)
    params = d3(drawn, "norm_sphere").param_groups[0]["params"]
    replay.check_active("norm_sphere", params, drawn.references)
    params[5].data.mul_(1.1)
    with pytest.raises(RuntimeError, match=r"norm_sphere: the norm is 1\.1"):
        replay.check_active("norm_sphere", params, drawn.references)


def test_a_hang_is_ended_with_its_children():
    done = run(["sh", "-c", "echo started; sleep 60; true"], 1.0)
    assert (done.code, done.output) == (None, "started\n")


def test_the_probe_says_how_many_parameters_it_stepped(capsys):
    probe.main([*SMALL, "--workload", "10x2.5M", "--variant", "norm_sphere"])
    assert capsys.readouterr().out == "parameters: 12500\n"
