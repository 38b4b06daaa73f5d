"""csrc/common compiled into a library of its own (see common.cpp)."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def common(shared_library):
    return shared_library(Path(__file__).parent / "common.cpp", flags=("-O1",))
