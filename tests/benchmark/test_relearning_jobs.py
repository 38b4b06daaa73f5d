"""One cell of the relearning test: which images it poisons, and on which it measures."""

import pytest

from d3fast.attacks import TrainConfig
from d3fast.benchmark import relearning_jobs as relearn
from d3fast.benchmark.attack_jobs import AttackCell, Preset, run_attacks
from d3fast.benchmark.implant import Implant
from d3fast.benchmark.relearning import RelearnConfig, Relearning
from d3fast.benchmark.relearning_jobs import RelearnCell
from d3fast.benchmark.repair_jobs import Repair, RepairCell, defender_samples
from d3fast.results.engine import Place, key_of
from d3fast.training.metrics import Metrics

TWIN = Implant(
    data="digits",
    model="preact_resnet_tiny",
    attack=None,
    train=64,
    clean=90,
    training=TrainConfig(epochs=1),
)
PRESET = Preset(TWIN, (("badnets", None),))
SUSPECT = AttackCell(PRESET.cell(0, "badnets", None))
RESULT = Relearning((0, 1), (0.5, 0.5), (0.0, 0.5), Metrics(1, 2, 1, 1, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("relearn"))
    run_attacks(PRESET, place, seeds=[0], progress=False)
    return place


def _keys(images):
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("subject", [SUSPECT, SUSPECT.twin], ids=["suspect", "twin"])
def test_it_poisons_what_the_defender_did_not_get_and_measures_on_test_images(
    place, monkeypatch, subject
):
    seen = {}

    def spy(model, clean, test, attack, **options):
        seen.update(clean=clean, test=test, attack=attack, **options)
        return RESULT

    monkeypatch.setattr(relearn, "evaluate_relearning", spy)
    row = RelearnCell(subject, SUSPECT, clean=40, ks=(1,), test_images=100).run(place, False)
    assert RESULT.as_dict().items() <= row.items()
    assert (row["attack"], row["clean"], row["refused"]) == ("badnets", 40, None)
    splits = TWIN.splits()
    train, val, others = defender_samples(splits.clean, 40, 0.2, seed=0)
    assert _keys(seen["clean"].images) == _keys(others.images)
    assert not _keys(seen["clean"].images) & (_keys(train.images) | _keys(val.images))
    assert len(seen["test"]) == 100
    assert _keys(seen["test"].images) <= _keys(splits.test.images)
    assert seen["test"].labels.bincount().min() >= 9
    assert seen["attack"].target == 0


def test_a_model_that_was_not_made_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"badnets has to be run before .*-relearning-suspect"):
        RelearnCell(SUSPECT, SUSPECT, clean=40).run(Place(tmp_path), False)


def test_whatever_a_result_depends_on_makes_another_cell():
    repair = RepairCell(SUSPECT, "d3", Repair("d3").all_options(0), 40, 20)
    cells = [
        RelearnCell(SUSPECT, SUSPECT, clean=40),
        RelearnCell(SUSPECT.twin, SUSPECT, clean=40),
        RelearnCell(repair, SUSPECT, clean=40),
        RelearnCell(SUSPECT, SUSPECT, clean=41),
        RelearnCell(SUSPECT, SUSPECT, clean=40, ks=(1,)),
        RelearnCell(SUSPECT, SUSPECT, clean=40, test_images=100),
        RelearnCell(SUSPECT, SUSPECT, clean=40, config=RelearnConfig(steps=1)),
    ]
    assert len({key_of(cell) for cell in cells}) == len(cells)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="test_images must be an integer >= 1, got 0"):
        RelearnCell(SUSPECT, SUSPECT, clean=40, test_images=0)
