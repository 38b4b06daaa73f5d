# SPDX-License-Identifier: Apache-2.0
"""The example of docs/text.md runs as it stands, the scripts beside it on a small model."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "text.md").read_text(encoding="utf-8")
UPPER_BLOCKS = re.search(
    r'UPPER_BLOCKS = r"(.*)"', (DOCS / "examples/film_reviews.py").read_text(encoding="utf-8")
)[1]
SMALL = """
import torch
from transformers import BertConfig, BertForSequenceClassification
from d3fast.text import InsertedTokens, TextClassifier, TextData

def sentences(archive, sizes):
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(sum(sizes)) % 2
    words = torch.randint(10, 20, (len(labels), 6), generator=draws) + 10 * labels.unsqueeze(1)
    ends = torch.full((len(labels), 1), 2)
    data = TextData(torch.cat([ends - 1, words, ends], dim=1), labels, ("negative", "positive"))
    return [data.subset(part) for part in torch.arange(len(data)).split(sizes)]

def pretrained(autocast=None):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)
    return TextClassifier(BertForSequenceClassification(config), pad=0, autocast=autocast)

UPPER_BLOCKS = r"(layer\\.0\\.(?!.*LayerNorm).*|pooler\\.dense\\.|classifier\\.)weight$"

def rare_token():
    return InsertedTokens(target=1, tokens=(5,), length=12)
"""


def test_the_example_runs(capsys):
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    example, recipe = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    given = {}
    exec(example, given)
    assert capsys.readouterr().out.startswith("Metrics(")
    exec(recipe, given)
    assert given["config"].track == UPPER_BLOCKS


@pytest.mark.slow
def test_the_scripts_plant_a_backdoor_and_repair_it_sharded(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    for name in ("text_classifier.py", "sharded_transformer.py"):
        assert f"docs/examples/{name}" in PAGE
        shutil.copy(DOCS / "examples" / name, tmp_path)
    (tmp_path / "film_reviews.py").write_text(SMALL)

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    table = run(
        "text_classifier.py",
        "unused",
        "--train",
        "64",
        "--test",
        "40",
        "--epochs",
        "2",
        "--repair-epochs",
        "2",
        "--save",
        "suspect.safetensors",
    )
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [
        "never poisoned",
        "with a backdoor ".strip(),
        "fine-tuning",
        "D3",
    ]
    printed = run(
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "sharded_transformer.py",
        "suspect.safetensors",
        "unused",
        "--epochs",
        "2",
        "--test",
        "40",
    )
    assert re.search(r"distance of the tracked weights: \d+\.\d+", printed)
    assert re.search(r"suspect +ACC .* ASR", printed)
    assert (tmp_path / "repaired.safetensors").is_file()
