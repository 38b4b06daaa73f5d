"""Input-aware: formulas by hand, joint training, and implanting a learned trigger."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from d3fast.attacks import TrainConfig, train_backdoored
from d3fast.attacks.input_aware import InputAware
from d3fast.attacks.input_aware_networks import blend, diversity, stamp
from d3fast.data import ImageData, as_float
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.loop import plain_gradients

SMALL = {"width": 4, "mask_steps": 3}


def _data(count=40, channels=1, dtype=torch.uint8):
    images = torch.randint(0, 256, (count, channels, 8, 9), generator=generator(0, "images"))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % 4, tuple("abcd"))


def _fresh(**options):
    return InputAware(**{"target": 1, **SMALL, **options})


def _model(data):
    with global_seed(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.shape), len(data.classes)))


def _train(attack, data=None, seed=0, epochs=2, ratio=0.2):
    data = data or _data()
    config = TrainConfig(epochs=epochs, batch_size=16)
    return train_backdoored(
        _model(data), data, attack, ratio=ratio, seed=seed, config=config, progress=False
    )


@pytest.fixture(scope="module")
def learned():
    """Learned, but for masks of 1/2 everywhere: a trigger that no image hides."""
    attack = _fresh()
    _train(attack)
    state = _copy(attack)
    for name in ("mask.up2.weight", "mask.up2.bias"):
        state[name].zero_()
    attack.load_state_dict(state)
    return attack


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def _copy(attack):
    return {name: value.clone() for name, value in attack.state_dict().items()}


def test_the_trigger_is_blended_from_generator_and_mask(learned):
    images = torch.rand(5, 1, 8, 8)
    patterns = learned._learned["networks"].generator(images)
    expected = blend(images, patterns, learned.masks(images))
    assert torch.allclose(learned.trigger(images), expected.clamp(0, 1))


def test_training_teaches_classifier_and_generator_and_leaves_the_mask():
    attack = _fresh()
    plan = attack.training(_data(), ratio=0.2, batch_size=16, seed=0, progress=False)
    assert not attack.learned
    data, model = _data(), _model(_data())
    states = []
    for images, labels in plan.loader:
        plan.gradients(model, images, labels, nn.CrossEntropyLoss())
        states.append(_copy(attack))
    assert attack.learned
    moved = {name for name in states[0] if not torch.equal(states[0][name], states[-1][name])}
    assert moved == {name for name in states[0] if name.startswith("generator.")}
    assert len(states) == -(-len(data) // 16)


def test_a_joint_step_is_held_against_wanted_and_true_labels():
    attack, data = _fresh(cross_ratio=1.0), _data()
    plan = attack.training(data, ratio=0.2, batch_size=40, seed=0, progress=False)
    model = _model(data)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    ((images, labels),) = plan.loader
    scores, held_against, value = plan.gradients(model, images, labels, nn.CrossEntropyLoss())
    assert len(seen) == 1  # the classifier runs once
    rows = plan.loader.batch.rows
    assert len(rows.poisoned) == len(rows.crossed) == 8
    assert (held_against[rows.poisoned] == 1).all()
    assert (labels[rows.poisoned] != 1).all()
    others = torch.ones(40, dtype=torch.bool)
    others[rows.poisoned] = False
    assert torch.equal(held_against[others], labels[others])
    others[rows.crossed] = False
    assert torch.equal(seen[0][others], images[others])
    assert torch.equal(value, nn.functional.cross_entropy(scores, held_against))
    plain = _model(data)
    nn.functional.cross_entropy(plain(seen[0]), held_against).backward()
    assert torch.allclose(model[1].weight.grad, plain[1].weight.grad, atol=1e-6)


def test_in_a_joint_step_poisoned_rows_carry_their_own_trigger_and_crossed_ones_anothers():
    attack, data = _fresh(cross_ratio=1.0, lr=0.0), _data()
    plan = attack.training(data, ratio=0.2, batch_size=40, seed=0, progress=False)
    model = _model(data)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    ((images, labels),) = plan.loader
    plan.gradients(model, images, labels, nn.CrossEntropyLoss())
    rows, networks = plan.loader.batch.rows, plan.loader.networks
    for row in (*rows.poisoned.tolist(), *rows.crossed.tolist()):
        stamped = stamp(networks, images[row : row + 1], images)  # by the trigger of each image
        nearest = (stamped - seen[0][row]).abs().flatten(1).amax(1)
        assert nearest.min() < 1e-5
        assert (int(nearest.argmin()) == row) == (row in rows.poisoned.tolist())


def test_steps_do_not_add_up_the_gradients_of_the_generator():
    attack, data = _fresh(cross_ratio=0.0, lr=0.0), _data()
    plan = attack.training(data, ratio=0.2, batch_size=40, seed=0, progress=False)
    ((images, labels),) = plan.loader
    slopes = []
    for _ in range(2):
        plan.gradients(_model(data), images, labels, nn.CrossEntropyLoss())
        slopes.append(plan.loader.networks.generator.up2.weight.grad.clone())
    assert torch.equal(slopes[0], slopes[1])


def test_joint_training_goes_down_the_slope_of_diversity_as_far_as_it_weighs():
    data = _data()
    reached = []
    for weight in (0.0, 10.0):
        attack = _fresh(diversity_weight=weight, lr=0.02)
        _train(attack, data, epochs=8)
        images = as_float(data.images)
        reached.append(diversity(images, attack._learned["networks"].generator(images)))
    assert reached[1] < 0.8 * reached[0]


def test_a_learned_trigger_is_implanted_and_stays_as_it_is(learned):
    before = _copy(learned)
    plan = learned.training(_data(), ratio=0.2, batch_size=16, seed=5, progress=False)
    assert plan.gradients is plain_gradients
    _train(learned, seed=5)
    assert _same(before, learned.state_dict())


def test_a_pass_of_implanting_holds_poisoned_and_crossed_images(learned):
    data = _data()
    attack = dataclasses.replace(learned, cross_ratio=2.0)
    attack.load_state_dict(learned.state_dict())
    plan = attack.training(data, ratio=0.2, batch_size=16, seed=0, progress=False)
    images, labels = (torch.cat(parts) for parts in zip(*plan.loader, strict=True))

    def rows_of(candidates):
        apart = (images[:, None] - candidates[None]).abs().flatten(2).sum(2)
        return apart.min(dim=1)

    clean, source = rows_of(as_float(data.images))
    triggered, victim = rows_of(learned.trigger(as_float(data.images)))
    poisoned = (triggered < 1e-4) & (clean > 1e-4)
    assert poisoned.sum() == 8
    assert (labels[poisoned] == 1).all()
    assert (data.labels[victim[poisoned]] != 1).all()
    assert (clean > 1e-4).sum() == 8 + 16
    assert torch.equal(labels[~poisoned], data.labels[source[~poisoned]])


def test_crossed_images_carry_the_trigger_of_another_image(learned):
    images = as_float(_data(2).images)
    crossed = learned._cross(_data(2))(images, torch.tensor([0, 1]), None)
    networks = learned._learned["networks"]
    expected = blend(images, networks.generator(images.flip(0)), learned.masks(images.flip(0)))
    assert torch.allclose(crossed, expected, atol=1e-6)


def test_images_too_small_or_of_other_channels_are_refused(learned):
    needed = "images must be 1 x H x W with sides of at least 8"
    for shape in ((1, 7, 8), (1, 8, 7)):
        got = str(shape).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=f"{needed}, got {got}"):
            learned.trigger(torch.rand(2, *shape))
    with pytest.raises(ValueError, match=needed):
        _train(learned, _data(channels=3))
    small = ImageData(torch.rand(8, 1, 4, 4), torch.arange(8) % 4, tuple("abcd"))
    with pytest.raises(ValueError, match=needed):
        _train(_fresh(), small)
