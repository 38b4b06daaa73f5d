# SPDX-License-Identifier: Apache-2.0
"""The sets of models that the study ``inspection`` and its neighbours train and inspect."""

from dataclasses import dataclass, replace

from benchmarks.studies.inspection_rates import MORE
from d3fast.audit import InspectOptions
from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, AttackPreset

WAVES, AWARE, ABI, TARGETS = "waves", "detector-aware", "abi", "targets"
CALIBRATED, CALIBRATED_FASHION = "calibrated", "calibrated-fashion-mnist"
DEVELOPMENT = tuple(range(100, 105))
SPARSE = 0.02
# The rate does not change the scores; this study chooses the default.
OPTIONS = InspectOptions(rate=0.025)


@dataclass(frozen=True)
class StudyPlan:
    """Models of a data set to inspect.

    Attributes:
        preset: data, model and training.
        attacks: names of the attacks.
        backdoored: seeds of the backdoored models.
        clean: seeds of the clean models.
        uneven: seeds of the clean models with one class twice.
        sparse: seeds of BadNets with a poison ratio of ``SPARSE``.
        repaired: seeds of the backdoored models that are also inspected after a repair.
        slow: seeds of the models, clean and backdoored, that ``detectors`` look at as well.
        detectors: those that do not run by default.
        adaptive: the adaptive attacker of all backdoored models.
        targets: target classes, in turn over attacks and seeds; those of the recipes if empty.
    """

    preset: AttackPreset
    attacks: tuple[str, ...]
    backdoored: tuple[int, ...]
    clean: tuple[int, ...]
    uneven: tuple[int, ...] = ()
    sparse: tuple[int, ...] = ()
    repaired: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()
    detectors: tuple[str, ...] = ("differential",)
    adaptive: str | None = None
    targets: tuple[int, ...] = ()

    @property
    def slowly(self) -> InspectOptions:
        """Options of the inspections by ``detectors``."""
        return replace(OPTIONS, detectors=self.detectors)


_ALL = tuple(name for name, _ in ATTACK_PRESETS["digits"].attacks)
PLANS = {
    "development": StudyPlan(ATTACK_PRESETS["digits"], _ALL, DEVELOPMENT[:3], DEVELOPMENT),
    "digits": StudyPlan(
        ATTACK_PRESETS["digits"],
        _ALL,
        tuple(range(5)),
        tuple(range(20)),
        tuple(range(5)),
        tuple(range(5)),
        tuple(range(3)),
    ),
    MORE: StudyPlan(
        ATTACK_PRESETS["digits"],
        _ALL,
        backdoored=tuple(range(5, 9)),
        clean=tuple(range(20, 40)),
        sparse=tuple(range(5, 9)),
        slow=(*range(5, 9), *range(20, 40)),
    ),
    # The case that the default detectors find least.
    WAVES: StudyPlan(
        ATTACK_PRESETS["digits"],
        ("sig",),
        backdoored=tuple(range(29, 37)),
        clean=tuple(range(29, 49)),
        slow=tuple(range(29, 49)),
        detectors=("wave",),
    ),
    # The next five fit a calibration of the package, whose detectors run, ``wave`` among them.
    # Inspected by the study ``calibration``: seeds that nothing was chosen on.
    CALIBRATED: StudyPlan(
        ATTACK_PRESETS["digits"],
        _ALL,
        backdoored=tuple(range(50, 54)),
        clean=tuple(range(50, 70)),
        sparse=tuple(range(50, 54)),
    ),
    CALIBRATED_FASHION: StudyPlan(
        ATTACK_PRESETS["cpu"],
        _ALL,
        backdoored=tuple(range(50, 53)),
        clean=tuple(range(50, 70)),
        sparse=tuple(range(50, 53)),
    ),
    # Target classes that the recipes do not have.
    TARGETS: StudyPlan(
        ATTACK_PRESETS["digits"],
        _ALL,
        backdoored=(54, 55),
        clean=(),
        targets=(1, 2, 3, 4, 5, 6, 7, 9),
    ),
    # Attackers whose trigger needs no training; seeds of ``CALIBRATED``.
    **{
        adaptive: StudyPlan(
            ATTACK_PRESETS["digits"],
            ("badnets", "blended", "sig", "wanet"),
            backdoored=tuple(range(50, 53)),
            clean=(),
            adaptive=adaptive,
        )
        for adaptive in (AWARE, ABI)
    },
    "fashion-mnist": StudyPlan(
        ATTACK_PRESETS["cpu"], ("badnets", "blended", "sig", "wanet"), (0, 1, 2), (0, 1, 2)
    ),
}
_OTHERS = (WAVES, AWARE, ABI, TARGETS, CALIBRATED, CALIBRATED_FASHION)
USUAL = ",".join(name for name in PLANS if name not in _OTHERS)
