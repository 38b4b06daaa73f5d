"""Arrays of .npz files: what is read and what is refused before it is unpacked."""

import zipfile

import numpy as np
import pytest

from d3fast.io.arrays import open_npz


def test_arrays_are_listed_and_read_by_name(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.float32([0.5])}
    np.savez(tmp_path / "a.npz", **arrays)
    with open_npz(tmp_path / "a.npz") as file:
        assert file.keys == set(arrays)
        for name, array in arrays.items():
            read = file.read(name)
            assert (read.shape, read.dtype) == (array.shape, array.dtype)
            assert (read == array).all()


def test_fortran_order_and_compression_are_no_obstacle(tmp_path):
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.savez_compressed(tmp_path / "a.npz", a=array)
    with open_npz(tmp_path / "a.npz") as file:
        assert (file.read("a") == array).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}], dtype=object), "type is object"),
        (np.array([1 + 2j]), "type is complex128"),
        (np.zeros((0, 3)), r"shape is \(0, 3\)"),
    ],
)
def test_arrays_without_numbers_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", a=array)
    with open_npz(tmp_path / "a.npz") as file, pytest.raises(ValueError, match=message):
        file.read("a")


@pytest.mark.parametrize(
    ("limit", "message"),
    [("_UNSUSPICIOUS", "unpacks from"), ("_MAX_BYTES", "claims 131200 bytes, more than 65536")],
)
def test_an_array_that_is_too_long_unpacked_is_refused(tmp_path, monkeypatch, limit, message):
    monkeypatch.setattr(f"d3fast.io.arrays.{limit}", 2**16)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**17, np.uint8))
    with open_npz(tmp_path / "a.npz") as file, pytest.raises(ValueError, match=message):
        file.read("a")


def test_an_allocation_that_fails_is_an_error_of_the_file(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    np.savez(tmp_path / "a.npz", a=np.zeros(3, np.uint8))
    monkeypatch.setattr("d3fast.io.arrays._read_array", fail)
    with open_npz(tmp_path / "a.npz") as file, pytest.raises(ValueError, match="in memory"):
        file.read("a")


def test_a_file_that_is_not_an_archive_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.npz is not a \.npz"), open_npz(tmp_path / "a.npz"):
        pass


def test_members_that_are_no_arrays_are_not_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with open_npz(tmp_path / "a.npz") as file:
        assert file.keys == set()
