# SPDX-License-Identifier: Apache-2.0
"""A whole repair: ``detoxify`` and one evaluation against the loop of the published experiments.

Same suspect, clean samples, start, number of batches and epochs. The published loop evaluates after
every epoch, which is part of its time; training and evaluation are recorded separately. There are
at most four test images per clean sample, as in the published experiments (10,000 and 2,500). ACC,
ASR and RA after the repair are recorded beside the times.
"""

import statistics
import time
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from benchmarks.speed.authors_loop import repair
from d3fast.attacks import Attack
from d3fast.benchmark.implant import AttackSpec, train_model
from d3fast.benchmark.presets import DEMO_PRESETS
from d3fast.data import Splits
from d3fast.defenses import D3
from d3fast.detox import D3Config, detoxify
from d3fast.runtime.devices import synchronize
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import evaluate

ROUNDS, SEED = 3, 0
TEST_PER_CLEAN = 4
EPOCHS = {"digits": 50, "fashion-mnist": 10}  # of the repair
TRAINING_EPOCHS = {"digits": 20, "fashion-mnist": 6}  # of the suspect
OURS, FAST, THEIRS = "d3fast", "d3fast, bf16 and channels last", "published way"


@dataclass(frozen=True)
class Scenario:
    """Suspect with its data and the options of its repair."""

    spec: AttackSpec
    attack: Attack
    d3: D3Config
    batch_size: int
    splits: Splits
    suspect: nn.Module
    device: torch.device

    def ours(self, **options):
        """Repair with ``detoxify``; return seconds of training and evaluation, and the model."""
        config = replace(self.d3, **options)
        samples = self.splits.clean.batches(self.batch_size, generator(SEED, "repair order"))
        started = time.perf_counter()
        result = detoxify(self.suspect, samples, config, device=self.device, progress=False)
        synchronize(self.device)
        trained = time.perf_counter()
        evaluate(result.model, self.splits.test.batches(1000), self.attack)
        done = time.perf_counter()
        return trained - started, done - trained, result.model

    def fast(self):
        """Repair with ``detoxify`` in bf16 and channels last."""
        return self.ours(precision="bf16", channels_last=True)

    def theirs(self):
        """Repair with the published loop."""
        clean, batch_size = self.splits.clean, self.batch_size
        batches = len(clean.batches(batch_size))
        outcome = repair(
            self.suspect,
            clean,
            self.splits.test,
            self.attack,
            self.d3,
            batch_size=-(-len(clean) // batches),
            device=self.device,
        )
        return outcome.training, outcome.evaluation, outcome.model


def make_scenario(name, run):
    chosen = DEMO_PRESETS[name]
    spec = chosen.suspects[0].spec(SEED, "badnets", None)
    training = replace(spec.training, epochs=max(1, TRAINING_EPOCHS[name] // run.shrink))
    spec = replace(spec, training=training)
    d3 = next(d for line in chosen.defenses if isinstance(d := line.build(SEED), D3)).config
    d3 = replace(d3, epochs=max(1, EPOCHS[name] // run.shrink))
    try:
        splits = spec.splits().to(run.device)
    except ValueError as missing:
        pytest.skip(str(missing))
    shown = min(len(splits.test), TEST_PER_CLEAN * len(splits.clean))
    splits = replace(splits, test=splits.test.subset(torch.arange(shown)))
    attack = spec.make_attack()
    suspect, _ = train_model(spec, splits, attack, device=run.device, progress=False)
    return Scenario(spec, attack, d3, chosen.batch_size, splits, suspect, run.device)


def interleaved(scenario):
    """Return seconds of training and evaluation per round, and the models, by repairer."""
    repairers = {OURS: scenario.ours, FAST: scenario.fast, THEIRS: scenario.theirs}
    brief = replace(scenario, d3=replace(scenario.d3, epochs=1))
    for warm in (brief.ours, brief.fast, brief.theirs):
        warm()
    seconds: dict[str, list[float]] = {name: [] for name in repairers}
    models = {}
    for turn in range(ROUNDS):
        for name in list(repairers)[:: -1 if turn % 2 else 1]:
            training, evaluation, models[name] = repairers[name]()
            seconds[name].append((training, evaluation))
    return seconds, models


def rows(name, scenario, seconds, models):
    totals = {who: [sum(parts) for parts in rounds] for who, rounds in seconds.items()}
    before = evaluate(scenario.suspect, scenario.splits.test.batches(1000), scenario.attack)
    for who, rounds in seconds.items():
        measured = evaluate(models[who], scenario.splits.test.batches(1000), scenario.attack)
        ratios = [t / o for t, o in zip(totals[who], totals[OURS], strict=True)]
        yield {
            "kind": "detoxify",
            "data": name,
            "model": scenario.spec.model,
            "epochs": scenario.d3.epochs,
            "clean_samples": len(scenario.splits.clean),
            "test_images": len(scenario.splits.test),
            "contender": who,
            "rounds": ROUNDS,
            "seconds": statistics.median(totals[who]),
            "seconds_low": min(totals[who]),
            "seconds_high": max(totals[who]),
            "training_seconds": statistics.median(t for t, _ in rounds),
            "evaluation_seconds": statistics.median(e for _, e in rounds),
            "to_d3fast": statistics.median(ratios),
            **{f"suspect_{key}": getattr(before, key) for key in ("acc", "asr", "ra")},
            **{key: getattr(measured, key) for key in ("acc", "asr", "ra")},
        }


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread: small layers gain little from a second one and lose on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def repaired(run):
    """Return a function that measures a data set once: seconds per round by repairer."""
    known = {}

    def of(name):
        if name not in known:
            scenario = make_scenario(name, run)
            seconds, models = interleaved(scenario)
            run.rows += rows(name, scenario, seconds, models)
            known[name] = seconds
        return known[name]

    return of


@pytest.mark.parametrize("who", [OURS, FAST, THEIRS])
@pytest.mark.parametrize("data", EPOCHS)
def test_detoxify(repaired, data, who):
    assert len(repaired(data)[who]) == ROUNDS
