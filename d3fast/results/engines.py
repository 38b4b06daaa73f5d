# SPDX-License-Identifier: Apache-2.0
"""The engines by name, and the choice of one: what the command line says about where jobs run.

An engine of another package is a function ``(shared, devices, *, threads, progress) -> Engine``
in the group ``d3fast.engines`` of entry points, or ``package.module:name``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from d3fast.results.engine import Engine
from d3fast.results.pool import Shared, local_engine
from d3fast.results.ray_engine import ray_engine
from d3fast.results.run_store import RunStore
from d3fast.runtime.plugins import Registry
from d3fast.runtime.processes import AUTO_CPU_WORKERS, parse_devices

ENGINES: Registry[Callable[..., Engine]] = Registry(
    "engine", "d3fast.engines", {"local": local_engine, "ray": ray_engine}
)


@dataclass(frozen=True)
class EngineChoice:
    """Where jobs run.

    Attributes:
        name: of ``ENGINES``, or ``package.module:name``.
        address: of a server, for an engine that has one.
        gpus_per_job: share of a GPU that a job needs, for an engine that shares GPUs.
        store: URL of the run folder, for workers that share no disk; see ``RunStore``.

    Raises:
        ValueError: an unknown engine; an option that the engine does not have.

    Example:
        >>> EngineChoice("local", address="10.0.0.1:6379")
        Traceback (most recent call last):
            ...
        ValueError: engine 'local' has no option address
    """

    name: str = "local"
    address: str | None = None
    gpus_per_job: float | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        known = signature(ENGINES.find(self.name)).parameters
        for option in self._options:
            if option not in known:
                raise ValueError(f"engine {self.name!r} has no option {option}")

    @property
    def _options(self) -> Mapping[str, Any]:
        options = {"address": self.address, "gpus_per_job": self.gpus_per_job}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine, in processes of this command."""
        return self.name == "local"

    def parse_devices(self, text: str, cpu_workers: int = AUTO_CPU_WORKERS) -> list[str]:
        """Return the device of every worker; the engine of a server resolves ``auto`` itself.

        Raises:
            ValueError: what ``runtime.processes.parse_devices`` raises.
        """
        if text == "auto" and not self.is_local:
            return ["auto"]
        return parse_devices(text, cpu_workers)

    def start(
        self, shared: Shared, devices: Sequence[str], *, threads: int = 1, progress: bool = False
    ) -> Engine:
        """Return the engine; arguments as in ``local_engine``.

        Raises:
            ValueError, OSError: what the engine raises.
        """
        make = ENGINES.find(self.name)
        return make(shared, devices, threads=threads, progress=progress, **self._options)

    def run_store(self, folder: Path) -> RunStore | None:
        """Return the store of a run; workers of a server need one, by default the run directory."""
        if self.store is None and self.is_local:
            return None
        return RunStore(self.store or str(folder))


LOCAL = EngineChoice()
