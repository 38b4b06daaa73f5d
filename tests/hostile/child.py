"""Runs cases of the corpus in a process of its own, where memory and time are bounded.

``python -m tests.hostile.child FOLDER [GROUP [FIRST]]`` writes one line of JSON per case: what was
raised and how it prints, seconds of CPU, how far the peak of memory rose, which files are new. The
test that started it judges. A model that has changed ends it.
"""

import contextlib
import copy
import faulthandler
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3fast.attacks import load_attack
from d3fast.audit.report.page import write_audit_page
from d3fast.data import load
from d3fast.detox.resume import read_state
from d3fast.detox.toml_file import read_config
from d3fast.hub import open_samples
from d3fast.io.hub_files import find_weights, load_weight_files
from d3fast.io.idx import read_idx
from d3fast.io.images import Fit, read_image
from d3fast.models import load_weights
from d3fast.results.store import read_results
from tests.hostile.arrays import ARRAYS
from tests.hostile.audits import AUDITS
from tests.hostile.data_sets import CIFAR, IDX
from tests.hostile.documents import RESULTS
from tests.hostile.files import Case
from tests.hostile.hubs import HUB_FILES, HUB_FOLDERS, resolve_folder
from tests.hostile.images import FOLDERS, IMAGES
from tests.hostile.models import net
from tests.hostile.onnx import ONNX, resolve_onnx
from tests.hostile.programs import PROGRAMS, resolve_archive
from tests.hostile.samples import SAMPLES
from tests.hostile.settings import CONFIGS, REPAIRS
from tests.hostile.triggers import TRIGGERS
from tests.hostile.weights import WEIGHTS
from tests.hub.suspects import image_suspect, read_samples

SECONDS = 60  # of a slow, shared machine: after these a loader hangs
ROOM = 2**30  # bytes of address space that a loader may add


def _into_a_model(load: Callable[[nn.Module, Path], Any], path: Path) -> None:
    """Load into a new model; a refused file must leave it as it was."""
    model = net()
    before = copy.deepcopy(model.state_dict())
    try:
        load(model, path)
    finally:
        after = model.state_dict()
        unchanged = all(torch.equal(after[name], value) for name, value in before.items())
        if not unchanged and sys.exc_info()[0] is not None:
            os.write(2, b"the model has changed\n")
            os._exit(3)


def _read_any(path: Path) -> None:
    """List samples of any kind, and decode images."""
    samples = open_samples(path, max_memory=2**28)
    if samples.kind == "images":
        samples.for_model(image_suspect(3, size=(8, 8)))


GROUPS: Mapping[str, tuple[list[Case], Callable[[Path], Any]]] = {
    "weights": (WEIGHTS, partial(_into_a_model, load_weights)),
    "hub files": (
        HUB_FILES,
        partial(_into_a_model, lambda model, path: load_weight_files(model, find_weights(path))),
    ),
    "hub folders": (HUB_FOLDERS, resolve_folder),
    "onnx": (ONNX, resolve_onnx),
    "programs": (PROGRAMS, resolve_archive),
    "triggers": (TRIGGERS, load_attack),
    "results": (RESULTS, read_results),
    "configs": (CONFIGS, read_config),
    "repairs": (REPAIRS, lambda path: read_state(path, run="")),
    "images": (IMAGES, lambda path: read_image(path, fit=Fit((8, 8)))),
    "audits": (AUDITS, lambda path: write_audit_page(path.parent, path.parent / "report.html")),
    "folders": (FOLDERS, read_samples),
    "arrays": (ARRAYS, read_samples),
    "samples": (SAMPLES, _read_any),
    "idx": (IDX, read_idx),
    "cifar": (CIFAR, lambda path: load("cifar10", 0, clean=2, data_dir=path)),
}


def _peak() -> int:
    """Peak of resident memory since the last call of ``_reset_peak``, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # without it a case may look worse than it is, never better
        Path("/proc/self/clear_refs").write_text("5")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _listing(folder: Path) -> set[str]:
    return {os.path.join(where, name) for where, _, files in os.walk(folder) for name in files}


def run(case: Case, loader: Callable[[Path], Any], folder: Path) -> dict[str, Any]:
    path = case.make(folder)
    files = _listing(folder)
    error: BaseException | None = None
    _reset_peak()
    before, start = _peak(), time.process_time()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ROOM, hard))
    faulthandler.dump_traceback_later(SECONDS, exit=True)  # a loader may hang where no signal helps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a second line on the terminal
            loader(path)
    except BaseException as raised:
        error = raised
    finally:
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return {
        "name": case.name,
        "type": None if error is None else type(error).__name__,
        "usable": isinstance(error, ValueError | OSError),
        "line": str(error),
        "path": str(path),
        "seconds": time.process_time() - start,
        "memory": _peak() - before,
        "new": sorted(_listing(folder) - files),
    }


def main(where: str, only: str | None = None, first: str = "0") -> None:
    for group in GROUPS if only is None else [only]:
        cases, loader = GROUPS[group]
        for position, case in list(enumerate(cases))[int(first) :]:
            folder = Path(where, f"{group}-{position}")
            folder.mkdir()
            print(json.dumps({"group": group, **run(case, loader, folder)}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
