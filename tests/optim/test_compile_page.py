"""The examples of docs/compile.md run as they stand."""

import functools
import re
from pathlib import Path

import pytest
import torch
import torch._dynamo
from torch.utils.data import DataLoader, TensorDataset

import d3fast

PAGE = (Path(__file__).parents[2] / "docs/compile.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("example", EXAMPLES, ids=["compile", "meta"])
def test_the_example_runs(example, classifier, monkeypatch):
    if "trace_autograd_ops" in example:
        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            pytest.skip("this torch breaks the graph at loss.backward()")
        monkeypatch.setattr(torch._dynamo.config, "trace_autograd_ops", False)  # undone at the end
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    model, batch = classifier()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    given = {
        "d3fast": d3fast,
        "torch": torch,
        "model": model,
        "make_model": lambda: classifier()[0],
        "weights": before,
        "train_loader": DataLoader(TensorDataset(*batch), batch_size=4),
    }
    exec(example, given)
    opt, head = given["opt"], given["model"][6].weight
    assert torch.equal(opt.state[head]["reference"], before["6.weight"])
    assert torch.equal(head, before["6.weight"]) == ("meta" in example)
