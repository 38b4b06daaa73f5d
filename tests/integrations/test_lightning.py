"""``D3Callback`` in real trainings by Lightning."""

import csv
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import d3fast
from d3fast import CleanLoss, D3Config, D3FusedSGD, detoxify
from d3fast.optim.schedules import DistanceSchedule

pytest.importorskip("lightning", reason="needs the extra d3fast[lightning]")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from d3fast.integrations.lightning import D3Callback

# Lightning warns about few workers, short epochs and missing loggers.
pytestmark = pytest.mark.filterwarnings("ignore")

RAMP = partial(DistanceSchedule, start=0.0, steps=3)
EVERYTHING = {"schedule": RAMP, "dual_step": 2.0, "max_acc_drop": 60.0}


class Suspect(LightningModule):
    def __init__(self, model, optimizer=None, weight=2.0):
        super().__init__()
        self.model, self.loss = model, CleanLoss(0.1, weight)
        self.make = optimizer or (
            lambda model: D3FusedSGD(d3fast.param_groups(model), lr=0.05, momentum=0.9)
        )

    def training_step(self, batch):
        return self.loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch):
        logits = self.model(batch[0])
        self.log("val_loss", cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return self.make(self.model)


class Ladder(D3Callback):
    """Notes the weights before the first step, and lambda after every epoch."""

    first = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.first is None:
            self.first = [p.detach().clone() for p in pl_module.model.parameters()]


@pytest.fixture
def fit(tmp_path, clean):
    def run(module, callback, epochs, resume=None, validate=True, more=(), **options):
        options = {"logger": False, "enable_checkpointing": bool(more), **options}
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[callback, *more],
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        val = DataLoader(clean[1], batch_size=48) if validate else None
        trainer.fit(module, DataLoader(clean[0], batch_size=24), val, ckpt_path=resume)
        return trainer

    return run


def test_a_training_is_detoxify_bit_for_bit(suspect, clean, fit, same_weights):
    config = D3Config.authors(epochs=3, lr=0.05, schedule="constant", seed=3)
    want = detoxify(suspect(), DataLoader(clean[0], batch_size=24), config, progress=False)
    module = Suspect(suspect(), weight=0.5)
    fit(module, D3Callback(seed=3), 3)
    assert same_weights(module.model, want.model)


def test_distances_and_schedule_are_in_the_trainers_log(suspect, fit, tmp_path):
    fit(
        Suspect(suspect()),
        D3Callback(schedule=RAMP),
        4,
        logger=CSVLogger(tmp_path, "log", version=0),
    )
    rows = list(csv.DictReader((tmp_path / "log/version_0/metrics.csv").open()))
    weights = [float(r["d3/distance_weight"]) for r in rows if r["d3/distance_weight"]]
    assert weights == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    for row in (r for r in rows if r["d3/distance"]):
        assert float(row["d3/distance"]) == float(row["d3/distance/2.weight"]) > 0


@pytest.mark.parametrize("hook", ["validation_end", "train_epoch_end"])
@pytest.mark.parametrize("kept", [0, 2])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    hook, kept, suspect, fit, tmp_path, same_weights
):
    def saver():
        return ModelCheckpoint(
            tmp_path / hook, "{epoch}", save_top_k=-1, save_on_train_epoch_end=hook[0] == "t"
        )

    whole, callback = Suspect(suspect()), D3Callback(**EVERYTHING)
    fit(whole, callback, 5, more=[saver()])
    resumed, again = Suspect(suspect()), D3Callback(**EVERYTHING)
    fit(resumed, again, 5, resume=tmp_path / hook / f"epoch={kept}.ckpt")
    assert same_weights(resumed.model, whole.model)
    assert again.state_dict() == callback.state_dict()
    assert whole.loss.weight != 2.0


def test_the_warm_start_is_before_the_first_step_and_not_on_resume(suspect, fit, tmp_path):
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    first = Ladder(warm_start="middle")
    fit(Suspect(suspect()), first, 1, more=[saver])
    assert not first.first[2].any()
    second = Ladder(warm_start="middle")
    fit(Suspect(suspect()), second, 2, resume=tmp_path / "epoch=0.ckpt")
    assert second.first[2].any()


def test_the_suspects_own_accuracy_is_that_of_the_whole_validation_set(suspect, clean, fit):
    callback, model = D3Callback(max_acc_drop=90.0), suspect()
    images, labels = clean[1].tensors
    want = float((model(images).argmax(1) == labels).double().mean())
    fit(Suspect(model), callback, 1)
    assert callback.repair.suspect_acc == pytest.approx(want)


def test_leaving_the_accuracy_budget_stops(suspect, fit):
    # Nothing pushes in the first epoch, everything in the second.
    ramp = partial(DistanceSchedule, start=0.0, end=500.0, steps=1)
    callback = D3Callback(warm_start="near", max_acc_drop=5.0, schedule=ramp)
    trainer = fit(Suspect(suspect()), callback, 10)
    assert trainer.current_epoch == 2


def test_an_optimizer_that_is_no_d3_is_refused(suspect, fit):
    module = Suspect(suspect(), lambda m: torch.optim.SGD(m.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="D3FusedSGD or D3FusedAdamW, got SGD"):
        fit(module, D3Callback(), 1)


@pytest.mark.parametrize("options", [{"dual_step": 1.0}, {"max_acc_drop": 1.0}])
def test_what_needs_validation_is_refused_without(options, suspect, fit):
    with pytest.raises(ValueError, match="need validation data, fit has none"):
        fit(Suspect(suspect()), D3Callback(**options), 1, validate=False)


def test_two_clean_losses_need_one_to_be_named(suspect, fit):
    module = Suspect(suspect())
    module.other = CleanLoss()
    with pytest.raises(ValueError, match="has 2 CleanLoss"):
        fit(module, D3Callback(), 1)
    fit(module, D3Callback(module.loss), 1)
