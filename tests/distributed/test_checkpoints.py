"""torch.distributed.checkpoint saves a run and loads it at another world size."""

import pytest

from tests.distributed import ranks
from tests.distributed.test_trajectories import assert_equal_runs

OPTIONS = {"track": "head", "weight_decay": 0.01}


@pytest.mark.parametrize("dampening", [0.0, 0.4])
@pytest.mark.parametrize(("first", "second"), [(2, 4), (4, 2)])
def test_a_run_goes_on_at_another_world_size(worlds, tmp_path, first, second, dampening):
    options = {**OPTIONS, "dampening": dampening}
    worlds[first].run(ranks.save, "fsdp", options, str(tmp_path), 6)
    answers = worlds[second].run(ranks.resume, "fsdp", options, str(tmp_path), 6, 6)
    assert_equal_runs(answers, ranks.training(None, "fsdp", options, 12), 1e-9)


def test_tensor_parallel_weights_go_on_under_fsdp(worlds, tmp_path):
    worlds[2].run(ranks.save, "tensor parallel", OPTIONS, str(tmp_path), 6)
    answers = worlds[4].run(ranks.resume, "fsdp", OPTIONS, str(tmp_path), 6, 6)
    assert_equal_runs(answers, ranks.training(None, "fsdp", OPTIONS, 12), 1e-9)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_sharded_run_goes_on_in_one_process(worlds, tmp_path):
    worlds[4].run(ranks.save, "fsdp", OPTIONS, str(tmp_path), 6)
    got = ranks.resume(None, "fsdp", OPTIONS, str(tmp_path), 6, 6)
    assert_equal_runs([got], ranks.training(None, "fsdp", OPTIONS, 12), 1e-9)


def test_a_rank_killed_while_saving_leaves_the_last_checkpoint_whole(worlds, tmp_path):
    last, torn = str(tmp_path / "step-6"), str(tmp_path / "step-7")
    worlds[2].run(ranks.save, "fsdp", OPTIONS, last, 6)
    answers = worlds[2].outcomes(ranks.killed_while_saving, "fsdp", OPTIONS, torn)
    assert answers[1] == ranks.DIED
    assert isinstance(answers[0], ranks.Raised)
    assert not (tmp_path / "step-7" / ".metadata").exists()
    answers = worlds[4].run(ranks.resume, "fsdp", OPTIONS, last, 6, 6)
    assert_equal_runs(answers, ranks.training(None, "fsdp", OPTIONS, 12), 1e-9)
