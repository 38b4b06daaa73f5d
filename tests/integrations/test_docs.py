"""The examples of docs/integrations.md run as they stand."""

import re
from pathlib import Path

import pytest
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


@pytest.mark.filterwarnings("ignore")  # the trainers' own
@pytest.mark.parametrize("example", EXAMPLES, ids=["loop", "radius", "lightning", "transformers"])
def test_the_example_runs(example, suspect, clean, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = suspect()
    if "import lightning" in example:
        pytest.importorskip("lightning", reason="needs the extra d3fast[lightning]")
    if "from transformers" in example:
        pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
        model = Named(model)
    train, val = ([{"pixels": image, "labels": label} for image, label in part] for part in clean)
    given = {
        "d3fast": d3fast,
        "model": model,
        "train_loader": DataLoader(clean[0], batch_size=32),
        "val_loader": DataLoader(clean[1], batch_size=32),
        "clean_train": train,
        "clean_val": val,
    }
    before = [p.detach().clone() for p in model.parameters()]
    exec(example, given)
    assert any((a != b).any() for a, b in zip(before, model.parameters(), strict=True))
