# SPDX-License-Identifier: Apache-2.0
"""The Python and TOML blocks of the pages run as they stand."""

import functools
import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import d3fast
from d3fast.data import ImageData, as_float
from d3fast.detox import read_config, save_weights
from d3fast.models import load_weights, make_model
from d3fast.testing import check_defense
from d3fast.testing.toys import Templates, template_samples
from docs.check.pages import EXAMPLES, ROOT, blocks, page
from tests.integrations.conftest import clean, forget_accelerators, suspect  # noqa: F401
from tests.integrations.test_timm import timm_optim  # noqa: F401

EXTRAS = {
    "import lightning": "lightning",
    "from transformers": "transformers",
    "from accelerate": "accelerate",
    "from peft": "peft",
}


def digits(count=40):
    """Return random images of 8 x 8 pixels in ten classes."""
    draws = torch.Generator().manual_seed(0)
    return ImageData(
        torch.rand(count, 1, 8, 8, generator=draws), torch.arange(count) % 10, tuple("0123456789")
    )


class TestCheckpointPages:
    @pytest.fixture
    def files(self, tmp_path, monkeypatch):
        """Write a checkpoint and a folder of clean samples, and go there."""
        monkeypatch.chdir(tmp_path)
        draws = torch.Generator().manual_seed(0)
        for label in range(3):
            folder = tmp_path / "clean" / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = torch.randint(0, 256, (8, 8), generator=draws, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
        save_weights(make_model("preact_resnet_narrow", 3, 1), tmp_path / "suspect.safetensors")
        return tmp_path

    def test_data(self, files, capsys):
        (example,) = blocks(page("data"))
        exec(example, {})
        assert capsys.readouterr().out == "True 24\n"

    def test_inspect(self):
        (example,) = blocks(page("inspect"))
        data = template_samples()
        names = {
            "model": Templates(shortcut=True),
            "images": data.images,
            "labels": data.labels,
            "classes": data.classes,
        }
        exec(example, names)
        assert names["found"].verdict.suspicious

    def test_detox(self, files):
        (example,) = blocks(page("detox"))
        names = {}
        exec(example, names)
        load_weights(make_model("preact_resnet_narrow", 3, 1), files / "repaired.safetensors")
        assert names["result"].config.max_acc_drop == 2.0

    def test_detox_toml(self, tmp_path):
        (example,) = blocks(page("detox"), "toml")
        (tmp_path / "d3.toml").write_text(example)
        config = read_config(tmp_path / "d3.toml")
        assert (config.lr, config.constraint) == (0.03, None)

    def test_pilot(self, files):
        (files / "my").mkdir()
        (files / "my" / "package.py").write_text(
            "from d3fast.models import make_model as make\n"
            "def make_model(num_classes, in_channels):\n"
            "    return make('preact_resnet_tiny', num_classes, in_channels)\n"
        )
        save_weights(make_model("preact_resnet_tiny", 3, 1), files / "suspect.safetensors")
        (example,) = blocks(page("pilot"))
        (files / "pilot_example.py").write_text(example.replace("trials=9", "trials=3, epochs=4"))
        done = subprocess.run(
            [sys.executable, "pilot_example.py"],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}."},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def test_report(self, tmp_path, monkeypatch):
        results = ROOT / "benchmarks" / "results"
        for name, source in (("audit/card", "card"), ("later/inspect", "inspect")):
            target = tmp_path / f"{name}.json"
            target.parent.mkdir(parents=True)
            target.write_bytes((results / f"own-model-{source}.json").read_bytes())
        monkeypatch.chdir(tmp_path)
        (example,) = blocks(page("report"))
        exec(example, {})


def test_optimizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swap, adamw, in_backward, repair = blocks(page("optimizer"))
    names = {}
    exec(swap, names)
    exec(in_backward, names)
    assert all(p.grad is None for p in names["model"].parameters())
    exec(adamw, {})
    model = make_model("preact_resnet_tiny", 10, 1)
    exec(repair, {"model": model, "clean_loader": digits().batches(20)})
    assert (tmp_path / "clean.safetensors").is_file()


def test_defenses():
    call, relearning, reactivation = blocks(page("defenses"))
    loader = digits().batches(20)
    names = {
        "model": make_model("preact_resnet_tiny", 10, 1),
        "clean_train": loader,
        "clean_val": loader,
        "clean": digits(400),
        "test": digits(),
        "attack": d3fast.attacks.BadNets(target=1, size=2),
    }
    exec(call.replace("device=None, progress=True", "device=None, progress=False"), names)
    exec(relearning, names)
    assert 0 <= names["result"].area <= 1
    others = ("own_repair", "suspect", "clean_model")
    names |= {name: make_model("preact_resnet_tiny", 10, 1) for name in others}
    exec(reactivation, {**names, "images": as_float(digits().images)})


def test_logging(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(page("logging"))
    exec(
        example,
        {"model": make_model("preact_resnet_tiny", 10, 1), "clean_loader": digits().batches(20)},
    )
    assert len((tmp_path / "runs/log/epochs.jsonl").read_text().splitlines()) == 4


def test_plugins(tmp_path, monkeypatch):
    """The page shows the package of tests/ as it is, and the package keeps the contracts."""
    package = ROOT / "tests" / "plugin_package"
    parts = [f"plugin_example/{name}.py" for name in ("stripe", "half_head", "mean_score")]
    shown = [*blocks(page("plugins"), "toml"), *blocks(page("plugins"))]
    files = ["pyproject.toml", *parts, "tests/test_contracts.py"]
    assert shown == [(package / file).read_text(encoding="utf-8") for file in files]
    monkeypatch.syspath_prepend(package)
    names = {}
    exec(shown[-1], names)
    names["test_stripe"]()
    names["test_mean_score"]()
    check_defense(names["HALF_HEAD"].make, options=names["HALF_HEAD"].options)


def test_precision():
    half, narrow = blocks(page("precision"))
    model = nn.Linear(4, 3)
    names = {"torch": torch, "d3fast": d3fast, "model": model}
    exec(half, names)
    assert model.weight.dtype == torch.bfloat16
    exec(narrow, {**names, "model": nn.Linear(4, 3)})


def test_spectrum():
    (example,) = blocks(page("spectrum"))
    names = {
        "model": make_model("preact_resnet_tiny", 10, 1),
        "loss": nn.CrossEntropyLoss(),
        "clean": list(digits().batches(20)),
        "attack": d3fast.attacks.BadNets(target=1, size=2),
        "at": torch.linspace(-1, 1, 5),
    }
    exec(example, names)
    assert len(names["pairs"].values) == 10


def test_text(capsys):
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    example, recipe = blocks(page("text"))
    names = {}
    exec(example, names)
    assert capsys.readouterr().out.startswith("Metrics(")
    exec(recipe, names)
    source = (EXAMPLES / "film_reviews.py").read_text(encoding="utf-8")
    assert names["config"].track == re.search(r'UPPER_BLOCKS = r"(.*)"', source)[1]


def test_distributed(tmp_path):
    (example,) = blocks(page("distributed"))
    (tmp_path / "repair.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "repair.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/step-3/.metadata").exists()


class TestCompilePage:
    COMPILED, DEFERRED, ESTIMATED = blocks(page("compile"))

    @pytest.fixture
    def names(self):
        """What the reader of the page has."""

        def make():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))

        model = make()
        samples = TensorDataset(torch.randn(12, 6), torch.arange(12) % 5)
        return {
            "d3fast": d3fast,
            "torch": torch,
            "model": model,
            "make_model": make,
            "weights": {name: t.clone() for name, t in model.state_dict().items()},
            "train_loader": DataLoader(samples, batch_size=4),
        }

    @pytest.mark.skipif(
        not hasattr(torch._dynamo.config, "trace_autograd_ops"),
        reason="this torch breaks the graph at loss.backward()",
    )
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_compiled_training(self, names, monkeypatch):
        monkeypatch.setattr(torch._dynamo.config, "trace_autograd_ops", False)  # undone at the end
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        exec(self.COMPILED, names)
        opt, head = names["opt"], names["model"][2].weight
        assert torch.equal(opt.state[head]["reference"], names["weights"]["2.weight"])
        assert not torch.equal(head, names["weights"]["2.weight"])

    def test_deferred_initialisation(self, names):
        exec(self.DEFERRED, names)
        opt, head = names["opt"], names["model"][2].weight
        assert torch.equal(opt.state[head]["reference"], names["weights"]["2.weight"])
        assert torch.equal(head, names["weights"]["2.weight"])

    def test_memory_estimators(self, names, capsys):
        exec(self.ESTIMATED, names)
        assert "Optstate: 0.75 KiB" in capsys.readouterr().out


class Named(nn.Module):
    """A classifier with the argument names that the Hugging Face Trainer passes."""

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


class TestIntegrationsPage:
    EXAMPLES = blocks(page("integrations"))

    @pytest.mark.filterwarnings("ignore")  # the trainers' own
    @pytest.mark.parametrize(
        "example",
        EXAMPLES,
        ids=["loop", "radius", "lightning", "transformers", "tokens", "accelerate", "peft"],
    )
    def test_the_example_runs(
        self,
        example,
        suspect,  # noqa: F811
        clean,  # noqa: F811
        tmp_path,
        monkeypatch,
        request,
    ):
        monkeypatch.chdir(tmp_path)
        for line, package in EXTRAS.items():
            if line in example:
                pytest.importorskip(package, reason="needs the package's extra of d3fast")
        if "Accelerator(" in example:
            request.getfixturevalue("forget_accelerators")()
        model = suspect()
        train, val = (
            [{"pixels": image, "labels": label} for image, label in part] for part in clean
        )
        if "get_peft_model" in example:
            model, train = bert(), sentences(lambda row: row[0] % 3)
        elif "_proj" in example:
            model, train = llama(), sentences(lambda row: row)
        elif "from transformers" in example:
            model = Named(model)
        names = {
            "d3fast": d3fast,
            "model": model,
            "train_loader": DataLoader(clean[0], batch_size=32),
            "val_loader": DataLoader(clean[1], batch_size=32),
            "clean_train": train,
            "clean_val": val,
        }
        before = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        exec(example, names)
        if "distance" in names:  # the adapters' names are new
            assert float(names["distance"].total_distance()) > 0
        else:
            after = dict(model.named_parameters())
            assert any((after[name].cpu() != p).any() for name, p in before.items())

    def test_the_table_of_mlp_layers_is_the_one_that_is_tested(self):
        pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
        from tests.optim.test_heads_transformers import MLP_LAYERS

        named = set(re.findall(r'`r"([^`]*)"`', page("integrations").replace("\\|", "|")))
        assert {pattern for _, pattern, _ in MLP_LAYERS.values()} <= named


class TestDropInPage:
    BY_NAME, TIMM, LIGHTNING, TRANSFORMERS = blocks(page("drop-in"))
    (CONFIG,) = blocks(page("drop-in"), "yaml")

    def test_names(self, suspect):  # noqa: F811
        exec(self.BY_NAME, {"model": suspect()})

    def test_timm(self, suspect, timm_optim):  # noqa: F811
        names = {"model": suspect()}
        exec(self.TIMM, names)
        assert list(names["opt"].distances()) == ["2.weight"]

    @pytest.mark.filterwarnings("ignore")  # Lightning's own
    def test_lightning(self, suspect, clean, tmp_path, monkeypatch):  # noqa: F811
        pytest.importorskip("jsonargparse", reason="needs the extra d3fast[lightning]")
        cli = pytest.importorskip("lightning.pytorch.cli", reason="needs d3fast[lightning]")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py"])
        names = {"make_model": suspect}
        exec(self.LIGHTNING, names)
        (tmp_path / "repair.yaml").write_text(self.CONFIG.replace("20", "1"))
        ran = cli.LightningCLI(
            names["Repair"],
            args=["--config=repair.yaml", "--trainer.accelerator=cpu", "--trainer.logger=false"],
            run=False,
            seed_everything_default=False,
        )
        ran.trainer.fit(ran.model, DataLoader(clean[0], batch_size=32))
        (distance,) = ran.trainer.optimizers[0].distances().values()
        assert float(distance) > 0

    @pytest.mark.filterwarnings("ignore")  # the trainer's own
    def test_transformers(self, suspect, clean, tmp_path, monkeypatch):  # noqa: F811
        pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
        monkeypatch.chdir(tmp_path)
        samples = [{"pixels": image, "labels": label} for image, label in clean[0]]
        names = {"model": Named(suspect()), "clean_train": samples}
        exec(self.TRANSFORMERS, names)
        assert names["trainer"].state.global_step == 12
