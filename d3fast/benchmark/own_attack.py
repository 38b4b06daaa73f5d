# SPDX-License-Identifier: Apache-2.0
"""Plant a backdoor in a model of the user's own, with the user's own samples.

A model with a known backdoor, in the format of the models that one has, shows whether an audit
finds it and a repair removes it. The model is fine-tuned on samples part of which carry the
trigger; a share of the samples that it never sees measures accuracy and attack success rate.
Which images carry it is drawn anew in every epoch: a few dozen fixed ones are learned by heart,
without the trigger.

    images    the attacks of ``d3fast.attacks``, with the options of the literature
    texts     ``TEXT_ATTACKS``: a rare token at a random place, a sentence at the beginning
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from d3fast.attacks import ATTACKS, Attack, OwnTraining, ensure_learned, recipe
from d3fast.attacks.base import Training, training_plan
from d3fast.attacks.files import option_values
from d3fast.attacks.recipes import COLOUR
from d3fast.audit.resolve import Audit
from d3fast.audit.trigger import TEXT_ATTACKS
from d3fast.data import ImageData
from d3fast.hub import TextInput
from d3fast.hub.samples import Data
from d3fast.results.format import count, shortest, signed, value_range
from d3fast.results.schema.benchmark import AttackRow
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import synchronize
from d3fast.runtime.seeding import generator, global_seed
from d3fast.text import InsertedTokens, TextData, word_starts
from d3fast.training.loop import fit
from d3fast.training.metrics import Metrics, evaluate, floor_violation

HELD_OUT = 0.25
_TEST_BATCH = 250
_EPOCHS, _STEPS = 10, 300  # least number of epochs and of steps, unless epochs are given


@dataclass(frozen=True)
class OwnAttack:
    """An attack on a model of the user's own.

    Attributes:
        attack: name of an attack on images, or of ``TEXT_ATTACKS``.
        target: target class; that of the attack's recipe, or 0, if ``None``.
        ratio: poison ratio.
        words: inserted into texts; those of ``TEXT_ATTACKS`` if ``None``.
        epochs: of the fine-tuning; ``None``: ten, or as many as make 300 steps.
        lr: initial learning rate of AdamW, under a cosine schedule.
        batch_size: samples per batch.
        seed: draws the poisoned samples and the order of batches.

    Raises:
        ValueError: a number out of range; an unknown attack; words for an attack on images.
    """

    attack: str
    target: int | None = None
    ratio: float = 0.1
    words: str | None = None
    epochs: int | None = None
    lr: float = 5e-4
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attack not in TEXT_ATTACKS:
            ATTACKS.find(self.attack)
        if self.words is not None and self.attack not in TEXT_ATTACKS:
            raise ValueError(f"words are for attacks on texts, got attack {self.attack!r}")
        for name in ("ratio", "lr"):
            check_number(name, getattr(self, name))
        check_integer("batch_size", self.batch_size, 1)
        if self.epochs is not None:
            check_integer("epochs", self.epochs, 1)
        check_integer("seed", self.seed, 0)
        if self.target is not None:
            check_integer("target", self.target, 0)

    def epochs_for(self, samples: int) -> int:
        """Return the number of epochs for so many training samples."""
        steps = -(-samples // self.batch_size)
        return max(_EPOCHS, -(-_STEPS // steps)) if self.epochs is None else self.epochs

    def trigger_for(self, audit: Audit) -> Any:
        """Return the attack; a trigger that has to be learned is not learned yet.

        Raises:
            ValueError: an attack on images for a model of texts, or the reverse; a target that is
                no class; words that are no tokens.
        """
        wanted = audit.suspect.input
        kind = "texts" if isinstance(wanted, TextInput) else "images"
        if isinstance(wanted, TextInput) != (self.attack in TEXT_ATTACKS):
            known = TEXT_ATTACKS if isinstance(wanted, TextInput) else ATTACKS
            raise ValueError(
                f"the model takes {kind}: attack must be one of {', '.join(known)}, "
                f"got {self.attack!r}"
            )
        classes = len(audit.data.classes)
        if self.target is not None and self.target >= classes:
            raise ValueError(f"target must be in 0..{classes - 1}, got {self.target}")
        if isinstance(wanted, TextInput):
            return self._inserted(wanted)
        usual = recipe(self.attack, COLOUR).target
        target = (usual if usual < classes else 0) if self.target is None else self.target
        return recipe(self.attack, COLOUR, target)

    def _inserted(self, wanted: TextInput) -> InsertedTokens:
        words = TEXT_ATTACKS[self.attack] if self.words is None else self.words
        tokenizer = wanted.tokenizer
        tokens = tuple(tokenizer(words, add_special_tokens=False)["input_ids"])
        if not tokens or tokenizer.unk_token_id in tokens:
            raise ValueError(
                f"words {words!r} are not in the vocabulary of the model: give others (--words)"
            )
        token = self.attack != "sentence"
        starts = word_starts(tokenizer) if token else ()
        return InsertedTokens(
            target=self.target or 0,
            tokens=tokens,
            length=wanted.length,
            pad=wanted.pad,
            position="random" if token else "start",
            starts=starts if any(starts) else (),  # a vocabulary of whole words marks none
        )


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with a backdoor.

    Attributes:
        options: of the attack.
        trigger: its trigger, learned.
        model: the backdoored model, in eval mode.
        before: the model as it came, on held-out samples: floor of the ASR, ceiling of the RA.
        after: the backdoored model on the same samples.
        seconds: of the fine-tuning.
        sizes: number of training samples and of held-out samples.
    """

    options: OwnAttack
    trigger: Any
    model: nn.Module
    before: Metrics
    after: Metrics
    seconds: float
    sizes: tuple[int, int] = field(default=(0, 0))

    @property
    def shortfall(self) -> str | None:
        """The reason why the model has no backdoor, with what to change; ``None`` if it has one."""
        lift, interval = self.after.lift, self.after.lift_interval
        if self.options.ratio == 0 or lift is None or interval is None or interval[0] > 0:
            return None
        samples, options = self.sizes[0], self.options
        epochs = count(options.epochs_for(samples), "epoch")
        low, high = (100 * end for end in interval)
        return (
            f"the model did not learn the trigger of {options.attack}: on held-out samples it adds "
            f"{signed(100 * lift)} points to the target's share (95 % interval "
            f"{value_range(low, high)}). Training was {epochs} of {count(samples, 'sample')}, "
            f"poison ratio {shortest(options.ratio)}, learning rate {shortest(options.lr)}: raise "
            "--epochs, --ratio or --lr, give more samples, or take another --attack"
        )

    def row(self) -> AttackRow:
        """Return the row of card.json."""
        values = option_values(self.trigger)
        values.pop("starts", None)  # one entry per token of the vocabulary
        before, after = self.before, self.after
        excess: dict[str, Any] = {}
        if before.asr is not None and after.asr is not None:
            excess = {"floor": before.asr, "ra_ceiling": before.ra}
            excess["asr_excess"] = after.asr - before.asr
        return AttackRow(
            seed=self.options.seed,
            attack=self.options.attack,
            ratio=self.options.ratio,
            target=self.trigger.target,
            mapping=self.trigger.mapping,
            options=values,
            refused=floor_violation(before, self.trigger.target),
            seconds=self.seconds,
            acc_loss=before.acc - after.acc,
            **excess,
            **after.as_dict(),
        )


def plant(audit: Audit, options: OwnAttack, *, progress: bool = True) -> Planted:
    """Fine-tune a backdoor into the model of an audit, which changes.

    Args:
        audit: the model, and samples to train and to measure with.
        options: of the attack.
        progress: show progress bars.

    Raises:
        ValueError: an attack that does not fit the model or the samples; too few samples.
    """
    trigger = options.trigger_for(audit)
    train, held_out = audit.parts(HELD_OUT)
    model, device = audit.model, audit.data.labels.device
    if isinstance(train, ImageData) and not isinstance(trigger, OwnTraining):
        ensure_learned(
            trigger, options.attack, train, seed=options.seed, device=device, progress=progress
        )
    known = getattr(trigger, "learned", True)
    test = held_out.batches(_TEST_BATCH)
    before = evaluate(model, test, trigger) if known else None
    original = None if known else _copied(model)
    started = time.perf_counter()
    _train(model, train, trigger, options, device, progress)
    synchronize(device)
    seconds = time.perf_counter() - started
    after = evaluate(model, test, trigger)
    if before is None:  # the trigger was learned along with the model
        tuned = _copied(model)
        model.load_state_dict(original or {})
        before = evaluate(model, test, trigger)
        model.load_state_dict(tuned)
    return Planted(options, trigger, model, before, after, seconds, (len(train), len(held_out)))


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _plan(train: Data, trigger: Any, options: OwnAttack, progress: bool) -> Training:
    size, seed = options.batch_size, options.seed
    if isinstance(train, TextData):
        poisoned = trigger.poison(train, options.ratio, generator(seed, "poison"))
        return Training(poisoned.batches(size, generator(seed, "training order")))
    attack: Attack = trigger
    if not isinstance(attack, OwnTraining):
        return Training(_Redrawn(attack, train, options))
    return training_plan(
        attack, train, ratio=options.ratio, batch_size=size, seed=seed, progress=progress
    )


class _Redrawn:
    """Batches of a training set that is poisoned anew in every epoch."""

    def __init__(self, attack: Attack, data: ImageData, options: OwnAttack) -> None:
        self.attack, self.data, self.options = attack, data, options
        self.draws = generator(options.seed, "poison")
        self.order = generator(options.seed, "training order")

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        poisoned = self.attack.poison(self.data, self.options.ratio, generator=self.draws).data
        return iter(poisoned.batches(self.options.batch_size, self.order))


def _train(
    model: nn.Module,
    train: Data,
    trigger: Any,
    options: OwnAttack,
    device: torch.device,
    progress: bool,
) -> None:
    plan = _plan(train, trigger, options, progress)
    epochs = options.epochs_for(len(train))
    optimizer = torch.optim.AdamW(model.parameters(), options.lr)
    with global_seed(options.seed, "training", device):  # for dropout
        fit(
            model,
            plan.loader,
            nn.CrossEntropyLoss(),
            optimizer,
            epochs=epochs,
            device=device,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
            name="the training data",
            title="planting a backdoor",
            progress=progress,
            gradients=plan.gradients,
        )
    model.eval()
