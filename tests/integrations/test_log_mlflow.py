"""A run in the file store of MLflow, read back by MLflow."""

import pytest

pytest.importorskip("mlflow", reason="needs mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


def test_metrics_parameters_and_the_end_of_a_run_are_in_the_store(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    from d3fast.integrations.log_mlflow import open_sink

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("first", "second"):
        sink = open_sink(tmp_path, name, {"lr": 0.1, "track": "x" * 5000}, False)
        sink.log(1, {"loss": 0.5})
        sink.log(2, {"loss": 0.25})
        sink.close()
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("d3fast")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["first", "second"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"lr": "0.1", "track": "x" * 500}
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]


def test_another_store_may_be_named(tmp_path, monkeypatch):
    from d3fast.integrations.log_mlflow import open_sink

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "other").as_uri())
    open_sink(tmp_path, "run", {}, False).close()
    assert (tmp_path / "other").is_dir()
    assert not (tmp_path / "mlruns").exists()
