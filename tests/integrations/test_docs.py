"""The examples of docs/integrations.md run as they stand."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import d3fast

PAGE = (Path(__file__).parents[2] / "docs/integrations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Named(nn.Module):
    """A classifier with the names that the Hugging Face Trainer passes around."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels, labels=None):
        return {"logits": self.model(pixels)}


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=20, intermediate_size=64, num_labels=3, **sizes)
    return BertForSequenceClassification(config)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, intermediate_size=64, **sizes))


def sentences(labels):
    rows = torch.randint(3, 20, (16, 6), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": labels(row)} for row in rows]


EXTRAS = {
    "import lightning": "lightning",
    "from transformers": "transformers",
    "from accelerate": "accelerate",
    "from peft": "peft",
}


@pytest.mark.filterwarnings("ignore")  # the trainers' own
@pytest.mark.parametrize(
    "example",
    EXAMPLES,
    ids=["loop", "radius", "lightning", "transformers", "tokens", "accelerate", "peft"],
)
def test_the_example_runs(example, suspect, clean, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    for line, package in EXTRAS.items():
        if line in example:
            pytest.importorskip(package, reason="needs the package's extra of d3fast")
    if "Accelerator(" in example:
        request.getfixturevalue("forget_accelerators")()
    model = suspect()
    train, val = ([{"pixels": image, "labels": label} for image, label in part] for part in clean)
    if "get_peft_model" in example:
        model, train = bert(), sentences(lambda row: row[0] % 3)
    elif "_proj" in example:
        model, train = llama(), sentences(lambda row: row)
    elif "from transformers" in example:
        model = Named(model)
    given = {
        "d3fast": d3fast,
        "model": model,
        "train_loader": DataLoader(clean[0], batch_size=32),
        "val_loader": DataLoader(clean[1], batch_size=32),
        "clean_train": train,
        "clean_val": val,
    }
    before = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
    exec(example, given)
    if "distance" in given:  # the adapters' names are new
        assert float(given["distance"].total_distance()) > 0
    else:
        after = dict(model.named_parameters())
        assert any((after[name].cpu() != p).any() for name, p in before.items())


def test_the_table_of_mlp_layers_is_the_one_that_is_tested():
    source = (Path(__file__).parents[1] / "optim/test_heads_transformers.py").read_text("utf-8")
    table = re.search(r"^MLP_LAYERS = \{.*?^\}", source, re.DOTALL | re.MULTILINE)[0]
    patterns = set(re.findall(r'r"[^"]*"', table))
    named = set(re.findall(r'`(r"[^`]*")`', PAGE.replace("\\|", "|")))
    assert patterns <= named
