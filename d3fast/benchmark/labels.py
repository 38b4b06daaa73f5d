# SPDX-License-Identifier: Apache-2.0
"""Labels of the rows of a benchmark: the defence, or the model that no defence repaired."""

from collections.abc import Mapping
from typing import Any

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


def attack_label(row: Mapping[str, Any]) -> str:
    """Return the attack, and in brackets the adaptive attacker around it.

    Example:
        >>> attack_label({"attack": "badnets", "adaptive": "sam-3"})
        'badnets (sam-3)'
    """
    adaptive = row.get("adaptive")
    return f"{row['attack']} ({adaptive})" if adaptive else str(row["attack"])


def defense_label(row: Mapping[str, Any]) -> str:
    """Return the label of the defence, or of the model that no defence repaired.

    Example:
        >>> defense_label({"kind": "relearning", "defense": "clean twin"})
        'clean model'
    """
    label = NONE if row["kind"] == "suspect" else str(row["defense"])
    return _OLD.get(label, label)
