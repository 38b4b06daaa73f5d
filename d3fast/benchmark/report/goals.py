# SPDX-License-Identifier: Apache-2.0
"""The goals of D3 in a benchmark, and the attacks on which another defence did better.

D3 is compared with another defence only on models (attack x seed) that both repaired, so that a
missing row can neither help nor harm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from d3fast.benchmark.labels import CLEAN_MODEL, D3, FINE_TUNING, NONE, attack_label
from d3fast.benchmark.report.numbers import EFFECTS, Grid, both_grids, relearning
from d3fast.results.format import count, fixed, mean, percent, shortest
from d3fast.results.schema.benchmark import GridRow

# Limits of the goals, in points.
MAX_MEAN_LIFT, MAX_WORST_LIFT = 0.3, 2.0
MAX_BELOW_FINE_TUNING = 0.5
MAX_ADAPTIVE_LIFT = 1.5
# Models that no defence repaired; they do not compete.
REFERENCES = (CLEAN_MODEL, NONE)
_SMALLEST_SHOWN = 5e-4  # smaller differences do not show in the tables


@dataclass(frozen=True)
class Goal:
    """One goal of D3 and its outcome.

    Attributes:
        text: the goal.
        reached: the outcome; ``None`` if it was not measured.
        found: the number, and the better defences if the goal was missed.
    """

    text: str
    reached: bool | None
    found: str = ""

    @property
    def outcome(self) -> str:
        """The outcome in one or two words."""
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


def _paired(grid: Grid, other: str, key: str) -> float | None:
    """Return the mean of D3 minus another defence over the models that both repaired."""
    own = {(attack_label(row), row.seed): getattr(row, key) for row in grid.all_rows(D3)}
    differences = []
    for row in grid.all_rows(other):
        mine, theirs = own.get((attack_label(row), row.seed)), getattr(row, key)
        if mine is not None and theirs is not None:
            differences.append(mine - theirs)
    return mean(differences)


def _lift(plain: Grid) -> Goal:
    key = plain.effect
    text = (
        f"mean {EFFECTS[key]} over plain attacks at most {shortest(MAX_MEAN_LIFT)} points, "
        f"worst at most {shortest(MAX_WORST_LIFT)}"
    )
    value, worst = plain.overall(D3, key), plain.worst(D3, key)
    if value is None or worst is None:
        return Goal(text, None)
    most = getattr(worst, key)
    found = (
        f"{percent(value, 2)} points over {count(len(plain.attacks), 'attack')} and "
        f"{count(len(plain.seeds), 'seed')}; worst {percent(most, 2)} on "
        f"{attack_label(worst)}, seed {worst.seed}"
    )
    if (have := len(plain.all_rows(D3))) < plain.expected():
        found += f"; only {have} of {plain.expected()} models"
    return Goal(text, 100 * value <= MAX_MEAN_LIFT and 100 * most <= MAX_WORST_LIFT, found)


def _accuracy(plain: Grid) -> Goal:
    text = f"ACC at most {shortest(MAX_BELOW_FINE_TUNING)} points below fine-tuning"
    change = _paired(plain, FINE_TUNING, "acc")
    if change is None:
        return Goal(text, None)
    side = "above" if change >= 0 else "below"
    found = f"{percent(abs(change), 2)} points {side} fine-tuning"
    if (loss := plain.overall(D3, "acc_loss")) is not None:
        found += f", {percent(abs(loss), 2)} {'below' if loss >= 0 else 'above'} the suspect"
    return Goal(text, -100 * change <= MAX_BELOW_FINE_TUNING, found)


def _ranking(plain: Grid) -> Goal:
    text = "best mean DER of all defences"
    others = [name for name in plain.defenses if name != D3]
    leads = {name: lead for name in others if (lead := _paired(plain, name, "der")) is not None}
    value = plain.overall(D3, "der")
    if value is None or not leads:
        return Goal(text, None)

    def points(lead: float) -> str:
        return percent(lead, 2)

    if better := _better(leads, points):
        return Goal(text, False, f"{percent(value, 2)} %; better: {better} points")
    nearest = min(leads, key=lambda name: leads[name])
    found = (
        f"{percent(value, 2)} %, first of {len(leads) + 1}; {nearest} is next, "
        f"{points(leads[nearest])} points behind"
    )
    return Goal(text, True, found)


def _better(leads: Mapping[str, float], shown: Callable[[float], str]) -> str:
    """Return who is ahead of D3 and by how much, the best first."""
    ahead = sorted((name for name in leads if leads[name] < 0), key=lambda name: leads[name])
    return ", ".join(f"{name} by {shown(-leads[name])}" for name in ahead)


def _adaptive(adaptive: Grid) -> Goal:
    limit, key = shortest(MAX_ADAPTIVE_LIFT), adaptive.effect
    text = f"{EFFECTS[key]} of every adaptive attack at most {limit} points"
    means = {
        attack: value
        for attack in adaptive.attacks
        if (value := adaptive.mean(attack, D3, key)) is not None
    }
    if not means:
        return Goal(text, None)
    ranked = sorted(means, key=lambda name: -means[name])
    over = [name for name in ranked if 100 * means[name] > MAX_ADAPTIVE_LIFT]
    listed = ", ".join(f"{name} {percent(means[name], 2)}" for name in over or ranked[:1])
    return Goal(text, not over, f"{'missed on' if over else 'largest:'} {listed} points")


def _relearning(rows: Sequence[GridRow]) -> Goal:
    text = "lowest relearning area of all defences"
    areas: dict[str, dict[tuple[str, int], float]] = {}
    for attack, by_name in relearning(rows).items():
        for name, runs in by_name.items():
            areas.setdefault(name, {}).update(
                {(attack, run.seed): run.area for run in runs if run.area is not None}
            )
    own = areas.pop(D3, {})
    leads = {
        name: lead
        for name, theirs in areas.items()
        if name not in REFERENCES
        and (lead := mean(area - own[key] for key, area in theirs.items() if key in own))
        is not None
    }
    value = mean(own.values())
    if value is None or not leads:
        return Goal(text, None)

    def shown(area: float) -> str:
        return fixed(area, 3)

    if better := _better(leads, shown):
        return Goal(text, False, f"{shown(value)}; lower: {better}")
    nearest = min(leads, key=lambda name: leads[name])
    found = f"{shown(value)}; {nearest} is next, {shown(leads[nearest])} higher"
    return Goal(text, True, found)


def judge_goals(rows: Sequence[GridRow]) -> list[Goal]:
    """Return every goal of D3, judged on the unrounded numbers of one setting.

    Where nothing is poisoned, only the accuracy is judged.

    Args:
        rows: of all kinds.

    Example:
        >>> {goal.outcome for goal in judge_goals([])}
        {'not measured'}
    """
    plain, adaptive = both_grids(rows)
    repaired = plain.all_rows(D3)
    if repaired and all(row.ratio == 0 for row in repaired):
        return [_accuracy(plain)]
    return [
        _lift(plain),
        _accuracy(plain),
        _ranking(plain),
        _adaptive(adaptive),
        _relearning(rows),
    ]


def better_elsewhere(grid: Grid) -> dict[str, dict[str, tuple[str, float, float]]]:
    """Return, per attack, the best other defence if it beats D3 by a difference that shows.

    Returns:
        By attack and key (``der``, the grid's effect, ``acc``): the defence, its mean, and D3's.
        Attacks on which no defence is better are left out.
    """
    found: dict[str, dict[str, tuple[str, float, float]]] = {}
    for attack in grid.attacks:
        for key, sign in (("der", 1), (grid.effect, -1), ("acc", 1)):
            own = grid.mean(attack, D3, key)
            others = {
                name: value
                for name in grid.defenses
                if name != D3 and (value := grid.mean(attack, name, key)) is not None
            }
            if own is None or not others:
                continue
            best = max(others, key=lambda name: sign * others[name])
            if sign * (others[best] - own) >= _SMALLEST_SHOWN:
                found.setdefault(attack, {})[key] = (best, others[best], own)
    return found
