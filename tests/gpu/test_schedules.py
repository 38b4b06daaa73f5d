"""Distance schedules whose values lie on the device."""

import pytest
import torch

from d3fast.optim.schedules import DistanceSchedule


def test_no_step_waits_for_the_device(make, device):
    _, opt = make(constraint="distance_floor", radius=torch.tensor(0.5, device=device))
    schedule = DistanceSchedule(opt, "radius", start=0.1, end=0.5, steps=4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        schedule.step()
        got = schedule.get_last_value()
        schedule.load_state_dict(schedule.state_dict())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got == [pytest.approx(0.2)]
    assert float(opt.param_groups[0]["radius"]) == pytest.approx(0.2)
