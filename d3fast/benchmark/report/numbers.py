# SPDX-License-Identifier: Apache-2.0
"""Means over the rows of a benchmark, by setting, attack, defence and seed.

One row is one model on one seed. A number that no row holds is ``None`` here and a dash wherever
it is shown, never zero. Means over attacks are taken per seed first, so that their range is the
spread over seeds:

    m_s = mean over attacks of x[attack, s],   shown: mean over s of m_s, min m_s – max m_s
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from d3fast.benchmark.labels import FINE_TUNING, NONE, attack_label, defense_label
from d3fast.results.format import mean, percent
from d3fast.results.schema.benchmark import (
    CleanRow,
    DefenseRow,
    GridRow,
    ReactivationRow,
    RelearningRow,
    SuspectRow,
)

AttackedRow = SuspectRow | DefenseRow  # a model under attack, before or after a repair
# What a trigger still does to a model, by field: the heading of its column.
EFFECTS = {"lift": "lift", "asr_excess": "ASR excess"}
_SETTING = ("data", "model", "clean", "ratio")
# Fields that do not apply to a kind: a clean model has neither a defender's nor poisoned samples.
_NOT_APPLICABLE: Mapping[type[GridRow], tuple[str, ...]] = {
    CleanRow: ("clean", "ratio"),
    SuspectRow: ("clean",),
}


def effect_of(rows: Iterable[AttackedRow]) -> str:
    """Return the field of ``EFFECTS`` that all rows have; files of release 0.1 have no ``lift``.

    Example:
        >>> effect_of([DefenseRow(seed=0, defense="d3", asr=0.1, asr_excess=0.1)])
        'asr_excess'
    """
    return "lift" if all(row.lift is not None for row in rows) else "asr_excess"


@dataclass(frozen=True)
class Grid:
    """Attacks x defences under one setting.

    Attributes:
        cells: rows of all seeds by (attack, defence), those without numbers included.
        attacks: in the order they were run.
        defenses: highest mean DER first; ``none`` is not among them.
        seeds: of all rows.
    """

    cells: Mapping[tuple[str, str], tuple[AttackedRow, ...]]
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    seeds: tuple[int, ...]

    def rows(self, attack: str, defense: str) -> list[AttackedRow]:
        """Return the measured rows of one attack and defence."""
        return [row for row in self.cells.get((attack, defense), ()) if not row.refused]

    def mean(self, attack: str, defense: str, key: str) -> float | None:
        """Return the mean over the seeds of one attack and defence."""
        return mean(getattr(row, key) for row in self.rows(attack, defense))

    def all_rows(self, defense: str) -> list[AttackedRow]:
        """Return the measured rows of a defence."""
        return [row for attack in self.attacks for row in self.rows(attack, defense)]

    @property
    def effect(self) -> str:
        """The field of ``EFFECTS`` that all repaired rows have; see ``effect_of``."""
        names = self.defenses or (NONE,)
        return effect_of(row for name in names for row in self.all_rows(name))

    def unchanged(self, defense: str) -> list[AttackedRow]:
        """Return the rows of suspects that a defence returned as they were: no epoch was run."""
        return [row for row in self.all_rows(defense) if row.epochs == 0]

    def seed_means(self, defense: str, key: str) -> list[float]:
        """Return, per seed, the mean over attacks; a seed without a number is left out."""
        return self._means([(row.seed, getattr(row, key)) for row in self.all_rows(defense)])

    def acc_changes(self, defense: str) -> list[float]:
        """Return, per seed, the mean ACC minus that of fine-tuning on the same models."""
        tuned = {(attack_label(row), row.seed): row.acc for row in self.all_rows(FINE_TUNING)}
        changes = []
        for row in self.all_rows(defense):
            base = tuned.get((attack_label(row), row.seed))
            if row.acc is not None and base is not None:
                changes.append((row.seed, row.acc - base))
        return self._means(changes)

    def _means(self, values: Sequence[tuple[int, float | None]]) -> list[float]:
        """Return the mean of each seed that has a number; ``values`` are (seed, number)."""
        means = (mean(value for seed, value in values if seed == own) for own in self.seeds)
        return [value for value in means if value is not None]

    def overall(self, defense: str, key: str) -> float | None:
        """Return the mean over seeds of ``seed_means``."""
        return mean(self.seed_means(defense, key))

    def worst(self, defense: str, key: str) -> AttackedRow | None:
        """Return the row with the largest number."""
        rows = [row for row in self.all_rows(defense) if getattr(row, key) is not None]
        return max(rows, key=lambda row: float(getattr(row, key)), default=None)

    def floor(self, attack: str, key: str = "floor") -> float | None:
        """Return the mean score of the clean model under the trigger of an attack."""
        by_seed = {
            row.seed: getattr(row, key)
            for defense in (NONE, *self.defenses)
            for row in self.cells.get((attack, defense), ())
            if getattr(row, key) is not None
        }
        return mean(by_seed.values())

    def refusals(self, attack: str, defense: str) -> list[str]:
        """Return the reasons of the rows without numbers: a floor violation or a failed defence."""
        rows = self.cells.get((attack, defense), ())
        return [row.refused for row in rows if row.refused]

    def expected(self) -> int:
        """Return how many rows a defence has if every suspect with numbers was repaired."""
        without = sum(len(self.refusals(attack, NONE)) for attack in self.attacks)
        return len(self.attacks) * len(self.seeds) - without


def grid(rows: Sequence[GridRow], adaptive: bool = False) -> Grid:
    """Return the grid of plain or of adaptive attacks of one setting.

    Args:
        rows: of any kind; ablations, relearning and clean models are ignored.
        adaptive: choose adaptive attacks instead of plain ones.

    Example:
        >>> made = grid([DefenseRow(seed=0, attack="badnets", defense="d3", acc=0.9)])
        >>> made.attacks, made.defenses, made.mean("badnets", "d3", "acc")
        (('badnets',), ('d3',), 0.9)
    """
    chosen = [
        row
        for row in rows
        if isinstance(row, AttackedRow) and not row.ablation and bool(row.adaptive) == adaptive
    ]
    cells: dict[tuple[str, str], dict[int, AttackedRow]] = {}
    for row in chosen:
        cells.setdefault((attack_label(row), defense_label(row)), {})[row.seed] = row
    names = dict.fromkeys(name for _, name in cells if name != NONE)
    made = Grid(
        {key: tuple(by_seed.values()) for key, by_seed in cells.items()},
        tuple(dict.fromkeys(attack_label(row) for row in chosen)),
        tuple(names),
        tuple(sorted({row.seed for row in chosen})),
    )
    ranks = {name: made.overall(name, "der") for name in names}
    order = sorted(names, key=lambda name: (ranks[name] is None, -(ranks[name] or 0.0)))
    return replace(made, defenses=tuple(order))


def both_grids(rows: Sequence[GridRow]) -> tuple[Grid, Grid]:
    """Return the grids of plain and of adaptive attacks, their defences in the same order."""
    plain, adaptive = grid(rows), grid(rows, adaptive=True)
    order = (*plain.defenses, *adaptive.defenses)
    shared = tuple(name for name in dict.fromkeys(order) if name in adaptive.defenses)
    return plain, replace(adaptive, defenses=shared)


def sections(rows: Sequence[GridRow]) -> dict[str, list[GridRow]]:
    """Return the rows by setting: data, model, number of clean samples, share of poisoned samples.

    A row without a part of the setting (a suspect has no number of clean samples) belongs to every
    setting that agrees in the other parts.

    Returns:
        Rows by what distinguishes the setting from the others; a single setting has an empty name.

    Example:
        >>> rows = [DefenseRow(seed=0, defense="d3", clean=clean) for clean in (500, 50)]
        >>> list(sections(rows))
        ['500 clean samples', '50 clean samples']
    """
    found = dict.fromkeys(
        (row.data, row.model, row.clean, row.ratio)
        for row in rows
        if isinstance(row, DefenseRow) and not row.ablation
    )
    found = found or {(None, None, None, None): None}
    differs = [len({setting[i] for setting in found}) > 1 for i in range(len(_SETTING))]
    result: dict[str, list[GridRow]] = {}
    for setting in found:
        data, model, clean, ratio = setting
        texts = (data, model, f"{clean} clean samples", _poisoned(ratio))
        name = ", ".join(
            str(text)
            for text, part, shown in zip(texts, setting, differs, strict=True)
            if shown and part is not None
        )
        result[name or ("other" if result else "")] = [
            row
            for row in rows
            if all(
                part is None
                or getattr(row, key) in (None, part)
                or key in _NOT_APPLICABLE.get(type(row), ())
                for key, part in zip(_SETTING, setting, strict=True)
            )
        ]
    return result


def _poisoned(ratio: float | None) -> str:
    return "nothing poisoned" if ratio == 0 else f"{percent(ratio)}% poisoned"


ByValue = dict[Any, list[AttackedRow]]


def ablations(rows: Sequence[GridRow]) -> dict[str, dict[str, ByValue]]:
    """Return the measured rows of ablations by factor, defence and value; numbers ascend."""
    found: dict[str, dict[str, ByValue]] = {}
    for row in rows:
        if not isinstance(row, AttackedRow) or row.ablation is None:
            continue
        value = row.ablation.value
        value = value if isinstance(value, (int, float, str)) else str(value)
        by_defense = found.setdefault(row.ablation.factor, {})
        at_value = by_defense.setdefault(defense_label(row), {}).setdefault(value, [])
        if not row.refused:
            at_value.append(row)
    for by_defense in found.values():
        for name, by_value in by_defense.items():
            if is_numeric(by_value):
                by_defense[name] = dict(sorted(by_value.items()))
    return found


def is_numeric(values: Iterable[Any]) -> bool:
    """Return ``True`` if all values are numbers, which can be ordered and drawn on an axis."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def relearning(rows: Sequence[GridRow]) -> dict[str, dict[str, list[RelearningRow]]]:
    """Return the measured relearning rows by attack and by defence."""
    found: dict[str, dict[str, list[RelearningRow]]] = {}
    for row in rows:
        if isinstance(row, RelearningRow) and not row.refused:
            found.setdefault(attack_label(row), {}).setdefault(defense_label(row), []).append(row)
    return found


def reactivation(rows: Sequence[GridRow]) -> dict[str, list[ReactivationRow]]:
    """Return the measured re-activation rows by defence, of all attacks."""
    found: dict[str, list[ReactivationRow]] = {}
    for row in rows:
        if isinstance(row, ReactivationRow) and not row.refused:
            found.setdefault(defense_label(row), []).append(row)
    return found
