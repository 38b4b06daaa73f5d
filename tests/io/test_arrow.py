"""Parquet files and Arrow streams, read in a process of its own."""

import json
import subprocess

import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")

from pyarrow import ipc, parquet  # noqa: E402

from d3fast.io import arrow  # noqa: E402
from d3fast.io.arrow import read_columnar  # noqa: E402

NAMES = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}


@pytest.fixture(params=["a.parquet", "a.arrow"])
def path(request, tmp_path):
    table = pa.table({"text": ["a", None], "label": [0, 1], "image": [{"bytes": b"x"}] * 2})
    table = table.replace_schema_metadata({"huggingface": json.dumps(NAMES)})
    if request.param.endswith(".parquet"):
        parquet.write_table(table, tmp_path / request.param)
    else:
        with ipc.new_stream(str(tmp_path / request.param), table.schema) as writer:
            writer.write_table(table)
    return tmp_path / request.param


def test_chosen_columns_and_class_names_come_back(path):
    table = read_columnar(path, lambda names: names[:2], 2**20)
    assert table.columns == {"text": ["a", None], "label": [0, 1]}
    assert table.names == {"label": ("neg", "pos")}
    assert read_columnar(path, lambda _: ["image"], 2**20).columns["image"] == [{"bytes": b"x"}] * 2


def test_what_the_caller_refuses_is_one_line_that_names_the_file(path):
    def refuse(names):
        raise ValueError(f"no column among {names}")

    with pytest.raises(ValueError, match=rf"{path.name} cannot be used: no column among \['text"):
        read_columnar(path, refuse, 2**20)


def test_what_the_reader_refuses_is_its_line(path):
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match=rf"{path.name} cannot be used: "):
        read_columnar(path, list, 2**20)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_columnar(tmp_path / "none.parquet", list, 2**20)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "import sys; sys.stdout.write('x')",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
        "import struct, sys; sys.stdout.buffer.write(struct.pack('<Q', 2**40) + b'x')",
    ],
)
def test_a_reader_that_crashes_is_one_line(path, monkeypatch, code):
    monkeypatch.setattr(arrow, "_CODE", code)
    with pytest.raises(ValueError, match=r"cannot be used: pyarrow crashes on it"):
        read_columnar(path, list, 2**20)


def test_no_process_is_left(path, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    read_columnar(path, list, 2**20)
    assert [process.returncode is None for process in started] == [False]
