"""Settings of the whole suite."""

from dataclasses import replace

import pytest
import torch
from hypothesis import settings

from d3fast import D3Config, demo
from d3fast.attacks import TrainConfig
from d3fast.defenses import FineTuning

# The same examples on every run and every machine; slow, shared cores are no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from a second thread, and on busy cores wait long for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_setup():
    """The demonstration on digits, made short."""
    return replace(
        demo.SETUPS["digits"],
        model="preact_resnet_tiny",
        train=300,
        clean=100,
        batch_size=50,
        training=TrainConfig(epochs=2),
        d3=D3Config(epochs=2),
        fine_tuning=FineTuning(epochs=2),
        curve_images=50,
    )
