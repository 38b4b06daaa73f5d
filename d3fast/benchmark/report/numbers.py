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
from d3fast.results.table import Row

_SETTING = ("data", "model", "clean", "ratio")
# Fields that do not apply to a kind: a clean model has neither a defender's nor poisoned samples.
_NOT_APPLICABLE = {"clean": ("clean", "ratio"), "suspect": ("clean",)}


@dataclass(frozen=True)
class Grid:
    """Attacks x defences under one setting.

    Attributes:
        cells: rows of all seeds by (attack, defence), those without numbers included.
        attacks: in the order they were run.
        defenses: highest mean DER first; ``none`` is not among them.
        seeds: of all rows.
    """

    cells: Mapping[tuple[str, str], tuple[Row, ...]]
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    seeds: tuple[int, ...]

    def rows(self, attack: str, defense: str) -> list[Row]:
        """Return the measured rows of one attack and defence."""
        return [row for row in self.cells.get((attack, defense), ()) if not row.get("refused")]

    def mean(self, attack: str, defense: str, key: str) -> float | None:
        """Return the mean over the seeds of one attack and defence."""
        return mean(row.get(key) for row in self.rows(attack, defense))

    def all_rows(self, defense: str) -> list[Row]:
        """Return the measured rows of a defence."""
        return [row for attack in self.attacks for row in self.rows(attack, defense)]

    def seed_means(self, defense: str, key: str) -> list[float]:
        """Return, per seed, the mean over attacks; a seed without a number is left out."""
        rows = self.all_rows(defense)
        means = (mean(row.get(key) for row in rows if row["seed"] == s) for s in self.seeds)
        return [value for value in means if value is not None]

    def overall(self, defense: str, key: str) -> float | None:
        """Return the mean over seeds of ``seed_means``."""
        return mean(self.seed_means(defense, key))

    def worst(self, defense: str, key: str) -> Row | None:
        """Return the row with the largest number."""
        rows = [row for row in self.all_rows(defense) if row.get(key) is not None]
        return max(rows, key=lambda row: row[key], default=None)

    def floor(self, attack: str, key: str = "floor") -> float | None:
        """Return the mean score of the clean model under the trigger of an attack."""
        by_seed = {
            row["seed"]: row[key]
            for defense in (NONE, *self.defenses)
            for row in self.cells.get((attack, defense), ())
            if row.get(key) is not None
        }
        return mean(by_seed.values())

    def refusals(self, attack: str, defense: str) -> list[str]:
        """Return the reasons of the rows without numbers: a floor violation or a failed defence."""
        rows = self.cells.get((attack, defense), ())
        return [str(row["refused"]) for row in rows if row.get("refused")]

    def expected(self) -> int:
        """Return how many rows a defence has if every suspect with numbers was repaired."""
        without = sum(len(self.refusals(attack, NONE)) for attack in self.attacks)
        return len(self.attacks) * len(self.seeds) - without


def _derived(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ASR excess, and ACC minus that of fine-tuning on the same model."""
    tuned = {
        (attack_label(row), row["seed"]): row.get("acc")
        for row in rows
        if defense_label(row) == FINE_TUNING and not row.get("refused")
    }
    full: list[Row] = []
    for row in rows:
        new = dict(row)
        asr, floor = row.get("asr"), row.get("floor")
        if row.get("asr_excess") is None and asr is not None and floor is not None:
            new["asr_excess"] = asr - floor
        base = tuned.get((attack_label(row), row["seed"]))
        if row.get("acc") is not None and base is not None:
            new["acc_change"] = row["acc"] - base
        full.append(new)
    return full


def grid(rows: Sequence[Row], adaptive: bool = False) -> Grid:
    """Return the grid of plain or of adaptive attacks of one setting.

    Args:
        rows: of any kind; ablations, relearning and clean models are ignored.
        adaptive: choose adaptive attacks instead of plain ones.

    Example:
        >>> row = {"kind": "repair", "seed": 0, "attack": "badnets", "adaptive": None,
        ...        "defense": "d3", "acc": 0.9, "asr": 0.02, "floor": 0.01}
        >>> made = grid([row])
        >>> made.attacks, made.defenses, round(made.mean("badnets", "d3", "asr_excess"), 3)
        (('badnets',), ('d3',), 0.01)
    """
    chosen = [
        row
        for row in rows
        if row["kind"] in ("suspect", "repair")
        and not row.get("ablation")
        and bool(row.get("adaptive")) == adaptive
    ]
    cells: dict[tuple[str, str], dict[int, Row]] = {}
    for row in _derived(chosen):
        cells.setdefault((attack_label(row), defense_label(row)), {})[row["seed"]] = row
    names = dict.fromkeys(name for _, name in cells if name != NONE)
    made = Grid(
        {key: tuple(by_seed.values()) for key, by_seed in cells.items()},
        tuple(dict.fromkeys(attack_label(row) for row in chosen)),
        tuple(names),
        tuple(sorted({row["seed"] for row in chosen})),
    )
    ranks = {name: made.overall(name, "der") for name in names}
    order = sorted(names, key=lambda name: (ranks[name] is None, -(ranks[name] or 0.0)))
    return replace(made, defenses=tuple(order))


def both_grids(rows: Sequence[Row]) -> tuple[Grid, Grid]:
    """Return the grids of plain and of adaptive attacks, their defences in the same order."""
    plain, adaptive = grid(rows), grid(rows, adaptive=True)
    order = (*plain.defenses, *adaptive.defenses)
    shared = tuple(name for name in dict.fromkeys(order) if name in adaptive.defenses)
    return plain, replace(adaptive, defenses=shared)


def sections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by setting: data, model, number of clean samples, share of poisoned samples.

    A row without a part of the setting (a suspect has no number of clean samples) belongs to every
    setting that agrees in the other parts.

    Returns:
        Rows by what distinguishes the setting from the others; a single setting has an empty name.

    Example:
        >>> row = {"kind": "repair", "model": "vgg", "clean": 500, "ratio": 0.1}
        >>> list(sections([row, {**row, "clean": 50}]))
        ['500 clean samples', '50 clean samples']
    """
    found = dict.fromkeys(
        tuple(row.get(key) for key in _SETTING)
        for row in rows
        if row["kind"] == "repair" and not row.get("ablation")
    )
    found = found or {(None,) * len(_SETTING): None}
    differs = [len({setting[i] for setting in found}) > 1 for i in range(len(_SETTING))]
    result: dict[str, list[Row]] = {}
    for setting in found:
        data, model, clean, ratio = setting
        texts = (data, model, f"{clean} clean samples", f"{percent(ratio)}% poisoned")
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
                or row.get(key) in (None, part)
                or key in _NOT_APPLICABLE.get(row["kind"], ())
                for key, part in zip(_SETTING, setting, strict=True)
            )
        ]
    return result


ByValue = dict[Any, list[Row]]


def ablations(rows: Sequence[Row]) -> dict[str, dict[str, ByValue]]:
    """Return the measured rows of ablations by factor, defence and value; numbers ascend."""
    found: dict[str, dict[str, ByValue]] = {}
    for row in _derived([row for row in rows if row.get("ablation")]):
        value = row["ablation"]["value"]
        value = value if isinstance(value, (int, float, str)) else str(value)
        by_defense = found.setdefault(str(row["ablation"]["factor"]), {})
        at_value = by_defense.setdefault(defense_label(row), {}).setdefault(value, [])
        if not row.get("refused"):
            at_value.append(row)
    for by_defense in found.values():
        for name, by_value in by_defense.items():
            if is_numeric(by_value):
                by_defense[name] = dict(sorted(by_value.items()))
    return found


def is_numeric(values: Iterable[Any]) -> bool:
    """Return ``True`` if all values are numbers, which can be ordered and drawn on an axis."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def relearning(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return the measured relearning rows by attack and by defence."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["kind"] == "relearning" and not row.get("refused"):
            found.setdefault(attack_label(row), {}).setdefault(defense_label(row), []).append(row)
    return found
