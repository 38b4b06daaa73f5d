"""``D3FusedSGD`` in LightningCLI: a class path with arguments, from the command line or a file."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import d3fast
from d3fast import D3FusedSGD

pytest.importorskip("lightning", reason="needs the extra d3fast[lightning]")
pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, OptimizerCallable

# Lightning warns about few workers, short epochs and missing loggers.
pytestmark = pytest.mark.filterwarnings("ignore")

TRAINER = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Repair(LightningModule):
    """A module without an optimizer: the command line brings one."""

    def __init__(self, hidden: int = 8):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.loss = d3fast.CleanLoss(epsilon=0.1, weight=2.0)

    def training_step(self, batch):
        return self.loss(self.model(batch[0]), batch[1])

    def train_dataloader(self):
        g = torch.Generator().manual_seed(0)
        images = torch.randn(32, 8, generator=g)
        return DataLoader(TensorDataset(images, torch.arange(32) % 3), batch_size=8)


class NamedRepair(Repair):
    """A module that is given a function and calls it with named parameters."""

    def __init__(self, optimizer: OptimizerCallable, hidden: int = 8):
        super().__init__(hidden)
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.model.named_parameters())


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Runs ``fit`` with arguments; returns the optimizer after it."""
    monkeypatch.chdir(tmp_path)

    def run(module, *args):
        monkeypatch.setattr("sys.argv", ["train.py"])
        cli = LightningCLI(
            module,
            trainer_defaults=TRAINER,
            save_config_callback=None,
            seed_everything_default=False,
            args=["fit", *args],
        )
        return cli.trainer.optimizers[0]

    return run


def test_a_class_path_with_arguments(fit):
    opt = fit(
        Repair,
        *("--optimizer=d3fast.D3FusedSGD", "--optimizer.lr=0.02", "--optimizer.momentum=0.9"),
        *("--optimizer.constraint=distance_shell", "--optimizer.radius=[0.5, 2.0]"),
        *("--optimizer.reference_dtype=torch.bfloat16", "--optimizer.nesterov=true"),
    )
    group = opt.param_groups[0]
    assert type(opt) is D3FusedSGD
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.02, 0.9, True)
    assert (group["constraint"], group["radius"]) == ("distance_shell", (0.5, 2.0))
    assert group["reference_dtype"] == torch.bfloat16
    assert list(opt.distances()) == [0, 2]


@pytest.mark.parametrize(("track", "tracked"), [("all", [0, 1, 2, 3]), ("[2]", [2])])
def test_track_without_names(fit, track, tracked):
    opt = fit(Repair, "--optimizer=d3fast.D3FusedSGD", f"--optimizer.track={track}")
    assert list(opt.distances()) == tracked


def test_a_choice_by_name_says_that_it_needs_names(fit):
    with pytest.raises(ValueError, match="track='head' needs names"):
        fit(Repair, "--optimizer=d3fast.D3FusedSGD", "--optimizer.track=head")


@pytest.mark.parametrize(
    ("track", "tracked"), [("head", ["2.weight"]), (r"^0\.", ["0.weight", "0.bias"])]
)
def test_a_function_given_to_the_module_tracks_by_name(fit, track, tracked):
    opt = fit(
        NamedRepair,
        *("--model.optimizer=d3fast.D3FusedSGD", "--model.optimizer.lr=0.02"),
        f"--model.optimizer.track={track}",
    )
    assert opt.param_groups[0]["lr"] == 0.02
    assert list(opt.distances()) == tracked


CONFIG = """
trainer:
  callbacks:
    - class_path: d3fast.integrations.lightning.D3Callback
      dict_kwargs:
        warm_start: noise
model:
  optimizer:
    class_path: d3fast.D3FusedSGD
    init_args:
      lr: 0.02
      momentum: 0.9
      track: head
"""


def test_a_file_brings_optimizer_and_callback(fit, tmp_path):
    (tmp_path / "repair.yaml").write_text(CONFIG)
    opt = fit(NamedRepair, "--config=repair.yaml")
    assert opt.param_groups[0]["momentum"] == 0.9
    (distance,) = opt.distances().values()
    assert float(distance) > 0.1  # the warm start


def test_a_scheduler_by_class_path_drives_it(fit):
    opt = fit(
        Repair,
        *("--optimizer=d3fast.D3FusedSGD", "--optimizer.lr=0.02"),
        *("--lr_scheduler=torch.optim.lr_scheduler.ExponentialLR", "--lr_scheduler.gamma=0.5"),
    )
    assert opt.param_groups[0]["lr"] == 0.01


def test_an_option_out_of_range_is_refused_with_its_value(fit):
    with pytest.raises(ValueError, match=r"distance_p must be finite and >= 1, got 0\.5"):
        fit(Repair, "--optimizer=d3fast.D3FusedSGD", "--optimizer.distance_p=0.5")
