# SPDX-License-Identifier: Apache-2.0
"""Defences with one call signature, listed in the registry ``DEFENSES``.

To add a defence, add a file with a dataclass that implements ``Defense``, a row to ``DEFENSES`` and
a row to ``tests/defenses/test_contract.py``. Other packages add theirs by entry points of the group
``d3fast.defenses``.
"""

from collections.abc import Callable

from d3fast.defenses.anp import ANP
from d3fast.defenses.base import Defense, DefenseResult
from d3fast.defenses.bti_dbf import BTIDBF
from d3fast.defenses.d3 import D3
from d3fast.defenses.fine_mixing import FineMixing
from d3fast.defenses.fine_pruning import FinePruning
from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.fst import FST
from d3fast.defenses.ft_sam import FTSAM
from d3fast.defenses.i_bau import IBAU
from d3fast.defenses.nad import NAD
from d3fast.defenses.neural_cleanse import NeuralCleanse
from d3fast.defenses.pam import PAM
from d3fast.defenses.pipeline import Pipeline
from d3fast.defenses.sau import SAU
from d3fast.defenses.tsbd import TSBD
from d3fast.defenses.tsc import TSC
from d3fast.runtime.plugins import Registry

DEFENSES: Registry[Callable[..., Defense]] = Registry(
    "defence",
    "d3fast.defenses",
    {
        "fine-tuning": FineTuning,
        "fine-pruning": FinePruning,
        "nad": NAD,
        "neural-cleanse": NeuralCleanse,
        "anp": ANP,
        "ft-sam": FTSAM,
        "i-bau": IBAU,
        "sau": SAU,
        "fst": FST,
        "tsbd": TSBD,
        "tsc": TSC,
        "fine-mixing": FineMixing,
        "bti-dbf": BTIDBF,
        "pam": PAM,
        "d3": D3,
    },
)

__all__ = [
    "ANP",
    "BTIDBF",
    "D3",
    "DEFENSES",
    "FST",
    "FTSAM",
    "IBAU",
    "NAD",
    "PAM",
    "SAU",
    "TSBD",
    "TSC",
    "Defense",
    "DefenseResult",
    "FineMixing",
    "FinePruning",
    "FineTuning",
    "NeuralCleanse",
    "Pipeline",
]
