# SPDX-License-Identifier: Apache-2.0
"""The scripts in docs/examples run; the long ones on a small model."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from docs.check.pages import EXAMPLES, ROOT, page

LONG = {"film_reviews", "sharded_transformer", "text_classifier"}
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


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 1 and done.stderr.startswith("skipped: "):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "script",
    [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem not in LONG],
    ids=lambda script: script.stem,
)
def test_the_script_runs(script, tmp_path):
    assert f"examples/{script.name}" in page("examples")
    assert run(tmp_path, str(script))


def test_the_long_scripts_plant_a_backdoor_and_repair_it_sharded(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    for name in ("text_classifier.py", "sharded_transformer.py"):
        assert f"docs/examples/{name}" in page("text")
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "film_reviews.py").write_text(SMALL)
    table = run(
        tmp_path,
        *("text_classifier.py", "unused", "--train", "64", "--test", "40"),
        *("--epochs", "2", "--repair-epochs", "2", "--save", "suspect.safetensors"),
    )
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [
        "never poisoned",
        "with a backdoor",
        "fine-tuning",
        "D3",
    ]
    printed = run(
        tmp_path,
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("sharded_transformer.py", "suspect.safetensors", "unused"),
        *("--epochs", "2", "--test", "40"),
    )
    assert re.search(r"distance of the tracked weights: \d+\.\d+", printed)
    assert re.search(r"suspect +ACC .* ASR", printed)
    assert (tmp_path / "repaired.safetensors").is_file()
