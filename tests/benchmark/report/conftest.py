"""Rows as the benchmark's grid gives them, with numbers made up for the page."""

import random

import pytest

from d3fast.results.schema.benchmark import read_grid

# ACC lost and ASR left, as shares, about as large as defences of these kinds have them.
DEFENSES = {
    "fine-tuning": (0.004, 0.42),
    "ft-sam": (0.010, 0.10),
    "fine-pruning": (0.012, 0.21),
    "nad": (0.008, 0.25),
    "neural-cleanse": (0.015, 0.30),
    "anp": (0.028, 0.06),
    "i-bau": (0.022, 0.05),
    "sau": (0.014, 0.02),
    "fst": (0.013, 0.012),
    "d3": (0.008, 0.002),
    "fine-pruning+d3": (0.019, 0.002),
    "fine-tuning (D3's lr)": (0.009, 0.33),
}
ATTACKS = ("badnets", "blended", "sig", "low-frequency", "wanet", "input-aware", "ssba")
ADAPTIVE = (("badnets", "sam-3"), ("blended", "sam-3"), ("badnets", "distance-aware"))


def measured(draw, row, acc, asr, floor):
    """A row with its rates."""
    asr = min(max(asr, 0.0), 1.0)
    return {
        **row,
        "acc": acc,
        "asr": asr,
        "ra": (1 - asr) * 0.86,
        "acc_interval": [acc - 0.01, acc],
        "asr_interval": [asr, asr],
        "ra_interval": None,
        "floor": floor,
        "ra_ceiling": 0.88,
        "asr_excess": asr - floor,
        "untriggered": floor,
        "lift": asr - floor,
        "acc_loss": 0.92 - acc,
        "refused": None,
        "der": (max(0, 0.97 - asr) - max(0, 0.92 - acc) + 1) / 2,
        "seconds": 4 + 30 * draw.random(),
    }


def made_up(
    seeds=3, attacks=ATTACKS, adaptive=ADAPTIVE, defenses=tuple(DEFENSES), model="net", extras=True
):
    """Rows of a whole grid; ``extras`` adds tests and ablations."""
    draw = random.Random(0)
    rows = []
    shared = {"data": "cifar10", "model": model, "ratio": 0.1, "clean": 500, "ablation": None}
    for seed in range(seeds):
        clean = {**shared, "kind": "clean", "seed": seed, "attack": "clean", "adaptive": None}
        rows.append({**clean, "ratio": None, "clean": None, "defense": "clean model", "acc": 0.925})
        for attack, wrapper in [*((name, None) for name in attacks), *adaptive]:
            floor = 0.004 + 0.03 * draw.random()
            name = {**shared, "seed": seed, "attack": attack, "adaptive": wrapper}
            suspect = {**name, "kind": "suspect", "defense": "none", "clean": None}
            rows.append(measured(draw, suspect, 0.92, 0.94 + 0.06 * draw.random(), floor))
            for defense in defenses:
                loss, left = DEFENSES[defense]
                left *= (3 if wrapper else 1) * (0.2 + 1.6 * draw.random())
                acc = 0.92 - loss * (0.7 + 0.6 * draw.random())
                asr = floor + left - 0.004 * draw.random()
                row = {**name, "kind": "repair", "defense": defense}
                rows.append(measured(draw, row, acc, asr, floor))
    more = (_relearning, _reactivation, _ablations) if extras else ()
    rows += [row for make in more for row in make(draw, seeds, shared)]
    return read_grid(rows)


def _relearning(draw, seeds, shared):
    rows = []
    for attack in ("badnets", "blended"):
        subjects = {"clean model": 0.15, "none": 0.98, "fine-tuning": 0.8, "sau": 0.6, "d3": 0.25}
        for defense, level in subjects.items():
            for seed in range(seeds):
                asr = [min(1.0, level * (k + 2) / 8 + 0.03 * draw.random()) for k in range(6)]
                rows.append(
                    {
                        **shared,
                        "kind": "relearning",
                        "seed": seed,
                        "attack": attack,
                        "adaptive": None,
                        "defense": defense,
                        "ks": [0, 1, 3, 10, 30, 100],
                        "asr": asr,
                        "acc": [0.9] * 6,
                        "area": sum(asr[1:]) / 5,
                        "refused": None,
                    }
                )
    return rows


def _reactivation(draw, seeds, shared):
    opened = {"clean model": 0.1, "none": 1.0, "fine-tuning": 0.9, "sau": 0.3, "d3": 0.2}
    return [
        {
            **shared,
            "kind": "reactivation",
            "seed": seed,
            "attack": attack,
            "adaptive": None,
            "defense": defense,
            "before": {"asr": level / 10},
            "white_box": {"asr": level},
            "untriggered": {"asr": 0.1},
            "transfer": {"asr": level / 2},
            "lift": level - 0.1,
            "existence": level - 0.1,
            "refused": None,
        }
        for attack in ("badnets", "blended")
        for defense, level in opened.items()
        for seed in range(seeds)
    ]


def _ablations(draw, seeds, shared):
    points = [("lambda", value, "d3") for value in (20.0, 0.5, 1.0, 2.0, 5.0, 10.0)]
    points += [("warm start", value, "d3") for value in ("near", "far", "random")]
    points += [("clean share", v, d) for d in ("d3", "fine-tuning") for v in (0.01, 0.05, 0.1)]
    rows = []
    for factor, value, defense in points:
        for seed in range(seeds):
            row = {
                **shared,
                "kind": "repair",
                "seed": seed,
                "attack": "badnets",
                "adaptive": None,
                "defense": defense,
                "ablation": {"factor": factor, "value": value},
            }
            asr = 0.01 + 0.03 * draw.random()
            rows.append(measured(draw, row, 0.9 + 0.01 * draw.random(), asr, 0.01))
    return rows


@pytest.fixture(scope="session")
def grid_rows():
    """The builder of rows."""
    return made_up
