# SPDX-License-Identifier: Apache-2.0
"""Audit a backdoored image classifier and repair it with clean samples only."""

# %% The attacker's side: train a digit classifier with a backdoor, write its weights.
import tempfile
from pathlib import Path

import d3fast
from d3fast.attacks import TrainConfig, recipe, train_backdoored
from d3fast.data import save_samples
from d3fast.detox import repair_samples, save_weights
from d3fast.hub import Request

folder = Path(tempfile.mkdtemp())
splits = d3fast.data.load("digits", seed=0, clean=260)
attack = recipe("badnets", "digits")  # a white 2x2 patch makes every digit a 0
model = d3fast.models.make_model("preact_resnet_narrow", num_classes=10, in_channels=1)
train_backdoored(model, splits.train, attack, config=TrainConfig(epochs=10), progress=False)
save_weights(model, folder / "suspect.safetensors")

# %% The defender's side: a file of weights, and 260 samples that are known to be clean.
save_samples(splits.clean, folder / "clean.npz")
suspect = Request("preact_resnet_narrow", folder / "suspect.safetensors")
audit = d3fast.open_audit(suspect, folder / "clean.npz")

# %% Audit: no trigger is needed. An audit without a flag would not show that the model is clean.
inspection = d3fast.inspect_model(audit.model, audit.data, progress=False)
print(inspection.verdict.text)

# %% Repair: one sample in four is held out, to decide when to stop.
repair, held_out = audit.parts()
result = d3fast.detoxify(
    audit.model,
    repair_samples(repair).loader,
    d3fast.D3Config.auto(),
    held_out.batches(256),
    progress=False,
)
result.save(folder / "repaired.safetensors")

# %% Only the attacker can measure the attack success rate.
for name, candidate in (("suspect", audit.model), ("repaired", result.model)):
    metrics = d3fast.evaluate(candidate, splits.test.batches(256), attack)
    print(f"{name:9} ACC {metrics.acc:6.1%}  ASR {metrics.asr:6.1%}  RA {metrics.ra:6.1%}")
