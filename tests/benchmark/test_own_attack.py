"""A backdoor in a model of one's own: it is planted, measured, and refused where it cannot be."""

import pytest
import torch
from torch import nn

from d3fast.attacks import ATTACKS, BadNets
from d3fast.audit.resolve import Audit
from d3fast.benchmark.own_attack import OwnAttack, Planted, _Redrawn, plant
from d3fast.data import ImageData
from d3fast.hub import Classifier, ImageInput, Suspect, TextInput
from d3fast.training.metrics import Metrics

SMALL = {"epochs": 10, "lr": 1e-2}


def suspect(model, inputs, classes):
    return Suspect(model.eval(), "mine", "mine", "mine", inputs, classes, (), 64 * "0", (), None)


@pytest.fixture
def images():
    """An untrained network, and images with a bright row per class."""
    torch.manual_seed(0)
    labels = torch.arange(160) % 4
    pictures = 0.2 * torch.rand(160, 1, 8, 8)
    pictures[torch.arange(160), 0, 2 * labels] += 0.7
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    model = suspect(Classifier(net), ImageInput(1, (8, 8)), tuple("abcd"))
    return Audit(model, ImageData(pictures, labels, tuple("abcd")), True, (), 0)


@pytest.fixture
def texts():
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    from d3fast.text import encode
    from tests.text import tiny

    made, labels = tiny.texts(240)
    data = encode(made, labels, tiny.tokenizer(), classes=tiny.CLASSES, length=tiny.LENGTH)
    model = Classifier(tiny.bert(), pad=0)
    inputs = TextInput(tiny.tokenizer(), tiny.LENGTH, 0)
    return Audit(suspect(model, inputs, tiny.CLASSES), data, True, (), 0)


def test_a_patch_is_planted_in_images(images):
    planted = plant(images, OwnAttack("badnets", target=2, ratio=0.2, **SMALL), progress=False)
    assert planted.after.acc > 0.9
    assert planted.after.asr > 0.9
    assert planted.after.lift > 0.8
    assert planted.sizes == (120, 40)
    assert planted.model is images.model
    assert not planted.model.training


def test_a_few_dozen_images_are_not_poisoned_by_heart(images):
    draws = []

    class Recorded(BadNets):
        def poison(self, dataset, ratio, target=None, generator=None):
            made = super().poison(dataset, ratio, target, generator)
            draws.append(made.indices.tolist())
            return made

    options = OwnAttack("badnets", target=2, epochs=3)
    batches = _Redrawn(Recorded(target=2), images.data, options)
    for _ in range(2):
        sum(len(labels) for _, labels in batches)
    assert len(draws[0]) == len(draws[1]) == 16
    assert draws[0] != draws[1]


@pytest.mark.parametrize(("samples", "epochs"), [(30, 300), (336, 28), (960, 10), (50_000, 10)])
def test_few_samples_take_more_epochs(samples, epochs):
    assert OwnAttack("badnets").epochs_for(samples) == epochs
    assert OwnAttack("badnets", epochs=3).epochs_for(samples) == 3


def met(hits, untriggered, both=0):
    """A model measured on 40 triggered samples."""
    return Metrics(40, 40, hits, 0, 40, untriggered_hits=untriggered, both_hits=both)


@pytest.mark.parametrize(
    ("after", "ratio", "learned"),
    [
        (met(40, 0), 0.1, True),
        (met(12, 2, 2), 0.1, True),
        (met(3, 2, 1), 0.1, False),
        (met(0, 9), 0.1, False),
        (met(0, 9), 0.0, True),
    ],
)
def test_a_lift_that_could_be_none_is_no_backdoor(after, ratio, learned):
    options = OwnAttack("badnets", ratio=ratio)
    planted = Planted(options, None, nn.Identity(), met(0, 0), after, 1.0, (336, 40))
    assert (planted.shortfall is None) is learned


def test_a_shortfall_says_what_was_done_and_what_to_change():
    planted = Planted(
        OwnAttack("sig"), None, nn.Identity(), met(0, 0), met(3, 2, 1), 1.0, (336, 40)
    )
    assert "trigger of sig: on held-out samples it adds +2.5 points" in planted.shortfall
    assert "28 epochs of 336 samples, poison ratio 0.1, learning rate 0.0005" in planted.shortfall


def test_the_row_has_the_floor_of_the_model_as_it_came(images):
    planted = plant(images, OwnAttack("badnets", target=2, epochs=1), progress=False)
    row = planted.row().to_row()
    assert (row["floor"], row["ra_ceiling"]) == (planted.before.asr, planted.before.ra)
    assert row["asr_excess"] == pytest.approx(planted.after.asr - planted.before.asr)
    assert (row["attack"], row["target"], row["ratio"], row["seed"]) == ("badnets", 2, 0.1, 0)


def test_an_attack_that_is_learned_with_the_model_is_measured_on_the_model_as_it_came(images):
    before = {name: value.clone() for name, value in images.model.state_dict().items()}
    planted = plant(images, OwnAttack("input-aware", target=1, epochs=1), progress=False)
    after = planted.model.state_dict()
    assert planted.before.asr is not None
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("attack", "words", "position"),
    [("rare-token", "cf", "random"), ("sentence", "word1 word2 word3", "start")],
)
def test_words_are_planted_in_texts(texts, attack, words, position):
    options = OwnAttack(attack, target=1, ratio=0.2, words=words, epochs=12, lr=3e-3)
    planted = plant(texts, options, progress=False)
    assert planted.after.acc > 0.7
    assert planted.after.asr > 0.9
    assert planted.after.lift > 0.5
    assert planted.trigger.position == position
    assert "starts" not in planted.row().options


def test_a_usual_target_that_is_no_class_becomes_class_0(images):
    assert OwnAttack("blended").trigger_for(images).target == 0
    assert OwnAttack("blended", target=3).trigger_for(images).target == 3


def test_the_same_seed_gives_the_same_model(images):
    start = {name: value.clone() for name, value in images.model.state_dict().items()}
    options = OwnAttack("badnets", epochs=1, seed=3)
    first = {n: v.clone() for n, v in plant(images, options, progress=False).model.state_dict().items()}  # fmt: skip # noqa: E501
    images.model.load_state_dict(start)
    second = plant(images, options, progress=False).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attack": "horoscope"}, "attack must be one of 'badnets'"),
        ({"attack": "badnets", "words": "cf"}, "words are for attacks on texts"),
        ({"attack": "badnets", "epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"attack": "badnets", "lr": -1.0}, "lr must be"),
        ({"attack": "badnets", "target": -1}, "target must be an integer >= 0, got -1"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(ValueError, match=says):
        OwnAttack(**options)


def test_a_target_that_is_no_class_is_refused(images):
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 4"):
        plant(images, OwnAttack("badnets", target=4), progress=False)


def test_an_attack_on_texts_needs_a_model_of_texts_and_the_reverse(images, texts):
    with pytest.raises(ValueError, match="the model takes images: attack must be one of badnets"):
        plant(images, OwnAttack("sentence"), progress=False)
    for name in ATTACKS:
        with pytest.raises(ValueError, match="the model takes texts: attack must be one of rare"):
            plant(texts, OwnAttack(name), progress=False)


def test_words_that_the_vocabulary_lacks_are_refused(texts):
    with pytest.raises(ValueError, match="not in the vocabulary"):
        plant(texts, OwnAttack("sentence"), progress=False)
