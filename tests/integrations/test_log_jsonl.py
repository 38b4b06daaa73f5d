"""JSON lines."""

import json

from d3fast.integrations.log_jsonl import open_sink


def lines(folder):
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def test_every_line_is_on_disk_before_the_next_epoch(tmp_path):
    sink = open_sink(tmp_path, "run", {"lr": 0.1}, False)
    sink.log(1, {"loss": 0.5})
    assert lines(tmp_path) == [
        {"run": "run", "settings": {"lr": 0.1}},
        {"epoch": 1, "loss": 0.5},
    ]
    sink.close()


def test_a_resumed_run_goes_on_and_a_new_one_begins_again(tmp_path):
    for resume, want in ((True, 2), (True, 3), (False, 2)):
        sink = open_sink(tmp_path, "run", {}, resume)
        sink.log(1, {"loss": 0.5})
        sink.close()
        assert len(lines(tmp_path)) == want
