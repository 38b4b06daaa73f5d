# SPDX-License-Identifier: Apache-2.0
"""Use D3 in the Hugging Face Trainer, on a small vision transformer. Nothing is downloaded."""

# %% Needs the extra d3fast[transformers].
import sys
import tempfile

try:
    from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
except ImportError:
    sys.exit("skipped: pip install 'd3fast[transformers]'")

import torch

import d3fast
from d3fast.integrations.transformers import D3Callback, clean_metrics, loss_func

# %% A classifier that is already trained, the suspect, and clean samples for the Trainer.
torch.manual_seed(0)
splits = d3fast.data.load("digits", seed=0, clean=400)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
config = ViTConfig(
    **sizes, num_attention_heads=2, image_size=8, patch_size=2, num_channels=1, num_labels=10
)
model = ViTForImageClassification(config)
adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(15):
    for images, labels in splits.train.batches(64, torch.Generator().manual_seed(0)):
        adam.zero_grad()
        model(images, labels=labels).loss.backward()
        adam.step()


def dataset(data):
    """Return a list of samples with the names that the model's forward takes."""
    ((images, labels),) = data.batches(len(data))
    return [
        {"pixel_values": image, "labels": label}
        for image, label in zip(images, labels, strict=True)
    ]


# %% Optimizer, loss and callback. The Trainer clips gradients unless max_grad_norm is 0.
loss = d3fast.CleanLoss(epsilon=0.1, weight=0.5)
opt = d3fast.D3FusedSGD(d3fast.param_groups(model), lr=0.05, momentum=0.9)
arguments = TrainingArguments(
    tempfile.mkdtemp(),
    num_train_epochs=15,
    per_device_train_batch_size=32,
    eval_strategy="epoch",
    logging_strategy="epoch",
    max_grad_norm=0.0,
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=dataset(splits.clean),
    eval_dataset=dataset(splits.test),
    optimizers=(opt, None),
    compute_loss_func=loss_func(loss),
    compute_metrics=clean_metrics,
)
trainer.add_callback(D3Callback(trainer, loss, dual_step=0.1))
trainer.train()
print(f"distance of the head: {float(opt.total_distance()):.3f}")
