"""Quick instances of all defences, and in what they differ from the rest."""

import atexit
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from d3fast import D3Config
from d3fast.audit.inversion import InversionOptions
from d3fast.defenses import DEFENSES
from d3fast.defenses.bti_dbf import InversionByFeatures
from d3fast.testing import DefenseCase
from d3fast.testing.toys import conv_model


def _write_base():
    """A file with another model of the same architecture, removed when Python ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    other = {
        name: 0.5 * t if t.is_floating_point() else t
        for name, t in conv_model().state_dict().items()
    }
    save_file(other, folder / "base.safetensors")
    return str(folder / "base.safetensors")


INVERSION = InversionByFeatures(mask_steps=3, steps=3)

# Options that must be refused; the error names option and value.
NAN = float("nan")
SGD = {"epochs": [0], "seed": [-1], "lr": [-1.0], "momentum": [NAN], "max_grad_norm": [-1.0]}
INVALID = {
    "fine-tuning": {**SGD, "weight_decay": [float("inf")]},
    "fine-pruning": {**SGD, "max_acc_drop": [-0.1, 10], "step": [0.0, 1.5]},
    "nad": {**SGD, "teacher_epochs": [0], "decay_epoch": [0], "betas": [()], "layers": [("a",)]},
    "neural-cleanse": {**SGD, "stamped": [0.0, 1.5], "threshold": [NAN]},
    "anp": {
        "eps": [-0.1],
        "alpha": [1.5],
        "max_acc_drop": [2.0],
        "lr": [NAN],
        "inner_steps": [0],
        "steps": [0],
        "seed": [-1],
    },
    "ft-sam": {**SGD, "rho": [-0.5, NAN], "label_smoothing": [1.5, -0.1]},
    "i-bau": {
        "rounds": [0],
        "iterations": [0],
        "radius": [-1.0],
        "ascent_steps": [0],
        "share": [0.0, 1.5],
        "seed": [-1],
    },
    "sau": {"epochs": [0], "steps": [0], "radius": [-0.2], "shared_weight": [NAN], "seed": [-1]},
    "fst": {**SGD, "alpha": [-0.1], "averaging": [1.5], "distillation": [1.0, -0.1]},
    "tsbd": {
        **SGD,
        "unlearn_epochs": [0],
        "neurons": [1.5, -0.1],
        "weights": [NAN],
        "radius": [-1.0],
        "share": [1.5],
    },
    "tsc": {**SGD, "rounds": [0], "point": [1.5, NAN]},
    "fine-mixing": {**SGD, "reserve": [1.5, -0.1], "purified": [-1]},
    "bti-dbf": {**SGD, "every": [0]},
    "pam": {**SGD, "rho": [-0.5], "share": [0.0, 1.5]},
    "d3": {},  # takes a configuration, which is tested in tests/detox
}

# Options of two epochs, with thresholds at which something is pruned or unlearned.
OPTIONS = {
    "fine-tuning": {"epochs": 2},
    "fine-pruning": {"epochs": 2, "max_acc_drop": 1.0, "step": 0.2},
    "nad": {"epochs": 2, "teacher_epochs": 1},
    "neural-cleanse": {
        "epochs": 2,
        "threshold": 0.0,
        "inversion": InversionOptions(steps=20, batch_size=6),
    },
    "anp": {"steps": 4, "max_acc_drop": 1.0},
    "ft-sam": {"epochs": 2},
    "i-bau": {"rounds": 2},
    "sau": {"epochs": 2},
    "fst": {"epochs": 2},
    "tsbd": {"epochs": 2, "unlearn_epochs": 1},
    "tsc": {"epochs": 1, "rounds": 1},
    "fine-mixing": {"epochs": 2, "base": _write_base()},
    "bti-dbf": {"epochs": 2, "inversion": INVERSION},
    "pam": {"epochs": 2, "inversion": INVERSION},
    "d3": {"config": D3Config(epochs=2)},
}

# Exceptions to the contract.
EXCEPTIONS = {
    # Pruning is no training: a channel goes, frozen or not. One pass finds the activity.
    "fine-pruning": {"needs_held_out": True, "changes_frozen": True, "other_passes": 1},
    # Masks are no model before the threshold is chosen. One pass counts the batches.
    "anp": {"needs_held_out": True, "records_accuracy": False, "other_passes": 1},
    "nad": {"other_passes": 2},  # a batch to find the layers, one epoch of the teacher
    "neural-cleanse": {"other_passes": 1},  # images that patches are searched on
    "tsbd": {"other_passes": 1},  # the unlearning
    # Statistics of batch norm at a point of either curve, which leads to a permuted copy.
    "tsc": {"other_passes": 2, "moves_without_steps": True},
    "fine-mixing": {"moves_without_steps": True},  # weights return to the base
    "bti-dbf": {"other_passes": 1},  # images that triggers are inverted on
    "pam": {"other_passes": 1},  # images that triggers are inverted on
}

CASES = {
    name: DefenseCase(
        DEFENSES[name], OPTIONS[name], invalid=INVALID[name], **EXCEPTIONS.get(name, {})
    )
    for name in OPTIONS
}
SHORT = {name: case.quick() for name, case in CASES.items()}
