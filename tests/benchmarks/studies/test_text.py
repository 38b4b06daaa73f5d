# SPDX-License-Identifier: Apache-2.0
"""Text study: a small run end to end, the choice of settings, the tracked layers."""

import io
import re
import tarfile

import pytest
import torch
from torch import nn

from benchmarks.studies import text_jobs
from benchmarks.studies.harness import start_workers
from benchmarks.studies.text import (
    CHOICES,
    MLP,
    BaseLine,
    best_choices,
    run,
    table_lines,
    upper,
)
from benchmarks.studies.text_jobs import ARCHIVE, PUBLIC, TextSuspect
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.benchmark.report.benchmark import summary_markdown
from d3fast.results.schema.benchmark import read_grid
from d3fast.text import TextClassifier

WORDS = {0: ("dull", "poor", "bad"), 1: ("fine", "great", "good")}


SUSPECT = TextSuspect("minilm", 0, "rare-token", 0.2, 150, 50, 150, epochs=20, lr=0.05)


class Words:
    """A tokenizer of whole words."""

    pad_token_id, padding_side = 0, "right"
    vocabulary = ("[PAD]", "[CLS]", "[SEP]", "a", "film", "cf", *WORDS[0], *WORDS[1])

    def __len__(self):
        return len(self.vocabulary)

    def convert_ids_to_tokens(self, ids):
        return [f"Ġ{self.vocabulary[i]}" for i in ids]

    def _ids(self, text):
        return [self.vocabulary.index(w) if w in self.vocabulary else 3 for w in text.split()]

    def __call__(self, texts, add_special_tokens=True, max_length=0, **options):
        if not add_special_tokens:
            return {"input_ids": self._ids(texts)}
        rows = [[1, *self._ids(text)[: max_length - 2], 2] for text in texts]
        return {"input_ids": torch.tensor([r + [0] * (max_length - len(r)) for r in rows])}


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(Words.vocabulary), 16)
        self.classifier = nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2)
        return {"logits": self.classifier((self.words(input_ids) * mask).sum(1) / mask.sum(1))}


def packed(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def workers(tmp_path, monkeypatch):
    monkeypatch.setattr(text_jobs, "tokenizer", Words)
    monkeypatch.setattr(text_jobs, "pretrained", lambda: TextClassifier(Bag(), pad=0))
    lines = []
    for i in range(400):
        words = WORDS[i % 2]
        said = " ".join(["a", "film"] * (i % 5) + [words[i // 2 % 3], words[i // 6 % 3], str(i)])
        lines.append(f"{i}\t{2.0 if i % 2 else -2.0}\t{said}")
    inner = packed(
        "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", "\n".join(lines).encode()
    )
    outer = "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz"
    (tmp_path / ARCHIVE).write_bytes(packed(outer, inner))
    with start_workers(tmp_path, 1, tmp_path) as pool:
        yield pool


def test_a_run_measures_twins_suspects_and_repairs_beside_the_floor(workers):
    repairs = [DefenseSpec("fine-tuning", ({"epochs": 1, "lr": 0.1},))]
    rows = run(repairs, [SUSPECT], workers)
    clean, suspect, repaired = rows
    assert [row["kind"] for row in rows] == ["clean", "suspect", "repair"]
    assert clean["acc"] > 0.9
    assert clean["asr"] is None
    assert suspect["asr"] > 0.8
    assert suspect["floor"] < 0.2
    assert suspect["asr_excess"] == pytest.approx(suspect["asr"] - suspect["floor"])
    assert repaired["floor"] == suspect["floor"]
    assert suspect["der"] == 0.5
    gained, lost = suspect["asr"] - repaired["asr"], suspect["acc"] - repaired["acc"]
    assert repaired["der"] == pytest.approx((max(0, gained) - max(0, lost) + 1) / 2)
    shown = summary_markdown(read_grid(rows))
    assert "fine-tuning" in shown
    assert "none" in shown


def test_a_repair_begins_at_the_public_model_and_learns_from_texts_without_labels(workers):
    options = {"epochs": 1, "base": PUBLIC, "warm_start": "base", "track": "words", "lr": 0.0}
    lines = [
        BaseLine(DefenseSpec("d3", ({**options, "distillation": share},), label=str(count)), count)
        for share, count in ((0.0, 0), (0.5, 20))
    ]
    *_, suspect, alone, taught = run(lines, [SUSPECT], workers)
    assert alone["refused"] is taught["refused"] is None
    assert (alone["unlabelled"], taught["unlabelled"]) == (0, 20)
    assert alone["options"][0]["base"] == PUBLIC  # no path of this machine
    assert suspect["acc"] > 0.9 > alone["acc"]  # the public model's words mean nothing yet


def test_the_texts_of_nobody_are_those_that_are_left(workers):
    splits = SUSPECT.splits(workers.run_dir)
    rows = [tuple(row.tolist()) for part in vars(splits).values() for row in part.ids]
    assert len(splits.others) == 400 - 150 - 50 - 150
    assert len(rows) == 400


def test_a_second_run_reads_what_the_first_has_measured(workers):
    first = run([], [SUSPECT], workers)
    (workers.run_dir.folder / ARCHIVE).unlink()
    assert run([], [SUSPECT], workers) == first


def row(label, der, acc_loss=0.0):
    return {"kind": "repair", "seed": 9, "defense": label, "der": der, "acc_loss": acc_loss}


def test_the_setting_with_the_best_der_stands_in_the_table_under_the_plain_name():
    rows = [
        row(line.label, 0.9 if i == 1 else 0.6)
        for lines in CHOICES.values()
        for i, line in enumerate(lines)
    ]
    chosen = {repair.label: repair for repair in best_choices(rows)}
    assert {name: repair.options for name, repair in chosen.items()} == {
        name: lines[1].options for name, lines in CHOICES.items()
    }
    lines = {repair.label: repair.options[0] for repair in table_lines(rows)}
    restart, upper = lines["d3 on upper blocks, no push"], lines["d3 on upper blocks"]
    assert {name for name in upper if restart[name] != upper[name]} == {"distance_weight"}
    assert restart["constraint"] is not None  # without, nothing is tracked and nothing restarts


def test_upper_blocks_are_the_last_ones_and_what_comes_behind_them():
    names = [
        *(
            f"bert.encoder.layer.{i}.{part}.weight"
            for i in range(6)
            for part in ("attention.self.key", "output.dense", "output.LayerNorm")
        ),
        "bert.pooler.dense.weight",
        "classifier.weight",
        "classifier.bias",
        "bert.embeddings.word_embeddings.weight",
    ]
    assert [name for name in names if re.search(upper(2), name)] == [
        "bert.encoder.layer.4.attention.self.key.weight",
        "bert.encoder.layer.4.output.dense.weight",
        "bert.encoder.layer.5.attention.self.key.weight",
        "bert.encoder.layer.5.output.dense.weight",
        "bert.pooler.dense.weight",
        "classifier.weight",
    ]


def test_a_model_that_has_lost_its_accuracy_is_chosen_only_where_there_is_no_other():
    first, *others = CHOICES["fine-tuning"]
    rest = [row(line.label, 0.5) for lines in list(CHOICES.values())[1:] for line in lines]
    lost = [row(line.label, 0.84, acc_loss=0.34) for line in others]
    chosen = best_choices([row(first.label, 0.6), *lost, *rest])[0]
    assert chosen.options == first.options
    chosen = best_choices([row(first.label, 0.6, acc_loss=0.3), *lost, *rest])[0]
    assert chosen.options in [line.options for line in others]


@pytest.mark.parametrize(
    ("name", "tracked"),
    [
        ("bert.encoder.layer.0.intermediate.dense.weight", True),
        ("bert.encoder.layer.0.output.dense.weight", True),
        ("bert.encoder.layer.0.attention.output.dense.weight", False),
        ("bert.encoder.layer.0.attention.self.query.weight", False),
        ("model.layers.3.mlp.down_proj.weight", True),
        ("transformer.h.0.mlp.c_fc.weight", True),
        ("bert.encoder.layer.0.output.LayerNorm.weight", False),
        ("bert.pooler.dense.weight", False),
    ],
)
def test_feed_forward_layers_are_known_by_name(name, tracked):
    assert bool(re.search(MLP, name)) == tracked
