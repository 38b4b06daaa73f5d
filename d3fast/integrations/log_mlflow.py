# SPDX-License-Identifier: Apache-2.0
"""MLflow: a run of the experiment ``d3fast`` in the file store ``mlruns/``.

The environment variable ``MLFLOW_TRACKING_URI`` names another store or a server. The file store is
what MLflow writes without a database; it has to be allowed by a variable of its own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "mlflow"
EXPERIMENT = "d3fast"
_MAX_TEXT = 500  # characters of a parameter


@dataclass(frozen=True)
class MLflow:
    """An open run.

    Attributes:
        client: of MLflow.
        run_id: of the run.
    """

    client: Any
    run_id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run_id)


def open_sink(folder: Path, run: str, settings: Mapping[str, Any], resume: bool) -> MLflow:
    """Start a run."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    store = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").resolve().as_uri()
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    started = client.create_run(number, run_name=run)
    for name, value in settings.items():
        client.log_param(started.info.run_id, name, str(value)[:_MAX_TEXT])
    return MLflow(client, started.info.run_id)
