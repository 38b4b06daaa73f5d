# SPDX-License-Identifier: Apache-2.0
"""Trackio: a run of the project ``d3fast`` in the database of ``trackio/``.

``TRACKIO_DIR=FOLDER/trackio trackio show`` shows it. The environment variable ``TRACKIO_DIR``, and
a trackio that the process imported before, have a folder of their own.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARY = "trackio"
PROJECT = "d3fast"


@dataclass(frozen=True)
class Trackio:
    """An open run.

    Attributes:
        run: of trackio.
    """

    run: Any

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run; trackio would end it once more, and say so, when the process ends."""
        with redirect_stdout(sys.stderr):
            self.run.finish()
        current = import_module("trackio.context_vars").current_run
        if current.get() is self.run:
            current.set(None)


def open_sink(folder: Path, run: str, settings: Mapping[str, Any], resume: bool) -> Trackio:
    """Start a run; what trackio prints goes to standard error."""
    os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))  # read at the import
    with redirect_stdout(sys.stderr):
        trackio = import_module("trackio")
        return Trackio(
            trackio.init(
                PROJECT,
                name=run,
                config=dict(settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        )
