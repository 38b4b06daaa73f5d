# SPDX-License-Identifier: Apache-2.0
"""Models of transformers whose ``Trainer`` is given an optimizer and a loss, and no callback."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import d3fast
from d3fast import CleanLoss, D3FusedSGD

pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
pytest.importorskip("accelerate", reason="needs the extra d3fast[transformers]")

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from d3fast.integrations.transformers import clean_metrics, loss_func, next_token_metrics

# The trainer warns about pinned memory and its own future.
pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLP = r"\.mlp\.(gate|up|down)_proj\.weight$"


def classifier(seed=0, **options):
    torch.manual_seed(seed)
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**SIZES, **quiet, num_labels=3, **options))


def language_model(seed=0, **options):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **options))


def sentences(count=24, length=8):
    """Token rows; a sentence's first token is its class."""
    g = torch.Generator().manual_seed(5)
    rows = torch.randint(3, 40, (count, length), generator=g)
    rows[:, 0] = torch.randint(3, 6, (count,), generator=g)
    return rows


def classes():
    return [{"input_ids": row, "labels": row[0] - 3} for row in sentences()]


def texts():
    """Sentences whose first tokens, more of them from one to the next, are only given."""
    rows = []
    for i, row in enumerate(sentences()):
        labels = row.clone()
        labels[: 1 + i % 5] = -100
        rows.append({"input_ids": row, "labels": labels})
    return rows


def optimizer(model, track="head", **options):
    opt = D3FusedSGD(d3fast.param_groups(model, track), lr=0.05, momentum=0.9, **options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(1))
    return opt


def train(
    model,
    opt,
    data,
    folder,
    loss=None,
    scheduler=None,
    resume=None,
    epochs=2,
    plus=None,
    **arguments,
):
    arguments = {"per_device_train_batch_size": 6, "save_strategy": "no", **arguments}
    trainer = Trainer(
        model,
        TrainingArguments(
            folder,
            num_train_epochs=epochs,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            lr_scheduler_type="constant",
            **arguments,
        ),
        train_dataset=data,
        optimizers=(opt, scheduler),
        compute_loss_func=loss_func(loss or CleanLoss(0.1, 2.0), plus=plus),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def by_hand(model, opt, data, loss, batch, epochs=2):
    """The same steps in a loop of one's own, in the order of the data."""
    model.train()
    for _ in range(epochs):
        for start in range(0, len(data), batch):
            part = data[start : start + batch]
            opt.zero_grad()
            inputs, labels = (torch.stack([d[k] for d in part]) for k in ("input_ids", "labels"))
            loss(model(input_ids=inputs).logits, labels).backward()
            opt.step()
    return model


def test_a_swapped_optimizer_and_loss_take_the_steps_of_a_loop_by_hand(tmp_path):
    model, twin = classifier(), classifier()
    loss = CleanLoss(0.1, 2.0)
    options = {"train_sampling_strategy": "sequential", "max_grad_norm": 0.0}
    train(model, optimizer(model), classes(), tmp_path, loss, **options)
    by_hand(twin, optimizer(twin), classes(), loss, 6)
    torch.testing.assert_close(weights(model), weights(twin))


def test_a_scheduler_of_ones_own_moves_the_learning_rate(tmp_path):
    model = classifier()
    opt = optimizer(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.5**step)
    train(model, opt, classes(), tmp_path, scheduler=scheduler, epochs=1)
    assert opt.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5**4)


def test_under_bf16_autocast_weights_and_reference_stay_in_float32(tmp_path):
    model = classifier()
    opt = optimizer(model)
    before = float(opt.total_distance())
    train(model, opt, classes(), tmp_path, bf16=True)
    head = model.classifier.weight
    assert (head.dtype, opt.state[head]["reference"].dtype) == (torch.float32, torch.float32)
    assert before != float(opt.total_distance()) > 0
    torch.testing.assert_close(head.norm(), opt.state[head]["reference"].norm())


def test_a_model_in_bf16_keeps_its_remainder(tmp_path):
    model = classifier().to(torch.bfloat16)
    opt = optimizer(model, backend="reference")
    train(model, opt, classes(), tmp_path)
    state = opt.state[model.classifier.weight]
    assert state["compensation"].dtype == torch.bfloat16
    assert state["compensation"].any()


def test_clipping_limits_the_loss_and_not_the_push(tmp_path):
    model = classifier()
    opt = optimizer(model, distance_weight=1.0, constraint=None)
    start, distance = weights(model), opt.total_distance()
    train(model, opt, classes(), tmp_path, max_grad_norm=1e-9, epochs=1)
    for (name, after), before in zip(model.named_parameters(), start, strict=True):
        if name != "classifier.weight":
            torch.testing.assert_close(after, before, atol=1e-8, rtol=0)
    # Four steps along the push alone, of length lr each, with momentum 0.9.
    assert float(opt.total_distance() - distance) == pytest.approx(0.05 * 9.049, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"momentum_dtype": torch.float64}])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(options, tmp_path):
    options = {**options, "backend": "reference"}
    saving = {"save_strategy": "steps", "save_steps": 3, "epochs": 2}
    whole = classifier()
    train(whole, optimizer(whole, **options), classes(), tmp_path, **saving)
    again = classifier(seed=9)  # other weights: those of the checkpoint count
    opt = optimizer(again, **options)
    train(again, opt, classes(), tmp_path, resume=f"{tmp_path}/checkpoint-3", **saving)
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))
    head = classifier().classifier.weight
    assert torch.equal(opt.state[again.classifier.weight]["reference"], head)


@pytest.mark.parametrize(("batch", "accumulated"), [(3, 4), (4, 3)])
def test_accumulated_batches_weigh_every_token_alike(batch, accumulated, tmp_path):
    options = {"train_sampling_strategy": "sequential", "epochs": 1}
    heads = []
    for size, count in ((12, 1), (batch, accumulated)):
        model = language_model()
        options["per_device_train_batch_size"] = size
        options["gradient_accumulation_steps"] = count
        train(model, optimizer(model, MLP), texts(), tmp_path, **options)
        heads.append(weights(model))
    torch.testing.assert_close(*heads)


def test_a_further_term_is_added_once_per_step_however_batches_are_accumulated(tmp_path):
    options = {"train_sampling_strategy": "sequential", "epochs": 1, "max_grad_norm": 0.0}
    heads = []
    for size, count in ((12, 1), (4, 3)):
        model = language_model()
        term = lambda head=model.lm_head.weight: 0.1 * head.square().sum()  # noqa: E731
        options["per_device_train_batch_size"] = size
        options["gradient_accumulation_steps"] = count
        train(model, optimizer(model, MLP), texts(), tmp_path, plus=term, **options)
        heads.append(weights(model))
    torch.testing.assert_close(*heads)


def test_a_causal_language_model_is_held_against_its_next_tokens(tmp_path):
    model, twin = language_model(), language_model()
    options = {"train_sampling_strategy": "sequential", "max_grad_norm": 0.0}
    train(model, optimizer(model, MLP), texts(), tmp_path, CleanLoss(2.0, 3.0), **options)

    def hinge(logits, labels):
        each = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
        return 3.0 * torch.relu(each - 2.0)[labels[:, 1:] != -100].mean()

    by_hand(twin, optimizer(twin, MLP), texts(), hinge, 6)
    torch.testing.assert_close(weights(model), weights(twin))


def test_without_a_hinge_the_loss_is_the_models_own(tmp_path):
    model = language_model()
    batch = {k: torch.stack([d[k] for d in texts()]) for k in ("input_ids", "labels")}
    got = loss_func(CleanLoss(0.0, 1.0))(model(batch["input_ids"]), batch["labels"])
    torch.testing.assert_close(got, model(**batch).loss)


def test_other_token_labels_are_held_against_their_own_token():
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SIZES)).eval()
    batch = {k: torch.stack([d[k] for d in texts()]) for k in ("input_ids", "labels")}
    got = loss_func(CleanLoss(0.0, 1.0))(model(batch["input_ids"]), batch["labels"])
    torch.testing.assert_close(got, model(**batch).loss)


@pytest.mark.parametrize("shift", [True, False])
def test_shift_decides_where_the_output_does_not_say(shift):
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, 4], [0, 1, 2, 3]])
    plain = CleanLoss(0.0, 1.0)
    for outputs in ({"logits": logits}, (logits,)):
        with pytest.raises(ValueError, match=r"loss_func\(shift=True\)"):
            loss_func(plain)(outputs, labels)
        got = loss_func(plain, shift=shift)(outputs, labels)
        pairs = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
        torch.testing.assert_close(got, cross_entropy(pairs[0].transpose(1, 2), pairs[1]))


@pytest.mark.parametrize("labels", [None, torch.rand(2, 3)])
def test_labels_that_are_no_class_indices_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be class indices, got"):
        loss_func(CleanLoss())({"logits": torch.zeros(2, 3)}, labels)


def test_metrics_of_tokens_leave_out_what_is_ignored():
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, -100, 4], [0, -100, 2, 3]])
    given = type("Prediction", (), {"predictions": logits.numpy(), "label_ids": labels.numpy()})()
    for metrics, scores, held in (
        (clean_metrics, logits, labels),
        (next_token_metrics, logits[:, :-1], labels[:, 1:]),
    ):
        want = cross_entropy(scores.transpose(1, 2), held)
        hits = (scores.argmax(2) == held)[held != -100].double().mean()
        assert metrics(given) == {
            "accuracy": pytest.approx(float(hits)),
            "cross_entropy": pytest.approx(float(want), rel=1e-5),
        }
