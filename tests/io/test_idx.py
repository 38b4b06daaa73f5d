"""IDX files in their real format, good and hostile."""

import gzip
import struct
import tracemalloc

import pytest
import torch

from d3fast.io.idx import read_idx


def _idx(shape, data, kind=0x08):
    return struct.pack(f">4B{len(shape)}I", 0, 0, kind, len(shape), *shape) + data


GOOD = _idx((2, 3, 2), bytes(range(12)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain", GOOD),
        ("zipped.gz", gzip.compress(GOOD, mtime=0)),
        ("zipped without suffix", gzip.compress(GOOD, mtime=0)),
    ],
)
def test_a_good_file_gives_its_bytes_in_c_order(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    images = read_idx(path)
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.arange(12, dtype=torch.uint8).reshape(2, 3, 2))


def test_sizes_are_read_big_endian(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(b"\0\0\x08\x01" + b"\0\0\x01\x02" + bytes(258))
    assert read_idx(path).shape == (258,)


def test_the_tensor_owns_its_memory(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(GOOD)
    read_idx(path).zero_()
    assert path.read_bytes() == GOOD


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "error_text"),
    [
        (b"", "it starts with nothing"),
        (GOOD[:3], "not an IDX file of uint8: it starts with 000008"),
        (b"\x89PNG" + GOOD[4:], "not an IDX file of uint8: it starts with 89504e47"),
        (_idx((3,), bytes(12), kind=0x0D), "not an IDX file of uint8: it starts with 00000d01"),
        (_idx((), b""), "not an IDX file of uint8"),
        (_idx((1,) * 5, b"x"), "not an IDX file of uint8"),
        (GOOD[:15], "truncated: it ends inside its header"),
        (GOOD[:-1], r"must hold 12 bytes of data for shape \(2, 3, 2\), has 11"),
        (GOOD[:16], "must hold 12 bytes of data .* has 0"),
        (GOOD + b"x", "must hold 12 bytes of data .* has more"),
        (_idx((0, 28, 28), b""), "holds no data"),
        (_idx((0, 2**32 - 1, 2**32 - 1, 2**32 - 1), b""), "holds no data"),
        (_idx((2**32 - 1,) * 4, b""), "claims .* bytes of data"),
        (_idx((2**30 + 1,), b""), "claims 1073741825 bytes of data, more than 1073741824"),
    ],
    ids=[
        "empty file",
        "short magic",
        "a picture",
        "floats",
        "no dimensions",
        "five dimensions",
        "inside the header",
        "a byte short",
        "header alone",
        "a byte too many",
        "no images",
        "no images of forged size",
        "sizes that overflow 64 bits",
        "just past the limit",
    ],
)
def test_a_bad_file_gives_one_error_that_names_it(tmp_path, content, error_text, zipped):
    path = tmp_path / "suspect-ubyte"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=f"^suspect-ubyte .*{error_text}"):
        read_idx(path)


def _flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(GOOD, mtime=0)[:-9],
        gzip.compress(GOOD, mtime=0)[:5],
        _flipped(gzip.compress(GOOD, mtime=0), -6),
        _flipped(gzip.compress(GOOD, mtime=0), 2),
        b"\x1f\x8b" + bytes(range(100, 160)),
        gzip.compress(GOOD, mtime=0) + b"garbage behind the stream",
    ],
    ids=["cut off", "cut off in its header", "checksum", "method", "noise", "garbage behind it"],
)
def test_a_corrupt_gzip_file_gives_one_error_that_names_it(tmp_path, content):
    path = tmp_path / "suspect.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^suspect\.gz is corrupt or truncated: "):
        read_idx(path)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_forged_size_takes_no_memory(tmp_path, zipped):
    path = tmp_path / "forged"
    forged = _idx((2**30,), b"only this")
    path.write_bytes(gzip.compress(forged) if zipped else forged)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="must hold 1073741824 bytes"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_data_of_many_pieces_is_read_whole_and_not_a_byte_more(tmp_path, zipped):
    data = bytes(range(256)) * 2**13  # 2 MiB
    content = _idx((2**21,), data)
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert bytes(read_idx(path).tolist()) == data
    path.write_bytes(gzip.compress(content + b"x") if zipped else content + b"x")
    with pytest.raises(ValueError, match=r"must hold 2097152 bytes .* has more"):
        read_idx(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nowhere")
