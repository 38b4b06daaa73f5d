"""Blindness: neither test images nor a trigger can be reached by a defence in the benchmark."""

import types
from functools import partial

import pytest
import torch

from d3fast.attacks import BadNets
from d3fast.benchmark.defender import defender_samples
from d3fast.benchmark.repair_jobs import repair_model
from d3fast.data import Augment, ImageData, Splits
from d3fast.defenses import DEFENSES
from d3fast.testing.toys import conv_model
from tests.defenses.short import SHORT


@pytest.mark.parametrize("name", DEFENSES)
def test_neither_test_images_nor_a_trigger_can_be_reached_by_a_defence(name):
    splits, attack = _splits(), BadNets(target=0, size=2)
    given = []

    def spy(*args, **options):
        given.extend((SHORT[name], *args, *options.values()))
        return SHORT[name](*args, **options)

    train, held_out, _ = defender_samples(splits.clean, count=18, held_out=1 / 3, seed=0)
    result = repair_model(
        spy,
        conv_model(),
        train,
        held_out,
        batch_size=6,
        augment=Augment(crop=1),
        seed=0,
        device=torch.device("cpu"),
        progress=False,
    )
    assert len(result.history) == 2
    seen = list(_reachable(given))
    assert any(thing is train.images for thing in seen)  # the walk gets as far as the images
    assert not _leaks(seen, splits.test.images)
    # What it would have found.
    planted = (splits.test.images[3:4], partial(print, attack), lambda: attack, {"x": [attack]})
    for thing in planted:
        assert _leaks(_reachable([*given, thing]), splits.test.images)


def _splits():
    """Training, clean and test images that lie in one tensor."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=draw, dtype=torch.uint8)
    labels = torch.arange(60) % 3
    parts = (slice(20), slice(20, 40), slice(40, 60))
    return Splits(*[ImageData(images[p], labels[p], ("a", "b", "c")) for p in parts])


def _leaks(things, test_images):
    storage = test_images.untyped_storage().data_ptr()
    return [
        thing
        for thing in things
        if hasattr(thing, "trigger")
        or (isinstance(thing, torch.Tensor) and thing.untyped_storage().data_ptr() == storage)
    ]


def _reachable(roots):
    """Everything that can be reached through attributes, containers, closures and bound methods."""
    left, seen = list(roots), {}
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType):
            continue
        seen[id(thing)] = thing
        yield thing
        if isinstance(thing, torch.Tensor):
            left += [part for part in (thing._base, thing.grad) if part is not None]
        if isinstance(thing, dict):
            left += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            left += thing
        elif isinstance(thing, types.FunctionType):
            left += [cell.cell_contents for cell in thing.__closure__ or ()]
            left += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        elif isinstance(thing, partial):
            left += [thing.func, *thing.args, *thing.keywords.values()]
        left.append(getattr(thing, "__self__", None))
        left.append(getattr(thing, "__dict__", None))
