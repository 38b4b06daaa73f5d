# SPDX-License-Identifier: Apache-2.0
"""In place of pytest-benchmark where it is missing: its fixture, without its table."""

from collections.abc import Callable

import pytest


class Benchmark:
    """As much of the fixture as the suite uses."""

    group: str | None = None

    def pedantic(self, function: Callable[[], object], rounds: int) -> None:
        """Call as often as the plugin would."""
        for _ in range(rounds):
            function()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "benchmark(timer): of pytest-benchmark")


@pytest.fixture
def benchmark() -> Benchmark:
    """Stands in for the plugin's fixture."""
    return Benchmark()
