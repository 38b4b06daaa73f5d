"""``d3fast view``: one line on the terminal, Ctrl-C ends it, errors are one line."""

import socket
import urllib.request

import pytest

from tests.processes import interrupt, python
from tests.view.runs import audit


@pytest.mark.slow
def test_it_serves_until_ctrl_c_and_ends_quietly(tmp_path):
    audit(tmp_path, "net-one", "inspect")
    with python("-m", "d3fast", "view", tmp_path, "--no-browser") as process:
        line = process.stdout.readline()
        address = line.split(" is shown at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"net-one" in answer.read()
        _, errors = interrupt(process)
    assert process.returncode == 0
    assert errors.strip() == ""


def test_a_missing_folder_is_one_line(call, tmp_path):
    result = call("view --no-browser", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr == f"error: there is no folder {tmp_path / 'nowhere'}\n"


def test_a_port_in_use_is_one_line(call, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = call(f"view --no-browser --port {port}", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: port {port} is in use: ")
    assert result.stderr.count("\n") == 1


def test_a_browser_is_opened_only_where_there_is_a_display(call, tmp_path, monkeypatch):
    opened = []

    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("d3fast.view.server.ViewServer.serve_forever", interrupted)
    monkeypatch.setattr("threading.Thread.start", lambda thread: thread._target(*thread._args))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, options, count in (("", "", 0), (":0", "--no-browser", 0), (":0", "", 1)):
        monkeypatch.setenv("DISPLAY", display)
        assert call(f"view {options}", tmp_path).exit_code == 0
        assert len(opened) == count
