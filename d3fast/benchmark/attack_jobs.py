# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark attacks``: train every attack and measure it beside a clean model.

One job per seed and attack. A trigger whose floor is too high ends the job before a model is
trained; its row holds the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from d3fast.attacks import ADAPTIVE, ATTACKS, TrainConfig
from d3fast.attacks.adaptive import base_of
from d3fast.attacks.files import option_values
from d3fast.benchmark.implant import TEST_BATCH, AttackSpec, implant, save_suspect, train_model
from d3fast.data import AUGMENTATIONS
from d3fast.detox import save_weights
from d3fast.io.files import make_folder
from d3fast.models import load_weights
from d3fast.results.engine import run_jobs
from d3fast.results.engines import LOCAL, EngineChoice
from d3fast.results.jobs import Row, RunDir, file_name, key_of
from d3fast.results.schema.benchmark import AttackRow, read_attacks
from d3fast.runtime.checks import check_choice
from d3fast.runtime.devices import resolve_device
from d3fast.training.metrics import evaluate


@dataclass(frozen=True)
class AttackPreset:
    """The jobs of a benchmark of attacks.

    Attributes:
        base: data, model and recipe of all jobs, without an attack.
        attacks: names of attacks, each as (attack, adaptive attacker or ``None``).
        seeds: number of seeds.
    """

    base: AttackSpec
    attacks: tuple[tuple[str, str | None], ...]
    seeds: int = 3

    def spec(self, seed: int, attack: str | None, adaptive: str | None) -> AttackSpec:
        """Return the model of one job; without an attack, the clean model of the seed."""
        target = None if attack is None else self.base.target
        return replace(self.base, seed=seed, attack=attack, adaptive=adaptive, target=target)


# Least ASR above the clean model's of a model that has learned its trigger.
_LEARNED = 0.05
# Adap-Blend is made for a few poisoned images, not for a tenth of them. The options of Narcissus
# were measured on two development seeds alone.
_EXTRA = ("adap-blend", "narcissus")
PLAIN = tuple((name, None) for name in ATTACKS.builtin if name not in _EXTRA)
ATTACK_PRESETS: Mapping[str, AttackPreset] = MappingProxyType(
    {
        "cpu": AttackPreset(
            AttackSpec(
                data="fashion-mnist",
                model="preact_resnet_tiny",
                attack=None,
                train=20_000,
                clean=3_000,
                training=TrainConfig(epochs=10, channels_last=True),
            ),
            PLAIN,
        ),
        "digits": AttackPreset(
            AttackSpec(
                data="digits",
                model="preact_resnet_narrow",
                attack=None,
                clean=260,
                training=TrainConfig(epochs=20),
            ),
            PLAIN,
        ),
        "cifar-narrow": AttackPreset(
            AttackSpec(
                data="cifar10",
                model="preact_resnet_tiny",
                attack=None,
                train=20_000,
                clean=3_000,
                training=TrainConfig(epochs=12, channels_last=True),
            ),
            PLAIN,
        ),
        "paper": AttackPreset(
            AttackSpec(
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
            PLAIN,
        ),
    }
)


def parse_attacks(text: str) -> tuple[tuple[str, str | None], ...]:
    """Return the attacks of a command line: ``NAME`` or ``NAME+ADAPTIVE``, comma-separated.

    Raises:
        ValueError: an unknown name; an attack of another package that cannot be imported.

    Example:
        >>> parse_attacks("badnets,badnets+sam-3")
        (('badnets', None), ('badnets', 'sam-3'))
    """
    chosen = []
    for part in text.split(","):
        name, plus, adaptive = (piece.strip() for piece in part.partition("+"))
        ATTACKS.find(name)
        if plus:
            check_choice("adaptive", adaptive, ADAPTIVE)
        chosen.append((name, adaptive if plus else None))
    return tuple(chosen)


@dataclass(frozen=True)
class CleanJob:
    """Train the clean model of one seed.

    Attributes:
        spec: the model.
    """

    spec: AttackSpec
    kind: ClassVar[str] = "CleanCell"

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return file_name(f"{self.spec.data}-seed{self.spec.seed}-clean")

    def weights(self, folder: Path) -> Path:
        """Return the path of the trained model."""
        return folder / "models" / f"{key_of(self)}.safetensors"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Train the model and measure its accuracy."""
        where = resolve_device(run_dir.device)
        splits = self.spec.splits(run_dir.data_dir).to(where)
        model, seconds = train_model(self.spec, splits, None, device=where, progress=progress)
        measured = evaluate(model, splits.test.batches(TEST_BATCH), None)
        make_folder(run_dir.folder / "models")
        save_weights(model, self.weights(run_dir.folder))
        row = AttackRow(seed=self.spec.seed, attack="clean", **measured.as_dict(), seconds=seconds)
        return row.to_row()


def clean_job_of(spec: AttackSpec) -> CleanJob:
    """Return the job of the clean model beside a backdoored one; the poison ratio is irrelevant."""
    plain = replace(spec, attack=None, adaptive=None, target=None, mapping=None)
    return CleanJob(replace(plain, ratio=AttackSpec.ratio))


@dataclass(frozen=True)
class AttackJob:
    """Train a backdoored model of one seed.

    Attributes:
        spec: the model.
        options: of the attack, as its recipe has them; another recipe is another job.
    """

    spec: AttackSpec
    options: Mapping[str, Any] = field(init=False)
    kind: ClassVar[str] = "AttackCell"

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", option_values(base_of(self.spec.make_attack())))

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        spec = self.spec
        adaptive = f"-{spec.adaptive}" if spec.adaptive else ""
        return file_name(f"{spec.data}-seed{spec.seed}-{spec.attack}{adaptive}")

    def stem(self, folder: Path) -> Path:
        """Return the common beginning of the paths of model and trigger."""
        return folder / "models" / key_of(self)

    @property
    def clean_job(self) -> CleanJob:
        """The job of the clean model; it has to be run before."""
        return clean_job_of(self.spec)

    @property
    def needs(self) -> tuple[CleanJob, ...]:
        """The job of the clean model."""
        return (self.clean_job,)

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Learn the trigger, measure its floor, train the model, measure it."""
        where = resolve_device(run_dir.device)
        splits = self.spec.splits(run_dir.data_dir).to(where)
        clean = self.spec.initial_model(splits)
        load_weights(clean, self.clean_job.weights(run_dir.folder))
        triggers = make_folder(run_dir.folder / "triggers")
        result = implant(
            self.spec, splits, clean.to(where), triggers=triggers, device=where, progress=progress
        )
        if result.model is not None:
            save_suspect(result.model, result.attack, self.spec, self.stem(run_dir.folder))
        return result.row(self.spec).to_row()


def why_no_suspect(row: AttackRow) -> str | None:
    """Return the reason why a trained model is no suspect, or ``None``.

    A model that did not learn its trigger has nothing to repair: every defence would look perfect.
    """
    if row.refused:
        return str(row.refused)
    if not row.ratio or row.asr is None or row.floor is None:
        return None
    if row.asr - row.floor >= _LEARNED:
        return None
    rates = f"ASR {100 * row.asr:.1f} %, of the clean model {100 * row.floor:.1f} %"
    return f"the model did not learn the trigger ({rates})"


def run_attacks(
    preset: AttackPreset,
    run_dir: RunDir,
    *,
    seeds: Sequence[int],
    devices: Sequence[str] = ("cpu",),
    engine: EngineChoice = LOCAL,
    progress: bool = True,
) -> list[AttackRow]:
    """Run the jobs that are not finished and return the rows of all.

    Args:
        preset: the jobs.
        run_dir: keeps rows, models and triggers; the next run continues from there.
        seeds: the seeds.
        devices: one worker each, with one thread on a CPU.
        engine: where the jobs run.
        progress: show a bar.

    Returns:
        One row per seed and model: first the clean models, then attack by attack.

    Raises:
        ValueError: data missing or damaged.
    """
    clean = [clean_job_of(preset.spec(seed, None, None)) for seed in seeds]
    jobs = [
        AttackJob(preset.spec(seed, name, adaptive))
        for name, adaptive in preset.attacks
        for seed in seeds
    ]
    store = engine.run_store(run_dir.folder)
    with engine.start(run_dir, devices, progress=progress) as started:
        rows = run_jobs(
            [*clean, *jobs],
            started,
            run_dir.folder,
            store=store,
            progress=progress,
            title="attacks",
        )
    if store is not None:
        for job in jobs:  # the report draws their triggers
            store.fetch(job, run_dir.folder)
    return read_attacks(rows)
