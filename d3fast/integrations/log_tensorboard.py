# SPDX-License-Identifier: Apache-2.0
"""TensorBoard: event files in ``tensorboard/RUN``, one scalar per value of an epoch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "tensorboard"


@dataclass(frozen=True)
class TensorBoard:
    """An open event file.

    Attributes:
        writer: of torch.
    """

    writer: Any

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def open_sink(folder: Path, run: str, settings: Mapping[str, Any], resume: bool) -> TensorBoard:
    """Open an event file; the run of a second call goes on beside the first."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(folder / "tensorboard" / run)
    writer.add_text("settings", f"```\n{json.dumps(settings, indent=2)}\n```")
    return TensorBoard(writer)
