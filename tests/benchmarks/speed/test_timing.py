# SPDX-License-Identifier: Apache-2.0
"""Contenders take turns: every round has all of them, in changing order, each warmed before."""

import time
from itertools import pairwise

import torch

from benchmarks.speed.timing import MAX_WARMUP, MIN_ROUNDS, Contender, cpu_seconds, interleave
from benchmarks.speed.yardsticks import BYTES, FLOORS, Yardsticks

CPU = torch.device("cpu")


def test_every_round_has_all_contenders_in_changing_order():
    seen = []

    def measure(contender, device, calls):
        seen.append(contender.name)
        return 1.0

    names = ["a", "b", "c", "d"]
    contenders = [Contender(name, lambda: None) for name in names]
    samples = interleave(contenders, CPU, 0.0, measure)
    assert {name: len(s) for name, s in samples.items()} == dict.fromkeys(names, MIN_ROUNDS)
    rounds = [seen[i : i + 4] for i in range(4, len(seen), 4)]  # the first are trials
    assert all(sorted(r) == names for r in rounds)
    assert len({r[0] for r in rounds}) == len(names)
    assert len({tuple(pairwise(r)) for r in rounds}) > len(names)


def test_a_timed_call_follows_an_untimed_one_and_a_sample_a_few():
    calls = []
    mine = Contender("mine", lambda: calls.append("timed"), lambda: calls.append("warm"))
    other = Contender("other", lambda: calls.append("other"))
    interleave([mine, other], CPU, 0.0)
    befores = [calls[i - 1] for i, call in enumerate(calls) if call == "timed"]
    assert set(befores) == {"warm"}
    after_rival = [i for i in range(1, len(calls)) if (calls[i - 1], calls[i]) == ("other", "warm")]
    assert len(after_rival) >= MIN_ROUNDS // 2
    for i in after_rival:
        assert calls[i : i + MAX_WARMUP + 2] == ["warm"] * (MAX_WARMUP + 1) + ["timed"]


def test_a_floor_is_the_time_of_the_best_yardstick():
    yardsticks = Yardsticks(4096, CPU)
    samples = {name: [4.0, 2.0, 6.0] for name in BYTES}
    samples["copy"] = [1.0, 0.5, 2.0]
    moved = yardsticks.moved["copy"]
    assert yardsticks.floor(samples, 10 * moved, FLOORS["floor"]) == [10.0, 5.0, 20.0]
    assert yardsticks.floor(samples, 10 * moved, ("add",)) == [
        10 * moved * s / yardsticks.moved["add"] for s in samples["add"]
    ]


def test_yardsticks_move_the_bytes_they_claim():
    yardsticks = Yardsticks(4800, CPU)
    assert yardsticks.moved == {"copy": 4800, "add": 4800, "update": 7200}
    for contender in yardsticks.contenders:
        contender.call()


def test_cpu_time_leaves_out_what_others_run_meanwhile():
    sleeper = Contender("sleeper", lambda: time.sleep(0.05))
    assert cpu_seconds(sleeper, CPU, 2) < 0.02
