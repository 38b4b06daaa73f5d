# SPDX-License-Identifier: Apache-2.0
"""The grids that ``d3fast benchmark`` knows by name.

``cpu`` is what two cores finish in a night; ``paper`` is the setting of the D3 paper (CIFAR-10,
5 % clean samples, batches of 256, 100 epochs), with its ablations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from d3fast.benchmark import attacks
from d3fast.benchmark.plan import Ablation, Attacks, GridPreset
from d3fast.benchmark.repairs import Repair

_ADAPTIVE: Attacks = tuple(
    (attack, adaptive)
    for attack in ("badnets", "blended")
    for adaptive in ("sam-3", "distance-aware")
)
# What sets the paper's D3 apart from the defaults of D3Config, which has its lambda and epsilon.
_D3_PAPER = {"reduction": "batch_mean", "constraint": "norm_ball", "warm_start": "random"}


_EPOCHS = {"epochs": 50}
_CPU_REPAIRS = (
    Repair("fine-tuning", (_EPOCHS,)),
    Repair("ft-sam", (_EPOCHS,)),
    Repair("fine-pruning", (_EPOCHS,)),
    Repair("nad", (_EPOCHS,)),
    Repair("neural-cleanse", (_EPOCHS,)),
    Repair("anp"),
    Repair("i-bau"),
    Repair("sau", (_EPOCHS,)),
    Repair("fst", (_EPOCHS,)),
    Repair("d3", (_EPOCHS,)),
)
# The defaults of every defence are the published ones.
_PAPER_REPAIRS = (
    *(Repair(repair.name) for repair in _CPU_REPAIRS),
    Repair("d3", (_D3_PAPER,), label="d3-paper"),
)


def _d3(factor: str, option: str, values: Iterable[Any]) -> tuple[Ablation, ...]:
    """D3 with one option changed."""
    return tuple(Ablation(factor, value, Repair("d3", ({option: value},))) for value in values)


_CPU_ATTACKS = attacks.PRESETS["cpu"]
_PAPER_ATTACKS = attacks.PRESETS["paper"]
# 10 % of the 50 000 for the largest defender of the ablations, and 1 000 for the relearning test.
_PAPER_TWIN = replace(_PAPER_ATTACKS.twin, clean=6_000)
_PAPER_MODELS = ("preact_resnet18", "vgg19_bn", "vit_b_16")
_BOTH = (Repair("d3"), Repair("fine-tuning"))

PRESETS: Mapping[str, GridPreset] = MappingProxyType(
    {
        "cpu": GridPreset(
            suspects=(replace(_CPU_ATTACKS, attacks=_CPU_ATTACKS.attacks + _ADAPTIVE),),
            repairs=_CPU_REPAIRS,
            clean=1_000,
            batch_size=64,
            relearning=(("badnets", None), ("blended", None)),
        ),
        "paper": GridPreset(
            suspects=tuple(
                replace(
                    _PAPER_ATTACKS,
                    twin=replace(_PAPER_TWIN, model=model),
                    attacks=_PAPER_ATTACKS.attacks + _ADAPTIVE,
                )
                for model in _PAPER_MODELS
            ),
            repairs=_PAPER_REPAIRS,
            clean=2_500,
            batch_size=256,
            augment=True,
            relearning=(("badnets", None), ("blended", None)),
            ablations=(
                *(
                    Ablation("poison ratio", ratio, repair, ratio=ratio)
                    for repair in _BOTH
                    for ratio in (0.01, 0.05, 0.1, 0.5)
                ),
                *(
                    Ablation("clean share", clean / 50_000, repair, clean=clean)
                    for repair in _BOTH
                    for clean in (500, 2_500, 5_000)
                ),
                *_d3("lambda", "clean_weight", (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)),
                *_d3("epsilon", "epsilon", (0.0, 0.05, 0.1, 0.2, 0.5)),
                *_d3("warm start", "warm_start", ("near", "middle", "far", "noise", "random")),
                *_d3("tracked layers", "track", ("head", "linear", "conv+linear", "all")),
            ),
        ),
    }
)
