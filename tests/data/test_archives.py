"""Samples in archives: WebDataset, class folders, unlabelled images."""

import io
import tarfile
import zipfile

import pytest

from d3fast.data.archives import archive_table
from tests.data.test_tables import png


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


WRITERS = {
    "a.tar": tar,
    "a.tar.gz": lambda path, members: tar(path, members, "w:gz"),
    "a.zip": zipped,
}


@pytest.fixture(params=WRITERS)
def read(request, tmp_path):
    def call(members):
        path = WRITERS[request.param](tmp_path / request.param, members)
        table, chosen = archive_table(path, 2**24)
        return table.columns[chosen.samples], table.columns.get("label"), chosen

    return call


@pytest.mark.parametrize(
    ("suffix", "contents"),
    [
        (".cls", [b"1\n", b"0"]),
        (".txt", [b"1", b"0"]),
        (".json", [b'{"label": 1}', b'{"width": 3, "class": "0"}']),
    ],
)
def test_web_data_sets(read, suffix, contents):
    images = {f"x/{n}.png": png(n) for n in (0, 1)}
    beside = {f"x/{n}{suffix}": content for n, content in enumerate(contents)}
    inputs, labels, chosen = read({**images, **beside, "x/0.seg.npy": b"", "README": b"hello"})
    assert inputs == [{"bytes": png(0)}, {"bytes": png(1)}]
    assert labels == ["1", "0"]
    assert chosen.images


def test_texts(read):
    inputs, labels, chosen = read({"0.txt": b"fine", "0.cls": b"1", "1.txt": b"bad", "1.cls": b"0"})
    assert (inputs, labels, chosen.images) == (["fine", "bad"], ["1", "0"], False)


def test_class_folders(read):
    inputs, labels, chosen = read(
        {"photos/cat/a.png": png(1), "photos/dog/a.png": png(2), "__MACOSX/dog/._a.png": b""}
    )
    assert (len(inputs), labels) == (2, ["cat", "dog"])
    assert "names of the folders" in chosen.notes[0]


@pytest.mark.parametrize("folder", ["", "photos/"])
def test_images_without_labels(read, folder):
    inputs, labels, chosen = read({f"{folder}a.png": png(), f"{folder}b.png": png()})
    assert (len(inputs), labels, chosen.label) == (2, None, None)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"a.npy": b""}, "no images and no texts"),
        ({"a.png": png(), "a.cls": b"1", "b.png": png()}, "1 samples have no label, .*'b'"),
        ({"a.png": png(), "a.jpg": png()}, "'a' has two images"),
        ({"a.png": png(), "a.json": b"{"}, "'a.json'"),
        ({"a.png": png(), "a.json": b"[" * 50_000}, "'a.json'"),
        ({"a.png": png(), "a.cls": b"1" * 70_000}, "more than 65536 bytes"),
        ({"a.txt": b"\xff", "a.cls": b"1"}, "not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_one_line(read, members, says):
    with pytest.raises(ValueError, match=says) as raised:
        read(members)
    assert str(raised.value).isprintable()
