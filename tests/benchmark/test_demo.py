"""One seed of the demo, made short: its rows, curves and models."""

from dataclasses import replace

import pytest
import torch
from msgspec import structs

from d3fast import evaluate
from d3fast.benchmark import demo
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.presets import FINE_TUNED, FINE_TUNED_FASTER, REPAIRED
from d3fast.results.schema.benchmark import DemoRow
from d3fast.training.metrics import der

NAMES = [CLEAN_MODEL, demo.BACKDOORED, FINE_TUNED, FINE_TUNED_FASTER, REPAIRED]


@pytest.fixture(scope="module")
def run(demo_preset):
    return demo.run_seed(demo_preset, 3, progress=False)


def row_of(run, name):
    return next(row for row in run.rows if row.model == name)


def test_every_model_has_a_row_in_the_order_it_was_made(run):
    assert [row.model for row in run.rows] == NAMES
    assert list(run.models) == NAMES
    assert {row.seed for row in run.rows} == {3}


@pytest.mark.parametrize("name", NAMES)
def test_a_row_holds_what_evaluate_says_of_its_model(run, name):
    measured = evaluate(run.models[name], run.test.batches(1000), run.attack)
    row = row_of(run, name)
    assert (row.acc, row.asr, row.ra) == (measured.acc, measured.asr, measured.ra)


def test_the_floor_is_that_of_the_clean_model(run):
    clean = row_of(run, CLEAN_MODEL)
    for row in run.rows:
        assert row.floor == clean.asr
        assert row.asr_excess == row.asr - clean.asr
        assert row.ra_ceiling == clean.ra


def test_repairs_are_compared_with_the_backdoored_model(run):
    test = run.test.batches(1000)
    before = evaluate(run.models[demo.BACKDOORED], test, run.attack)
    for name in NAMES[2:]:
        after = evaluate(run.models[name], test, run.attack)
        row = row_of(run, name)
        assert row.der == der(before, after)
        assert row.acc_loss == before.acc - after.acc
    assert row_of(run, demo.BACKDOORED).der is None


def test_distance_is_that_of_the_tracked_weights(run):
    start, end = (run.models[name].head.weight for name in (demo.BACKDOORED, REPAIRED))
    expected = float(((end - start).norm() / start.norm()).detach())
    assert row_of(run, REPAIRED).distance == pytest.approx(expected)
    assert row_of(run, demo.BACKDOORED).distance == 0.0
    assert row_of(run, CLEAN_MODEL).distance is None


def test_curves_start_at_the_backdoored_model_and_follow_every_epoch(run):
    assert list(run.curves) == NAMES[2:]
    shown = run.test.batches(1000)
    start = evaluate(run.models[demo.BACKDOORED], shown, run.attack)
    for name, curve in run.curves.items():
        end = evaluate(run.models[name], shown, run.attack)
        assert curve.epochs == [0, 1, 2]
        assert (curve.acc[0], curve.asr[0], curve.distance[0]) == (start.acc, start.asr, 0.0)
        assert (curve.acc[-1], curve.asr[-1]) == (end.acc, end.asr)
        assert curve.distance[-1] == row_of(run, name).distance


def test_a_seed_gives_the_same_numbers_again(demo_preset, run):
    again = demo.run_seed(demo_preset, 3, progress=False)
    timeless = [[structs.replace(row, seconds=0.0) for row in r.rows] for r in (run, again)]
    assert timeless[0] == timeless[1]


def test_another_seed_gives_other_models(demo_preset, run):
    other = demo.run_seed(demo_preset, 4, progress=False)
    weights = [r.models[REPAIRED].head.weight for r in (run, other)]
    assert not torch.equal(*weights)


def test_time_spent_watching_is_not_the_repairs(monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(demo.time, "perf_counter", clock.perf_counter)
    watch = demo._Observer.__new__(demo._Observer)
    watch.seconds = 0.0
    watch._add = lambda epoch, model: setattr(clock, "now", clock.now + 2.5)
    watch(type("Epoch", (), {"epoch": 1}), None)
    watch(type("Epoch", (), {"epoch": 2}), None)
    assert watch.seconds == 5.0


def test_a_trigger_that_measures_nothing_is_refused(demo_preset, monkeypatch):
    monkeypatch.setattr("d3fast.training.metrics.MAX_FLOOR", -1.0)
    with pytest.raises(
        ValueError, match=r"measures nothing with target 0: .* on \d+\.\d % of triggered"
    ):
        demo.run_seed(demo_preset, 3, progress=False)


def test_more_images_than_there_are_is_an_error(demo_preset):
    base = replace(demo_preset.suspects[0].base, train=5000)
    large = replace(demo_preset, suspects=(replace(demo_preset.suspects[0], base=base),))
    with pytest.raises(ValueError, match="sum to"):
        demo.run_seed(large, 0, progress=False)


def row_with(seed, lift, loss, model=REPAIRED):
    return DemoRow(
        seed=seed,
        model=model,
        acc=0.9,
        asr=lift,
        asr_excess=lift,
        lift=lift,
        acc_loss=loss,
        floor=0.0,
        seconds=1.0,
    )


def test_shortfalls_name_seed_number_and_goal():
    rows = [
        row_with(0, 1.0, 1.0, FINE_TUNED),
        row_with(0, 0.049, 0.0299),
        row_with(1, 0.072, 0.01),
        row_with(2, 0.0, 0.041),
    ]
    assert demo.shortfalls(rows) == [
        "seed 1: lift 7.2 points, goal <= 5",
        "seed 2: ACC loss 4.1 points, goal <= 3",
    ]
