# SPDX-License-Identifier: Apache-2.0
"""Labels of the rows of a benchmark: the defence, or the model that no defence repaired."""

from d3fast.results.schema.benchmark import AttackRow, GridRow, SuspectRow

NONE, CLEAN_MODEL = "none", "clean model"
FINE_TUNING, D3 = "fine-tuning", "d3"
# Labels in results files of release 0.1.
_OLD = {
    "clean twin": CLEAN_MODEL,
    "clean": CLEAN_MODEL,
    "never poisoned": CLEAN_MODEL,
    "backdoored": NONE,
    "suspect": NONE,
}


def attack_label(row: GridRow | AttackRow) -> str:
    """Return the attack, and in brackets the adaptive attacker around it.

    Example:
        >>> attack_label(AttackRow(seed=0, attack="badnets", adaptive="sam-3"))
        'badnets (sam-3)'
    """
    return f"{row.attack} ({row.adaptive})" if row.adaptive else str(row.attack)


def defense_label(row: GridRow) -> str:
    """Return the label of the defence, or of the model that no defence repaired.

    Example:
        >>> from d3fast.results.schema.benchmark import CleanRow
        >>> defense_label(CleanRow(defense="clean twin", seed=0))
        'clean model'
    """
    label = NONE if isinstance(row, SuspectRow) else row.defense
    return _OLD.get(label, label)
