"""The Hugging Face Trainer builds ``D3FusedSGD`` from a class and its arguments."""

import pytest
import torch
from torch import nn

import d3fast
from d3fast import CleanLoss, D3FusedSGD

pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
pytest.importorskip("accelerate", reason="needs the extra d3fast[transformers]")

from transformers import Trainer, TrainingArguments

from d3fast.integrations.transformers import D3Callback, loss_func

# The trainer warns about pinned memory and its own future.
pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN = {"distance_weight": 0.0, "constraint": None}


class Named(nn.Module):
    """A classifier with named inputs and outputs; layer norm, as in a transformer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 3))

    def forward(self, pixels, labels=None):
        return {"logits": self.layers(pixels)}


@pytest.fixture
def made(tmp_path, clean, forget_accelerators):
    def make(optimizer, model=None, **arguments):
        forget_accelerators()
        model = model or Named()
        return Trainer(
            model,
            TrainingArguments(
                tmp_path,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                per_device_train_batch_size=24,
                **{"num_train_epochs": 1, "save_strategy": "no", **arguments},
            ),
            train_dataset=[{"pixels": image, "labels": label} for image, label in clean[0]],
            optimizer_cls_and_kwargs=optimizer,
            compute_loss_func=loss_func(CleanLoss(0.1, 2.0)),
        )

    return make


def built(trainer):
    """Return the optimizer that a training built; accelerate wraps it."""
    trainer.train()
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def test_a_class_with_arguments_takes_the_trainers_groups(made):
    opt = built(made((D3FusedSGD, {"lr": 0.02, "momentum": 0.9}), weight_decay=0.1))
    assert type(opt) is D3FusedSGD
    decays = [(g["weight_decay"], len(g["params"])) for g in opt.param_groups]
    assert decays == [(0.1, 2), (0.0, 4)]
    assert {g["initial_lr"] for g in opt.param_groups} == {0.02}
    assert list(opt.distances()) == [0, 1]  # the matrices
    assert float(opt.total_distance()) > 0


def test_groups_of_the_head_replace_those_of_the_trainer(made):
    model = Named()
    groups = d3fast.param_groups(model, track="head")
    opt = built(made((D3FusedSGD, {"params": groups, "lr": 0.02}), model))
    assert list(opt.distances()) == ["layers.2.weight"]


def test_named_parameters_replace_the_groups_of_the_trainer(made):
    model = Named()
    named = list(model.named_parameters())
    opt = built(made((D3FusedSGD, {"params": named, "lr": 0.02, "track": "linear"}), model))
    assert list(opt.distances()) == ["layers.0.weight", "layers.2.weight"]


def test_a_choice_by_name_says_that_it_needs_names(made):
    with pytest.raises(ValueError, match="track='head' needs"):
        made((D3FusedSGD, {"lr": 0.02, "track": "head"})).train()


def test_the_callback_takes_the_warm_start(made):
    model = Named()
    groups = d3fast.param_groups(model, track="head")
    before = model.layers[2].weight.detach().clone()
    trainer = made((D3FusedSGD, {"params": groups, "lr": 0.0}), model)
    trainer.add_callback(D3Callback(trainer, warm_start="far"))
    opt = built(trainer)
    torch.testing.assert_close(model.layers[2].weight, -before)
    torch.testing.assert_close(opt.total_distance(), 2 * before.norm())


def test_a_plain_training_is_that_of_torchs_sgd(made):
    trained = []
    for optimizer in (
        (D3FusedSGD, {"lr": 0.02, "momentum": 0.9, **PLAIN}),
        (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9}),
    ):
        model = Named()
        made(optimizer, model, weight_decay=0.1, max_grad_norm=0.5).train()
        trained.append([p.detach() for p in model.parameters()])
    for got, want in zip(*trained, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_training_is_resumed_from_its_checkpoint(made, tmp_path):
    def model_after(epochs, resume=None):
        model = Named()
        optimizer = (D3FusedSGD, {"lr": 0.02, "momentum": 0.9})
        trainer = made(
            optimizer,
            model,
            num_train_epochs=epochs,
            save_strategy="epoch",
            lr_scheduler_type="constant",
        )
        trainer.train(resume_from_checkpoint=resume)
        return [p.detach().clone() for p in model.parameters()]

    want = model_after(2)
    got = model_after(2, resume=str(tmp_path / "checkpoint-4"))
    assert all(map(torch.equal, got, want))
