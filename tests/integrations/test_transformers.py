"""``D3Callback`` in real trainings by the Hugging Face Trainer."""

from functools import partial

import pytest
import torch
from torch import nn

import d3fast
from d3fast import CleanLoss, D3Config, D3FusedSGD, detoxify
from d3fast.optim.schedules import DistanceSchedule

pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
pytest.importorskip("accelerate", reason="needs the extra d3fast[transformers]")

from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from d3fast.integrations.transformers import D3Callback, clean_metrics, loss_func

# The trainer warns about pinned memory and its own future.
pytestmark = pytest.mark.filterwarnings("ignore")

RAMP = partial(DistanceSchedule, start=0.0, steps=3)
EVERYTHING = {"schedule": RAMP, "dual_step": 2.0, "max_acc_drop": 60.0}


class Wrapped(nn.Module):
    """A classifier as the trainer wants it: named inputs, named outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return {"logits": self.model(pixels)}


def collate(pairs):
    images, labels = zip(*pairs, strict=True)
    return {"pixels": torch.stack(images), "labels": torch.stack(labels)}


@pytest.fixture
def made(tmp_path, clean):
    def make(model, epochs, loss=None, optimizer=None, options=None, **arguments):
        loss = loss or CleanLoss(0.1, 2.0)
        wrapped = Wrapped(model)
        groups = d3fast.param_groups(wrapped)
        optimizer = optimizer or D3FusedSGD(groups, lr=0.05, momentum=0.9)
        arguments = {"eval_strategy": "epoch", "save_strategy": "no", **arguments}
        trainer = Trainer(
            wrapped,
            TrainingArguments(
                tmp_path,
                num_train_epochs=epochs,
                per_device_train_batch_size=24,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                max_grad_norm=0.0,
                lr_scheduler_type="constant",
                remove_unused_columns=False,
                label_names=["labels"],
                **arguments,
            ),
            train_dataset=clean[0],
            eval_dataset=clean[1],
            data_collator=collate,
            compute_loss_func=loss_func(loss),
            compute_metrics=clean_metrics,
            optimizers=(optimizer, None),
        )
        callback = D3Callback(trainer, loss, **(options or {}))
        trainer.add_callback(callback)
        return trainer, callback

    return make


class FirstWeights(TrainerCallback):
    """Notes the head before the first step of this training."""

    head = None

    def on_step_begin(self, args, state, control, model, **kwargs):
        if self.head is None:
            self.head = model.model[2].weight.detach().clone()


def test_a_training_is_detoxify_bit_for_bit(suspect, clean, made, same_weights):
    trainer, _ = made(suspect(), 3, CleanLoss(0.1, 0.5), options={"seed": 3})
    seen = []
    trainer.data_collator = lambda pairs: seen.append(collate(pairs)) or seen[-1]
    trainer.args.eval_strategy = "no"
    trainer.train()
    config = D3Config.authors(epochs=3, lr=0.05, schedule="constant", seed=3)
    batches = iter([(b["pixels"], b["labels"]) for b in seen])
    epochs = type("Epochs", (), {"__iter__": lambda self: (next(batches) for _ in range(4))})()
    want = detoxify(suspect(), epochs, config, progress=False)
    assert same_weights(trainer.model.model, want.model)


def test_distances_and_schedule_are_in_the_trainers_log(suspect, made):
    trainer, _ = made(suspect(), 4, options={"schedule": RAMP})
    trainer.train()
    rows = [row for row in trainer.state.log_history if "d3/distance" in row]
    assert [row["d3/distance_weight"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert all(row["d3/distance"] == row["d3/distance/model.2.weight"] > 0 for row in rows)


@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    restore, suspect, made, tmp_path, same_weights
):
    saving = {
        "save_strategy": "steps",
        "save_steps": 2,
        "restore_callback_states_from_checkpoint": restore,
    }
    whole, callback = made(suspect(), 5, loss := CleanLoss(0.1, 2.0), options=EVERYTHING, **saving)
    whole.train()
    assert loss.weight != 2.0
    # Four steps make an epoch. A resumed training writes the later checkpoints anew.
    for step in (8, 6, 4):
        resumed, again = made(suspect(), 5, options=EVERYTHING, **saving)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert same_weights(resumed.model, whole.model)
        assert again.repair.state_dict() == callback.repair.state_dict()


def test_the_warm_start_is_before_the_first_step_and_not_on_resume(suspect, made, tmp_path):
    first, _ = made(suspect(), 1, options={"warm_start": "middle"}, save_strategy="epoch")
    first.add_callback(noted := FirstWeights())
    first.train()
    assert not noted.head.any()
    second, _ = made(suspect(), 2, options={"warm_start": "middle"})
    second.add_callback(noted := FirstWeights())
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert noted.head.any()


def test_the_suspects_own_accuracy_is_measured_before_the_warm_start(suspect, clean, made):
    trainer, callback = made(suspect(), 1, options={"max_acc_drop": 90.0})
    images, labels = clean[1].tensors
    want = float((trainer.model(images)["logits"].argmax(1) == labels).double().mean())
    trainer.train()
    assert callback.repair.suspect_acc == pytest.approx(want)


def test_leaving_the_accuracy_budget_stops(suspect, made):
    # Nothing pushes in the first epoch, everything in the second.
    ramp = partial(DistanceSchedule, start=0.0, end=500.0, steps=1)
    options = {"warm_start": "near", "max_acc_drop": 5.0, "schedule": ramp}
    trainer, _ = made(suspect(), 10, options=options)
    trainer.train()
    assert trainer.state.epoch == 2


def test_evaluating_outside_a_training_moves_no_lambda(suspect, made):
    trainer, _ = made(suspect(), 1, loss := CleanLoss(0.1, 2.0), options={"dual_step": 2.0})
    trainer.evaluate()
    assert loss.weight == 2.0
    trainer.train()
    after = loss.weight
    assert after != 2.0
    trainer.evaluate()
    assert loss.weight == after


def test_accumulated_batches_weigh_every_sample_alike(suspect, made, clean):
    heads = []
    for batch, accumulated in ((24, 2), (48, 1)):
        trainer, _ = made(suspect(), 1, gradient_accumulation_steps=accumulated)
        trainer.args.per_device_train_batch_size = batch
        trainer.args.eval_strategy = "no"
        trainer._train_batch_size = batch
        trainer.train()
        heads.append(trainer.model.model[2].weight.detach())
    torch.testing.assert_close(*heads)


def test_a_model_of_the_library_is_repaired_by_its_classifier(clean, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"embedding_size": 4, "hidden_sizes": [8], "depths": [1], "num_channels": 1}
        model = ResNetForImageClassification(ResNetConfig(**sizes, num_labels=3))
    opt = D3FusedSGD(d3fast.param_groups(model), lr=0.01, momentum=0.9)
    data = [{"pixel_values": image.view(1, 2, 4), "labels": label} for image, label in clean[0]]
    trainer = Trainer(
        model,
        TrainingArguments(
            tmp_path,
            num_train_epochs=2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            eval_strategy="epoch",
            save_strategy="no",
        ),
        train_dataset=data,
        eval_dataset=data,
        optimizers=(opt, None),
        compute_loss_func=loss_func(loss := CleanLoss()),
        compute_metrics=clean_metrics,
    )
    trainer.add_callback(D3Callback(trainer, loss, dual_step=0.1, max_acc_drop=5.0))
    trainer.train()
    last = [row for row in trainer.state.log_history if "d3/distance" in row][-1]
    assert last["d3/distance/classifier.1.weight"] > 0
    assert loss.weight != 10.0


def test_metrics_are_shares_and_nats():
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    given = type("Prediction", (), {"predictions": logits.numpy(), "label_ids": labels.numpy()})()
    got = clean_metrics(given)
    want = nn.functional.cross_entropy(logits, labels)
    assert got == {"accuracy": 0.5, "cross_entropy": pytest.approx(float(want))}


def test_an_optimizer_that_is_no_d3_is_refused(suspect, made):
    model = suspect()
    trainer, _ = made(model, 1, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="D3FusedSGD or D3FusedAdamW, got SGD"):
        trainer.train()


@pytest.mark.parametrize("options", [{"dual_step": 1.0}, {"max_acc_drop": 1.0}])
def test_what_needs_validation_is_refused_without(options, suspect, made):
    trainer, _ = made(suspect(), 1, options=options, eval_strategy="no")
    with pytest.raises(ValueError, match="need eval_strategy='epoch' or 'steps'"):
        trainer.train()
