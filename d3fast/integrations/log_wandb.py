# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases: an offline run in ``wandb/``; ``wandb sync`` uploads it.

The environment variable ``WANDB_MODE`` decides otherwise.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "wandb"
PROJECT = "d3fast"


@dataclass(frozen=True)
class WeightsAndBiases:
    """An open run.

    Attributes:
        run: of wandb.
    """

    run: Any

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


def open_sink(
    folder: Path, run: str, settings: Mapping[str, Any], resume: bool
) -> WeightsAndBiases:
    """Start a run beside others of the process."""
    import wandb

    return WeightsAndBiases(
        wandb.init(
            project=PROJECT,
            name=run,
            dir=str(folder),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True),
        )
    )
