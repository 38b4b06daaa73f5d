"""Settings of the whole suite."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from d3fast.attacks import TrainConfig
from d3fast.benchmark.presets import DEMO_PRESETS

# The same examples on every run and every machine; slow, shared cores are no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
pytest.register_assert_rewrite("d3fast.testing")
collect_ignore = ["plugin_package"]  # a package with tests of its own

# As `one_thread` below, for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, and every child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Leave process groups to ``make test-all``."""
    for item in items:
        if "distributed" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from a second thread, and on busy cores wait long for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo_preset():
    """The demo on digits, made short."""
    preset = DEMO_PRESETS["digits"]
    base = replace(
        preset.suspects[0].base,
        model="preact_resnet_tiny",
        train=300,
        clean=100,
        training=TrainConfig(epochs=2),
    )
    defenses = [
        replace(defense, options=({**defense.options[0], "epochs": 2},))
        for defense in preset.defenses
    ]
    suspects = (replace(preset.suspects[0], base=base),)
    return replace(preset, suspects=suspects, defenses=tuple(defenses), clean=100, batch_size=50)


@pytest.fixture(scope="session")
def shared_library(tmp_path_factory):
    """Compiles C++ sources, csrc on the include path, and loads the result."""
    csrc = Path(__file__).parents[1] / "csrc"

    # One folder for all workers of pytest-xdist: a library is compiled once.
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def build(*sources, flags=()):
        compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
        if compiler is None:
            pytest.skip("no C++ compiler to build the library under test with")
        always = ["-std=c++17", "-fPIC", "-shared", f"-I{csrc}"]
        names = [str(csrc / source) for source in sources]  # an absolute path stays as it is
        command = [compiler, *always, *flags, *names]
        library = folder / f"{hashlib.sha256(repr(command).encode()).hexdigest()[:16]}.so"
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                subprocess.run([*command, "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))

    return build
