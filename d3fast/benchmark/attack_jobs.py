# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark attacks``: every attack trained and measured beside its clean twin.

One job per seed and attack. A trigger that a never-poisoned model already answers with the target
is refused before a model is trained on it, and the table says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from d3fast.attacks import ADAPTIVE, ATTACKS, TrainConfig
from d3fast.attacks.adaptive import base_of
from d3fast.attacks.files import option_values
from d3fast.benchmark.implant import Implant, implant, measure, save_implant
from d3fast.data import AUGMENTATIONS
from d3fast.detox import save_weights
from d3fast.io.files import make_folder
from d3fast.models import load_weights
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Row, RunDir, key_of
from d3fast.results.pool import local_engine
from d3fast.runtime.checks import check_choice
from d3fast.runtime.devices import resolve_device
from d3fast.training.metrics import evaluate


@dataclass(frozen=True)
class Preset:
    """What a benchmark of attacks runs.

    Attributes:
        twin: data, model and recipe of all jobs, as the clean twin has them.
        attacks: names of attacks, each as (attack, adaptive attacker or ``None``).
        seeds: number of seeds.
    """

    twin: Implant
    attacks: tuple[tuple[str, str | None], ...]
    seeds: int = 3

    def spec(self, seed: int, attack: str | None, adaptive: str | None) -> Implant:
        """What one job implants; without an attack, the twin of all jobs of that seed."""
        target = None if attack is None else self.twin.target
        return replace(self.twin, seed=seed, attack=attack, adaptive=adaptive, target=target)


_PLAIN = tuple((name, None) for name in ATTACKS)
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "cpu": Preset(
            Implant(
                data="fashion-mnist",
                model="preact_resnet_tiny",
                attack=None,
                train=20_000,
                clean=3_000,
                training=TrainConfig(epochs=10, precision="bf16", channels_last=True),
            ),
            _PLAIN,
        ),
        "digits": Preset(
            Implant(
                data="digits",
                model="preact_resnet_narrow",
                attack=None,
                clean=260,
                training=TrainConfig(epochs=20),
            ),
            _PLAIN,
        ),
        "paper": Preset(
            Implant(
                data="cifar10",
                model="preact_resnet18",
                attack=None,
                clean=2_500,
                training=TrainConfig(
                    epochs=100,
                    lr=0.01,
                    precision="bf16",
                    channels_last=True,
                    augment=AUGMENTATIONS["cifar10"],
                ),
            ),
            _PLAIN,
        ),
    }
)


def parse_attacks(text: str) -> tuple[tuple[str, str | None], ...]:
    """Attacks as the command line names them: ``NAME`` or ``NAME+ADAPTIVE``, comma-separated.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> parse_attacks("badnets,badnets+sam-3")
        (('badnets', None), ('badnets', 'sam-3'))
    """
    chosen = []
    for part in text.split(","):
        name, plus, adaptive = (piece.strip() for piece in part.partition("+"))
        check_choice("attack", name, ATTACKS)
        if plus:
            check_choice("adaptive", adaptive, ADAPTIVE)
        chosen.append((name, adaptive if plus else None))
    return tuple(chosen)


@dataclass(frozen=True)
class CleanJob:
    """The clean twin of one seed.

    Attributes:
        spec: what is trained.
    """

    spec: Implant
    kind: ClassVar[str] = "CleanCell"

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.spec.data}-seed{self.spec.seed}-clean"

    def weights(self, folder: Path) -> Path:
        """Where the trained model is."""
        return folder / "models" / f"{key_of(self)}.safetensors"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Train and measure the accuracy."""
        where = resolve_device(run_dir.device)
        splits = self.spec.splits(run_dir.data_dir).to(where)
        model, seconds = implant(self.spec, splits, None, device=where, progress=progress)
        measured = evaluate(model, splits.test.batches(1000), None)
        make_folder(run_dir.folder / "models")
        save_weights(model, self.weights(run_dir.folder))
        return {
            "seed": self.spec.seed,
            "attack": "clean",
            "adaptive": None,
            **measured.as_dict(),
            "seconds": seconds,
        }


def twin_of(spec: Implant) -> CleanJob:
    """The clean twin of a model; one for all poison ratios, which mean nothing to it."""
    plain = replace(spec, attack=None, adaptive=None, target=None, ratio=Implant.ratio)
    return CleanJob(plain)


@dataclass(frozen=True)
class AttackJob:
    """One attack on one seed.

    Attributes:
        spec: what is implanted.
        options: of the attack, as its recipe has them; another recipe is another job.
    """

    spec: Implant
    options: Mapping[str, Any] = field(init=False)
    kind: ClassVar[str] = "AttackCell"

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", option_values(base_of(self.spec.make_attack())))

    @property
    def name(self) -> str:
        """Fit for a file name."""
        spec = self.spec
        adaptive = f"-{spec.adaptive}" if spec.adaptive else ""
        return f"{spec.data}-seed{spec.seed}-{spec.attack}{adaptive}"

    def stem(self, folder: Path) -> Path:
        """What the names of model and trigger begin with."""
        return folder / "models" / key_of(self)

    @property
    def twin(self) -> CleanJob:
        """The job of the clean twin; it has to be run before."""
        return twin_of(self.spec)

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Learn the trigger, measure its floor, train the model, measure it."""
        where = resolve_device(run_dir.device)
        splits = self.spec.splits(run_dir.data_dir).to(where)
        clean = self.spec.fresh_model(splits)
        load_weights(clean, self.twin.weights(run_dir.folder))
        triggers = make_folder(run_dir.folder / "triggers")
        model, attack, row = measure(
            self.spec, splits, clean.to(where), triggers=triggers, device=where, progress=progress
        )
        if model is not None:
            save_implant(model, attack, self.spec, self.stem(run_dir.folder))
        return row


def run_attacks(
    preset: Preset,
    run_dir: RunDir,
    *,
    seeds: Sequence[int],
    devices: Sequence[str] = ("cpu",),
    progress: bool = True,
) -> list[Row]:
    """Run what is not finished yet, and give the rows of all.

    Args:
        preset: what to run.
        run_dir: keeps rows, models and triggers; the next run continues from there.
        seeds: which seeds.
        devices: one worker each, with one thread on a CPU.
        progress: show a bar.

    Returns:
        One row per seed and model: first the clean twins, then attack by attack.

    Raises:
        ValueError: data missing or damaged.
    """
    twins = [twin_of(preset.spec(seed, None, None)) for seed in seeds]
    jobs = [
        AttackJob(preset.spec(seed, name, adaptive))
        for name, adaptive in preset.attacks
        for seed in seeds
    ]
    with local_engine(run_dir, devices, progress=progress) as engine:
        run = partial(run_jobs, engine=engine, folder=run_dir.folder, progress=progress)
        return run(twins, title="clean twins") + run(jobs, title="attacks")
