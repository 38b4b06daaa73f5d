"""``d3fast check`` and ``d3fast repair`` on a hub folder with a classifier of texts."""

import csv

import pytest
import torch

from d3fast.results.store import read_results
from tests.hub.text_makers import transformers, write_classifier
from tests.text.tiny import CLASSES, text_data, texts

AUTO = transformers.AutoModelForSequenceClassification


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose model answers all classes, and a table of clean texts."""
    folder = tmp_path_factory.mktemp("texts")
    write_classifier(folder / "model")
    model, ids = AUTO.from_pretrained(folder / "model").eval(), text_data(48).ids
    with torch.no_grad():
        model.classifier.weight *= 100
        scores = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        model.classifier.bias -= scores.mean(dim=0)
    model.save_pretrained(folder / "model")
    made, labels = texts(48)
    with (folder / "texts.csv").open("w", newline="") as file:
        rows = [(text, CLASSES[label]) for text, label in zip(made, labels, strict=True)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return folder


@pytest.fixture
def run(call, place, tmp_path):
    def invoke(command, more=""):
        line = f"{command} {place}/model --data {place}/texts.csv --out {tmp_path}/audit"
        result = call(f"{line} --steps 2 --fail-on none {more}")
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


def test_check_writes_a_page_with_the_tokens(run, tmp_path):
    assert "token" in run("check")
    rows = read_results(tmp_path / "audit" / "inspect.json").rows
    assert [row["class"] for row in rows if row["kind"] == "inversion"] == list(CLASSES)
    assert [row["name"] for row in rows if row["kind"] == "sign"] == ["token", "phrase"]
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "Strongest tokens per class" in page
    assert next(row["tokens"] for row in rows if row["kind"] == "inversion") in page


def test_repair_leaves_a_folder_that_transformers_loads(run, place, tmp_path):
    run("repair", "--epochs 1")
    repaired = tmp_path / "audit" / "repaired"
    before = AUTO.from_pretrained(place / "model").state_dict()
    after = AUTO.from_pretrained(repaired).state_dict()
    assert after.keys() == before.keys()
    name = "bert.encoder.layer.1.output.dense.weight"
    assert (after[name] - before[name]).norm() > 0.5 * before[name].norm()
    words = "bert.embeddings.word_embeddings.weight"
    assert (after[words] - before[words]).norm() < 0.5 * before[words].norm()
    assert transformers.AutoTokenizer.from_pretrained(repaired)("music0")["input_ids"]
    settings = read_results(tmp_path / "audit" / "card.json").settings
    assert settings["options"]["preset"] == "text"
    assert settings["options"]["batch_size"] == 32


def test_options_of_the_method_override_the_recipe_for_texts(run, tmp_path):
    run("repair", "--epochs 1 --lr 0.001 --track head --batch-size 16")
    settings = read_results(tmp_path / "audit" / "card.json").settings
    assert settings["config"]["lr"] == 0.001
    assert settings["config"]["track"] == "head"
    assert settings["options"]["batch_size"] == 16
