"""Hostile tables, archives and data set folders of samples."""

import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.files import (
    BAD_NAME,
    LOADS,
    Case,
    content,
    damaged,
    deflated_zeros,
    forged_zip,
    sparse_file,
    special,
)
from tests.hostile.images import encoded
from tests.io.test_parquet_pages import header

try:
    import pyarrow
except ImportError:  # the cases of its formats are left out
    pyarrow = None

_csv, _json = partial(content, "w.csv"), partial(content, "w.jsonl")
_START = b"text,label\n"

TEXTS = [
    *special(".csv"),
    Case("an endless line", _csv(lambda: b"text\n" + b"x" * 2**23), "line 2 has more than"),
    Case("a million columns", _csv(lambda: b",".join([b"c"] * 10**6)), "line 1 has|columns"),
    Case("1,001 columns", _csv(",".join(f"c{n}" for n in range(1001)).encode()), "1001 columns"),
    Case("NULs", _csv(_START + b"a\0,b\n"), "NUL"),
    Case("a gigabyte of NULs", sparse_file("w.csv", _START, 2**30), "longer than"),
    Case("100 MB of NULs", sparse_file("w.csv", _START, 10**8), "line 2"),
    Case("100 million blank lines", _csv(lambda: _START + b"\n" * 10**8), "lines"),
    Case("a quote that does not end", _csv(lambda: _START + b'"' + b"x\n" * 10**7), "field larger"),
    Case("17 million fields", _csv(lambda: _wide(1000, 17_000)), "fields"),
    Case("70,000 classes", _csv(lambda: _classes(70_000)), "70000 different labels"),
    Case("a class that prints badly", _csv(_START + f'a,"{BAD_NAME}"\n'.encode()), "not a name"),
    Case("a column that prints badly", _csv(f'"{BAD_NAME}",b,c\n'.encode()), "none of its columns"),
    Case("a class index of 10^8", _csv(_START + b"a,100000000\n"), "labels must be in"),
    Case("UTF-16", _csv("text,label\na,b\n".encode("utf-16")), "UTF-8"),
    Case("brackets 10^6 deep", _json(b'{"text":' + b"[" * 10**6), "nests too deeply|more than"),
    Case("a list of brackets", content("w.json", b"[" * 10**6), "damaged"),
    Case("an integer of 10^6 digits", _json(b'{"text":' + b"9" * 10**6 + b"}"), "integer of"),
    Case("an object of 64 MB", _json(lambda: b'{"text":"' + b"x" * 2**26), "more than"),
    Case("half of a surrogate pair", _json(b'{"text":"\\ud800","label":1}'), "Unicode"),
    Case("a million numbers", _json(lambda: b"1\n" * 10**6), "objects"),
    Case("2 million rows", _json(lambda: b'{"text":""}\n' * 2 * 10**6), "rows"),
    *damaged(b'{"text":"a","label":1}', ".jsonl"),
]


def _wide(columns: int, rows: int) -> bytes:
    names = ",".join(f"c{n}" for n in range(columns - 1)) + ",text\n"
    return names.encode() + (b"," * (columns - 1) + b"\n") * rows


def _classes(count: int) -> bytes:
    return _START + "".join(f"a,class {n}\n" for n in range(count)).encode()


def _paths(*names: str) -> Callable[[Path], Path]:
    """A table of paths, beside an image, a link out and a pipe."""

    def make(folder: Path) -> Path:
        root = folder / "clean"
        root.mkdir()
        (root / "good.png").write_bytes(encoded())
        (folder / "outside.png").write_bytes(encoded())
        (root / "link.png").symlink_to("../outside.png")
        (root / "zero.png").symlink_to("/dev/zero")
        os.mkfifo(root / "pipe.png")
        (root / "w.csv").write_text("file,label\n" + "".join(f"{name},a\n" for name in names))
        return root / "w.csv"

    return make


PATHS = [
    Case("a path upwards", _paths("good.png", "../outside.png"), "row 2: .* no relative path"),
    Case("an absolute path", _paths("/etc/passwd"), "no relative path"),
    Case("a path that is long", _paths("a/" * 5000 + "b"), "no relative path"),
    Case("a link out", _paths("link.png"), "leads out"),
    Case("a device", _paths("zero.png"), "leads out"),
    Case("a pipe", _paths("pipe.png"), "not a regular file"),
    Case("itself", _paths("w.csv"), "not an image"),
    Case("a path with a NUL", _paths("a\0b.png"), "NUL"),
]


def _tar(*members: tuple[str, bytes, bytes], mode: str = "w", **given: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **given) as archive:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _file(name: str) -> tuple[str, bytes, bytes]:
    return name, tarfile.REGTYPE, encoded()


def _long_tar(claims: int) -> bytes:
    """One member that claims more than there is."""
    info = tarfile.TarInfo("a.png")
    info.size = claims
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(512)


SAMPLES_TAR = _tar(_file("a.png"), ("a.cls", b"0", b"1"), _file("b.png"), ("b.cls", b"0", b"0"))
_tar_file, _zip = partial(content, "w.tar"), partial(content, "w.zip")
_BOTH = [("cat/a.png", encoded()), ("dog/a.png", encoded())]
ARCHIVES = [
    *special(".tar"),
    *special(".zip"),
    Case("names that lead out", _tar_file(_tar(_file("../../a/a.png"), _file("/b/b.png"))), LOADS),
    Case(
        "links and devices",
        _tar_file(_tar(*[("a.png", kind, b"") for kind in (b"1", b"2", b"3", b"4", b"6")])),
        "no images",
    ),
    Case(
        "a sparse member", _tar_file(_tar(("a.png", tarfile.GNUTYPE_SPARSE, b""))), "sparse|no im"
    ),
    Case("a member of 2^60 bytes", _tar_file(_long_tar(2**60)), ""),
    Case("a member of 2^30 bytes", _tar_file(_long_tar(2**30)), "more than"),
    Case(
        "200,000 members",
        content("w.tar.gz", lambda: _tar(*[("a", b"0", b"")] * 200_000, mode="w:gz")),
        "more than 65536 members",
    ),
    Case(
        "100,000 global headers",
        content(
            "w.tar.gz",
            lambda: _tar(
                _file("a.png"), mode="w:gz", pax_headers={f"key{n}": "" for n in range(100_000)}
            ),
        ),
        "a header has",
    ),
    Case(
        "a gzip bomb",
        content("w.tar.gz", lambda: b"\x1f\x8b\x08" + bytes(7) + deflated_zeros(4)),
        "",
    ),
    Case(
        "names that lead out of a zip", _zip(forged_zip([("../a/a.png", encoded()), *_BOTH])), LOADS
    ),
    Case(
        "a zip bomb",
        _zip(lambda: forged_zip([("a.png", deflated_zeros(2))], method=8, claims=2**31)),
        "unpacks",
    ),
    Case(
        "a zip bomb that claims little",
        _zip(lambda: forged_zip([("a.png", deflated_zeros(2))], method=8, claims=2**16)),
        "",
    ),
    Case("a zip with a member that is encrypted", _zip(forged_zip(_BOTH, flags=1)), "encrypted"),
    Case("a zip with one name twice", _zip(forged_zip(_BOTH, count=2)), "twice"),
    Case(
        "a zip with a class that prints badly",
        _zip(forged_zip([(f"{BAD_NAME}/a.png", encoded()), *_BOTH])),
        "not a name",
    ),
    Case("a text", _tar_file(b"hello" * 1000), "no archive"),
]


def _saved(name: str, text: str) -> Callable[[Path], Path]:
    """A folder of ``save_to_disk`` with one file of a stranger's making."""

    def make(folder: Path) -> Path:
        (folder / "secret.arrow").write_bytes(b"secret")
        root = folder / "saved"
        (root / "train").mkdir(parents=True)
        (root / "dataset_dict.json").write_text('{"splits": ["train"]}')
        (root / "train" / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
        (root / "train" / "a.arrow").symlink_to("../../secret.arrow")
        (root / name).write_text(text)
        return root

    return make


DATASETS = [
    Case("a link to an Arrow file outside", _saved("README.md", ""), "leads out"),
    Case("a split outside", _saved("dataset_dict.json", '{"splits": ["../.."]}'), "plain name"),
    Case(
        "an Arrow file outside",
        _saved("train/state.json", '{"_data_files": [{"filename": "../../secret.arrow"}]}'),
        "plain name",
    ),
    Case("a state of brackets", _saved("train/state.json", "[" * 10**6), ""),
    Case("a state of 2 MB", _saved("train/state.json", " " * 2**21), "longer than"),
    Case("a state of other types", _saved("train/state.json", '{"_data_files": 5}'), "must list"),
]


def _parquet(table: Any, **given: Any) -> bytes:
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **given)
    return buffer.getvalue()


def _arrow(table: Any, **given: Any) -> bytes:
    buffer = io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(**given)
    with pyarrow.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _text(*values: Any) -> Any:
    return pyarrow.table({"text": list(values)})


def _claiming() -> bytes:
    """A page whose header claims 2 GB; the footer keeps its modest sizes."""
    good = _parquet(_text("x" * 60), use_dictionary=False, compression="none")
    start = good.index(b"\x15\0\x15")
    old = good[start : start + 9]
    return good.replace(old, header(0, 2**31 - 1, 1)[:9], 1)


def _named(names: Any) -> bytes:
    held = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    table = pyarrow.table({"text": ["a"], "label": [0]})
    return _arrow(table.replace_schema_metadata({"huggingface": held}))


def columnar(suffix: str) -> list[bytes]:
    """Good files of texts and of images."""
    images = [{"bytes": encoded(), "path": None}] * 2
    tables = [
        pyarrow.table({"text": ["a", "b"] * 20, "label": [0, 1] * 20}),
        pyarrow.table({"image": images, "label": pyarrow.array(["x", "y"]).dictionary_encode()}),
    ]
    return [_parquet(t) if suffix == ".parquet" else _arrow(t) for t in tables]


_parquet_file, _arrow_file = partial(content, "w.parquet"), partial(content, "w.arrow")
COLUMNAR = (
    []
    if pyarrow is None
    else [
        *special(".parquet"),
        Case(
            "a page of 128 MB of zeros",
            _parquet_file(lambda: _parquet(_text("0" * 2**27), compression="zstd")),
            "unpack to more",
        ),
        Case(
            "one text of 1 MB in 100,000 rows",
            _parquet_file(lambda: _parquet(_text(*["0" * 2**20] * 500))),
            "unpack to more",
        ),
        Case("a page that claims 2 GB", _parquet_file(lambda: _claiming()), ""),
        Case(
            "a footer of 4 GB",
            _parquet_file(b"PAR1" + bytes(99) + struct.pack("<I", 2**32 - 1) + b"PAR1"),
            "footer claims",
        ),
        Case("16 GB of nothing", sparse_file("w.parquet", b"PAR1", 2**34), "no Parquet|allocate"),
        Case("2 million rows", _parquet_file(lambda: _parquet(_text(*[""] * 2**21))), "rows"),
        Case(
            "2,000 columns",
            _parquet_file(lambda: _parquet(pyarrow.table({f"c{n}": [1] for n in range(2000)}))),
            "columns",
        ),
        Case(
            "lists in place of texts", _parquet_file(lambda: _parquet(_text([["a"]]))), "holds list"
        ),
        Case(
            "compressed buffers",
            _arrow_file(lambda: _arrow(_text("0" * 2**27), compression="zstd")),
            "compressed",
        ),
        Case("a class name that prints badly", _arrow_file(lambda: _named([BAD_NAME])), LOADS),
        Case("16 GB of an Arrow stream", sparse_file("w.arrow", b"\xff\xff\xff\xff", 2**34), ""),
        *damaged(_parquet(_text("a", "b")), ".parquet")[-4:],
        *damaged(_arrow(_text("a", "b")), ".arrow", 8)[-3:],
    ]
)
SAMPLES = [*TEXTS, *PATHS, *ARCHIVES, *DATASETS, *COLUMNAR]
