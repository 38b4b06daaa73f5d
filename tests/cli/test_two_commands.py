"""A backdoored model in hub layout: ``check`` and ``repair`` leave a folder that loads."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from d3fast.audit.trigger import load_trigger
from d3fast.data import load
from d3fast.hub import Request, TextInput, open_samples, resolve
from d3fast.training.metrics import evaluate

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")


def digits(folder, count=700):
    """Colour images of digits in class folders."""
    data = load("digits", 0, train=count, clean=0).train
    for at, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = (255 * image[0]).byte() if image.is_floating_point() else image[0]
        Image.fromarray(pixels.numpy().astype(np.uint8)).convert("RGB").save(place / f"{at}.png")


def resnet(folder):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
        id2label={k: str(k) for k in range(10)},
        label2id={str(k): k for k in range(10)},
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def measured(folder, data, trigger):
    """ACC and ASR of a folder, read by the resolver."""
    suspect = resolve(Request(str(folder)))
    samples = open_samples(data).for_model(suspect).data
    return evaluate(suspect.model, samples.batches(100), trigger)


def run(call, line, code):
    result = call(f"{line} --no-progress --device cpu")
    assert result.exit_code in code, result.output
    return result


def test_an_image_classifier_from_attack_to_a_repaired_folder(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits(tmp_path / "photos")
    resnet(tmp_path / "model")
    options = "--attack badnets --target 1 --ratio 0.15 --epochs 15 --lr 0.002 --out attacked"
    run(call, f"attack --model model --data photos {options}", {0})
    trigger = load_trigger(tmp_path / "attacked" / "backdoored.trigger.safetensors")
    before = measured(tmp_path / "attacked" / "backdoored", tmp_path / "photos", trigger)
    assert before.acc > 0.9
    assert before.lift > 0.8
    run(call, "check attacked/backdoored --data photos --out audit --sarif a.sarif", {1})
    assert json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"]
    run(call, "repair attacked/backdoored --data photos --out audit --bom bom.json", {0, 1, 3})
    after = measured(tmp_path / "audit" / "repaired", tmp_path / "photos", trigger)
    assert after.lift < 0.2
    assert after.acc > before.acc - 0.1
    transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "audit" / "repaired")
    assert "## Backdoor repair" in (tmp_path / "audit/repaired/README.md").read_text()
    assert call("record audit --verify").exit_code == 0


def reviews(path, count=600):
    from tests.text import tiny

    texts, labels = tiny.texts(count)
    rows = [f'"{text}",{tiny.CLASSES[label]}' for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")


def bert(folder):
    from tests.text import tiny

    model = tiny.bert()
    model.config.id2label = dict(enumerate(tiny.CLASSES))
    model.config.label2id = {name: k for k, name in enumerate(tiny.CLASSES)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("attack", ["rare-token", "sentence --words 'word3 word17 word101 word55'"])
def test_a_text_classifier_from_attack_to_a_repaired_folder(call, tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    reviews(tmp_path / "reviews.csv")
    bert(tmp_path / "model")
    options = "--target 2 --ratio 0.15 --epochs 15 --lr 0.003 --out attacked"
    run(call, f"attack --attack {attack} --model model --data reviews.csv {options}", {0})
    trigger = load_trigger(tmp_path / "attacked" / "backdoored.trigger.safetensors")
    suspect = resolve(Request(str(tmp_path / "attacked" / "backdoored")))
    assert isinstance(suspect.input, TextInput)
    before = measured(tmp_path / "attacked" / "backdoored", tmp_path / "reviews.csv", trigger)
    assert before.lift > 0.5
    run(call, "check attacked/backdoored --data reviews.csv --out audit", {0, 1})
    run(call, "repair attacked/backdoored --data reviews.csv --out audit", {0, 1, 3})
    after = measured(tmp_path / "audit" / "repaired", tmp_path / "reviews.csv", trigger)
    assert after.acc > before.acc - 0.05
    assert after.lift < 0.1
    load_from = transformers.AutoModelForSequenceClassification.from_pretrained
    load_from(tmp_path / "audit" / "repaired")
