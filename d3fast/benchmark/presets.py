# SPDX-License-Identifier: Apache-2.0
"""The grids that ``d3fast benchmark`` knows by name.

``cpu`` is what two cores finish in two hours, ``vit`` a vision transformer in its place; ``paper``
is the setting of the D3 paper (CIFAR-10, 5 % clean samples, batches of 256, 100 epochs), with its
ablations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from d3fast.attacks import TrainConfig
from d3fast.benchmark import attack_jobs as attacks
from d3fast.benchmark.plan import Ablation, Attacks, GridPreset
from d3fast.benchmark.repair_jobs import Repair
from d3fast.defenses import DEFENSES
from d3fast.detox import D3Config


def options_of(config: D3Config) -> dict[str, Any]:
    """A configuration as the options of a ``Repair``, whose seed is its suspect's."""
    options = asdict(config)
    del options["seed"]
    return options


_ADAPTIVE: Attacks = (
    ("badnets", "sam-3"),
    ("blended", "sam-3"),
    ("badnets", "distance-aware"),
)
# The options that ``python -m benchmarks.studies search all`` chose for every defence out of the
# published ones and two others, all at fifty epochs. ANP, SAU and the inversion are shorter than
# published, to fit on two cores.
_EPOCHS: Mapping[str, Any] = {"epochs": 50}
_FINE_TUNING: Mapping[str, Any] = {
    "distance_weight": 0.0,
    "constraint": None,
    "warm_start": "near",
    "epsilon": 0.0,
}
_CPU_REPAIRS = (
    Repair("fine-tuning", (_EPOCHS,)),
    Repair("fine-tuning", ({**_EPOCHS, "lr": 0.03},), label="fine-tuning (lr 0.03)"),
    # What a larger step and augmentation buy alone.
    Repair("fine-tuning", ({**_EPOCHS, "lr": D3Config().lr},), label="fine-tuning (D3's lr)"),
    Repair("ft-sam", ({**_EPOCHS, "rho": 1.0},)),
    Repair("fine-pruning", ({**_EPOCHS, "lr": 0.03},)),
    Repair("nad", ({**_EPOCHS, "lr": 0.03},)),
    Repair("neural-cleanse", ({**_EPOCHS, "inversion": {"steps": 150}},)),
    Repair("anp", ({"steps": 600, "max_acc_drop": 0.1},)),
    Repair("i-bau", ({"rounds": 20},)),
    Repair("sau", ({"epochs": 12, "lr": 1e-3},)),
    Repair("fst", ({**_EPOCHS, "lr": 0.06},)),
    Repair("d3"),
    # All of D3's recipe but distance.
    Repair("d3", (_FINE_TUNING,), label="D3 without distance"),
)
# What the paper compares under adaptive attacks, and the nearest relatives.
_AGAINST_ADAPTIVE = (
    "fine-tuning",
    "fine-tuning (D3's lr)",
    "ft-sam",
    "fst",
    "d3",
    "D3 without distance",
)
# The defaults of every defence are the published ones.
_PAPER_REPAIRS = (
    *(Repair(name) for name in DEFENSES),
    Repair("d3", (options_of(D3Config.paper()),), label="d3-paper"),
    Repair("d3", (options_of(D3Config.authors()),), label="d3-authors"),
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


_TRANSFORMER: Mapping[str, Any] = {"epochs": 20, "lr": 0.03}
_AUTHORS = {**options_of(D3Config.authors()), **_TRANSFORMER}
# What the last two of four blocks have learned is learned anew, pushed and not.
_UPPER: Mapping[str, Any] = {
    **_AUTHORS,
    "track": r"(blocks\.[23]\.(self_attn|linear).*|head\.)weight$",
    "distance_weight": 0.1,
}
_VIT_REPAIRS = (
    Repair("fine-tuning", (_TRANSFORMER,)),
    Repair("ft-sam", (_TRANSFORMER,)),
    Repair("fst", (_TRANSFORMER,)),
    Repair("d3", (_AUTHORS,)),
    Repair("d3", (_UPPER,), label="d3 on upper blocks"),
    Repair("d3", ({**_UPPER, "distance_weight": 0.0},), label="d3 on upper blocks, no push"),
)

PRESETS: Mapping[str, GridPreset] = MappingProxyType(
    {
        "cpu": GridPreset(
            suspects=(replace(_CPU_ATTACKS, attacks=_CPU_ATTACKS.attacks + _ADAPTIVE),),
            repairs=_CPU_REPAIRS,
            clean=1_000,
            batch_size=64,
            augment=True,
            against_adaptive=_AGAINST_ADAPTIVE,
            relearning=(("badnets", None),),
        ),
        "vit": GridPreset(
            suspects=(
                replace(
                    _CPU_ATTACKS,
                    twin=replace(
                        _CPU_ATTACKS.twin,
                        model="vit_tiny",
                        train=10_000,
                        training=TrainConfig(epochs=8, lr=0.02, batch_size=64),
                    ),
                    attacks=(("badnets", None), ("blended", None)),
                ),
            ),
            repairs=_VIT_REPAIRS,
            clean=1_000,
            batch_size=64,
            augment=True,
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
