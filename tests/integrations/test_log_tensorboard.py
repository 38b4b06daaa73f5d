"""Event files, read back by TensorBoard itself."""

import json

import pytest

pytest.importorskip("tensorboard", reason="needs tensorboard")


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_scalars_and_settings_are_those_that_were_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from d3fast.integrations.log_tensorboard import open_sink

    sink = open_sink(tmp_path, "run", {"lr": 0.1}, False)
    sink.log(1, {"loss": 0.5, "distance": 2.0})
    sink.log(2, {"loss": 0.25, "distance": 3.0})
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [e.value for e in events.Scalars("distance")] == [2.0, 3.0]
    (text,) = events.Tensors("settings/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert json.loads(shown.strip("`\n")) == {"lr": 0.1}
