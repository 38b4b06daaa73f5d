"""A trigger is read from its file and checked against the samples: target, shape, values."""

import math

import pytest
import torch

from d3fast.attacks import BadNets
from d3fast.attacks.files import save_attack
from d3fast.audit.trigger import check_trigger, load_trigger
from d3fast.data import ImageData
from d3fast.text import InsertedTokens, TextData

SAMPLES = ImageData(torch.rand(6, 1, 4, 4), torch.arange(6) % 3, tuple("abc"))


class Call:
    """A trigger that is a function."""

    def __init__(self, function, target=0):
        self.trigger, self.target = function, target


def test_a_trigger_that_fits_is_applied_to_one_batch():
    shapes = []
    check_trigger(Call(lambda images: shapes.append(images.shape) or images), SAMPLES)
    assert shapes == [(6, 1, 4, 4)]


@pytest.mark.parametrize("target", [-1, 3, 999])
def test_a_target_that_is_no_class_is_refused(target):
    with pytest.raises(ValueError, match=rf"target must be in 0\.\.2 .*got {target}"):
        check_trigger(Call(lambda images: images, target), SAMPLES)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, IndexError, TypeError])
def test_a_trigger_that_raises_is_one_line_with_the_shape(error):
    def fails(images):
        raise error("size 300\nis too large")

    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\): size 300 is too large$"):
        check_trigger(Call(fails), SAMPLES)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"makes \(1, 4, 3\) of images of shape \(1, 4, 4\)"):
        check_trigger(Call(lambda images: images[..., :3]), SAMPLES)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN or inf"):
        check_trigger(Call(lambda images: images * math.nan), SAMPLES)


TEXTS = TextData(torch.tensor([[1, 5, 2, 0], [1, 6, 7, 2]]), torch.tensor([0, 1]), ("-", "+"))
WORDS = InsertedTokens(target=1, tokens=(7, 8), length=8, starts=(True,) * 10)


@pytest.mark.parametrize("trigger", [WORDS, BadNets(target=1)])
def test_a_trigger_is_read_as_it_was_written(tmp_path, trigger):
    name = "badnets" if isinstance(trigger, BadNets) else "rare-token"
    save_attack(trigger, tmp_path / "a.safetensors", name)
    assert load_trigger(tmp_path / "a.safetensors") == trigger


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": ()},
        {"tokens": (-1,)},
        {"tokens": ("x",)},
        {"tokens": 5},
        {"tokens": (7,), "starts": (3,)},
        {"tokens": (7,), "length": 2},
        {"tokens": (7,), "unknown": 1},
        {"tokens": (7,), "mapping": []},
    ],
)
def test_a_damaged_trigger_of_texts_is_one_line(tmp_path, monkeypatch, options):
    monkeypatch.setattr(
        "d3fast.audit.trigger.read_attack",
        lambda _: ("rare-token", {"target": 1, "length": 8, **options}, {}),
    )
    with pytest.raises(ValueError, match=r"^a\.safetensors is no usable attack: ") as caught:
        load_trigger(tmp_path / "a.safetensors")
    assert str(caught.value).isprintable()


def test_a_trigger_of_texts_is_tried_on_texts():
    check_trigger(WORDS, TEXTS, vocabulary=9)
    with pytest.raises(ValueError, match="the trigger has token 8, the model knows 8"):
        check_trigger(WORDS, TEXTS, vocabulary=8)
    short = InsertedTokens(target=1, tokens=(7,), length=3)
    with pytest.raises(ValueError, match="does not fit the texts: ids must be"):
        check_trigger(short, TEXTS)
    blind = InsertedTokens(target=1, tokens=(7,), length=8, starts=(True,))
    with pytest.raises(ValueError, match="does not fit the texts"):
        check_trigger(blind, TEXTS)


def test_a_trigger_of_the_other_kind_is_refused():
    with pytest.raises(ValueError, match="the trigger is for texts, the samples are images"):
        check_trigger(WORDS, SAMPLES)
    with pytest.raises(ValueError, match="the trigger is for images, the samples are texts"):
        check_trigger(BadNets(target=1), TEXTS)
