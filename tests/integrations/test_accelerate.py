# SPDX-License-Identifier: Apache-2.0
"""``D3FusedSGD`` prepared by accelerate, which wraps it and loads its state once."""

import pytest
import torch
from torch.utils.data import DataLoader

import d3fast
from d3fast import CleanLoss, D3FusedSGD
from d3fast.integrations.common import find_optimizer
from d3fast.optim.schedules import DistanceSchedule

pytest.importorskip("accelerate", reason="needs the extra d3fast[transformers]")

from accelerate import Accelerator

pytestmark = pytest.mark.filterwarnings("ignore")  # accelerate's own


@pytest.fixture
def accelerator(forget_accelerators):
    def make(**options):
        forget_accelerators()
        return Accelerator(cpu=True, **options)

    return make


def optimizer(model, **options):
    options = {"lr": 0.05, "momentum": 0.9, **options}
    opt = D3FusedSGD(d3fast.param_groups(model), **options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(1))
    opt.zero_grad()  # of the suspect's own training
    return opt


def train(prepared, epochs=2, clip=None):
    accelerator, model, opt, loader = prepared
    loss = CleanLoss(0.1, 2.0)
    for _ in range(epochs):
        for images, labels in loader:
            with accelerator.accumulate(model):
                accelerator.backward(loss(model(images), labels))
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                opt.step()
                opt.zero_grad()  # nothing before the last batch of an accumulation


def prepare(accelerator, model, data, batch=24, **options):
    loader = DataLoader(data, batch_size=batch)
    return accelerator, *accelerator.prepare(model, optimizer(model, **options), loader)


def by_hand(model, data, batch=24, epochs=2, clip=None):
    opt, loss = optimizer(model), CleanLoss(0.1, 2.0)
    for _ in range(epochs):
        for images, labels in DataLoader(data, batch_size=batch):
            opt.zero_grad()
            loss(model(images), labels).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
    return opt


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_steps_are_those_of_a_loop_by_hand(clip, accelerator, suspect, clean, same_weights):
    model, twin = suspect(), suspect()
    prepared = prepare(accelerator(), model, clean[0])
    train(prepared, clip=clip)
    opt = by_hand(twin, clean[0], clip=clip)
    assert same_weights(model, twin)
    assert torch.equal(find_optimizer(prepared[2]).total_distance(), opt.total_distance())


def test_the_warm_start_before_prepare_stays(accelerator, suspect, clean):
    model = suspect()
    start = model[2].weight.detach().clone()
    _, model, opt, _ = prepare(accelerator(), model, clean[0])
    assert torch.equal(opt.optimizer.state[model[2].weight]["reference"], start)
    assert float(opt.optimizer.total_distance()) > 0.1


def test_accumulated_batches_are_one_step(accelerator, suspect, clean):
    model, twin = suspect(), suspect()
    prepared = prepare(accelerator(gradient_accumulation_steps=2), model, clean[0])
    train(prepared)
    by_hand(twin, clean[0], batch=48)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_under_bf16_weights_and_reference_stay_in_float32(accelerator, suspect, clean):
    model = suspect()
    prepared = prepare(accelerator(mixed_precision="bf16"), model, clean[0])
    train(prepared)
    head, opt = model[2].weight, find_optimizer(prepared[2])
    assert (head.dtype, opt.state[head]["reference"].dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(head.norm(), opt.state[head]["reference"].norm())
    twin = suspect()
    by_hand(twin, clean[0])
    assert not torch.equal(head, twin[2].weight)
    torch.testing.assert_close(head, twin[2].weight, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("options", [{}, {"backend": "reference", "momentum_dtype": torch.float64}])
def test_a_saved_state_goes_on_with_the_reference_and_the_same_bits(
    options, accelerator, suspect, clean, tmp_path, same_weights
):
    whole = suspect()
    prepared = prepare(accelerator(), whole, clean[0], **options)
    train(prepared)
    prepared[0].save_state(tmp_path / "state")
    train(prepared)

    model = suspect()
    start = model[2].weight.detach().clone()
    with torch.no_grad():
        model[2].weight.add_(1.0)  # another model: what counts is what was saved
    again = prepare(accelerator(), model, clean[0], **options)
    again[0].load_state(tmp_path / "state")
    assert torch.equal(again[2].optimizer.state[model[2].weight]["reference"], start)
    train(again)
    assert same_weights(model, whole)


def test_a_distance_schedule_drives_the_optimizer_inside_and_is_saved(
    accelerator, suspect, clean, tmp_path
):
    values = []
    for resume in (False, True):
        prepared = prepare(accelerator(), suspect(), clean[0])
        schedule = DistanceSchedule(prepared[2].optimizer, start=0.0, steps=4)
        prepared[0].register_for_checkpointing(schedule)
        if resume:
            prepared[0].load_state(tmp_path / "state")
        else:
            schedule.step()
            prepared[0].save_state(tmp_path / "state")
        schedule.step()
        values.append(prepared[2].param_groups[0]["distance_weight"])
    assert values == [0.5, 0.5]
