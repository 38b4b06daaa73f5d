# SPDX-License-Identifier: Apache-2.0
"""Whether D3 reached its goals, and which defence did better where: plain lines with numbers.

D3 is compared with another defence only on cells (attack x seed) that both have, so that a missing
cell can neither help nor harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from d3fast.benchmark.demo import BACKDOORED, CLEAN
from d3fast.benchmark.report.numbers import (
    D3,
    FINE_TUNING,
    NONE,
    Grid,
    Row,
    attack_name,
    both_grids,
    mean,
    relearning,
)

# Goals of D3; the first, second and fourth in points.
MAX_MEAN_EXCESS = 0.5
MAX_BELOW_FINE_TUNING = 1.0
MAX_ADAPTIVE_EXCESS = 2.7
# What relearning rows may call the models that no defence has touched.
NEVER_POISONED = (CLEAN, "clean", "never poisoned")
REFERENCES = (*NEVER_POISONED, NONE, BACKDOORED, "suspect")
_SAME = 5e-4  # differences below the digit that is shown are no differences


@dataclass(frozen=True)
class Verdict:
    """One goal.

    Attributes:
        goal: what was asked for.
        reached: whether it was; ``None`` where it was not measured.
        text: the number, and who is better where it was missed.
    """

    goal: str
    reached: bool | None
    text: str

    @property
    def word(self) -> str:
        """The verdict in one or two words."""
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


def number(value: float | None, digits: int = 1) -> str:
    """A fraction as percent or points, with a true minus sign, or a dash.

    Example:
        >>> number(0.1234), number(-0.002), number(-0.0001), number(None)
        ('12.3', '−0.2', '0.0', '–')
    """
    if value is None:
        return "–"
    return f"{round(100 * value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _paired(grid: Grid, other: str, key: str) -> float | None:
    """Mean of D3 minus another defence over the cells that both have."""
    own = {(attack_name(row), row["seed"]): row.get(key) for row in grid.all_rows(D3)}
    differences = []
    for row in grid.all_rows(other):
        mine, theirs = own.get((attack_name(row), row["seed"])), row.get(key)
        if mine is not None and theirs is not None:
            differences.append(mine - theirs)
    return mean(differences)


def _excess(plain: Grid) -> Verdict:
    goal = f"mean ASR excess over plain attacks at most {MAX_MEAN_EXCESS:g} points"
    value = plain.overall(D3, "asr_excess")
    worst = plain.worst(D3, "asr_excess")
    if value is None or worst is None:
        return Verdict(goal, None, "")
    text = (
        f"{number(value, 2)} points over {_plural(len(plain.attacks), 'attack')} and "
        f"{_plural(len(plain.seeds), 'seed')}; worst {number(worst['asr_excess'], 2)} on "
        f"{attack_name(worst)}, seed {worst['seed']}"
    )
    if (have := len(plain.all_rows(D3))) < plain.expected():
        text += f"; only {have} of {plain.expected()} models"
    return Verdict(goal, 100 * value <= MAX_MEAN_EXCESS, text)


def _accuracy(plain: Grid) -> Verdict:
    goal = f"ACC at most {MAX_BELOW_FINE_TUNING:g} point below fine-tuning"
    change = _paired(plain, FINE_TUNING, "acc")
    if change is None:
        return Verdict(goal, None, "")
    where = "above" if change >= 0 else "below"
    text = f"{number(abs(change), 2)} points {where} fine-tuning"
    return Verdict(goal, -100 * change <= MAX_BELOW_FINE_TUNING, text)


def _ranking(plain: Grid) -> Verdict:
    goal = "best mean DER of all defences"
    others = [name for name in plain.defenses if name != D3]
    gaps = {name: gap for name in others if (gap := _paired(plain, name, "der")) is not None}
    value = plain.overall(D3, "der")
    if value is None or not gaps:
        return Verdict(goal, None, "")
    better = sorted((name for name in gaps if gaps[name] < 0), key=lambda name: gaps[name])
    if better:
        list_ = ", ".join(f"{name} by {number(-gaps[name], 2)}" for name in better)
        return Verdict(goal, False, f"{number(value, 2)} %; better: {list_} points")
    nearest = min(gaps, key=lambda name: gaps[name])
    text = (
        f"{number(value, 2)} %, first of {len(gaps) + 1}; {nearest} is next, "
        f"{number(gaps[nearest], 2)} points behind"
    )
    return Verdict(goal, True, text)


def _adaptive(adaptive: Grid) -> Verdict:
    goal = f"ASR excess of every adaptive attack at most {MAX_ADAPTIVE_EXCESS:g} points"
    means = {
        attack: value
        for attack in adaptive.attacks
        if (value := adaptive.mean(attack, D3, "asr_excess")) is not None
    }
    if not means:
        return Verdict(goal, None, "")
    over = [name for name, value in means.items() if 100 * value > MAX_ADAPTIVE_EXCESS]
    worst = max(means, key=lambda name: means[name])
    shown = sorted(over, key=lambda name: -means[name]) or [worst]
    list_ = ", ".join(f"{name} {number(means[name], 2)}" for name in shown)
    return Verdict(goal, not over, f"{'missed on' if over else 'largest:'} {list_} points")


def _relearning(rows: Sequence[Row]) -> Verdict:
    goal = "lowest relearning area of all defences"
    own: dict[tuple[str, int], float] = {}
    areas: dict[str, dict[tuple[str, int], float]] = {}
    for attack, by_name in relearning(rows).items():
        for name, runs in by_name.items():
            found = {(attack, row["seed"]): row["area"] for row in runs}
            if name == D3:
                own |= found
            elif name not in REFERENCES:
                areas.setdefault(name, {}).update(found)
    gaps = {
        name: gap
        for name, found in areas.items()
        if (gap := mean(own[key] - area for key, area in found.items() if key in own)) is not None
    }
    value = mean(own.values())
    if value is None or not gaps:
        return Verdict(goal, None, "")
    better = sorted((name for name in gaps if gaps[name] > 0), key=lambda name: -gaps[name])
    if better:
        list_ = ", ".join(f"{name} by {gaps[name]:.3f}" for name in better)
        return Verdict(goal, False, f"{value:.3f}; lower: {list_}")
    nearest = max(gaps, key=lambda name: gaps[name])
    return Verdict(goal, True, f"{value:.3f}; {nearest} is next, {-gaps[nearest]:.3f} higher")


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every goal of D3, judged on the unrounded numbers of one setting.

    Args:
        rows: of all kinds.

    Example:
        >>> [verdict.word for verdict in verdicts([])]
        ['not measured', 'not measured', 'not measured', 'not measured', 'not measured']
    """
    plain, adaptive = both_grids(rows)
    return [
        _excess(plain),
        _accuracy(plain),
        _ranking(plain),
        _adaptive(adaptive),
        _relearning(rows),
    ]


def better_elsewhere(made: Grid) -> dict[str, dict[str, tuple[str, float, float]]]:
    """Per attack, the best other defence where it beats D3 by more than the tables round away.

    Returns:
        by attack and key (``der``, ``asr_excess``, ``acc``): the defence, its mean, and D3's;
        attacks on which nobody is better are left out.
    """
    found: dict[str, dict[str, tuple[str, float, float]]] = {}
    for attack in made.attacks:
        for key, sign in (("der", 1), ("asr_excess", -1), ("acc", 1)):
            own = made.mean(attack, D3, key)
            others = {
                name: value
                for name in made.defenses
                if name != D3 and (value := made.mean(attack, name, key)) is not None
            }
            if own is None or not others:
                continue
            best = max(others, key=lambda name: sign * others[name])
            if sign * (others[best] - own) >= _SAME:
                found.setdefault(attack, {})[key] = (best, others[best], own)
    return found
