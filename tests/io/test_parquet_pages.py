"""Headers of Parquet pages: Thrift's compact protocol, as a writer of our own makes it."""

import pytest

from d3fast.io.parquet_pages import DICTIONARY_PAGE, Page, read_pages


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def i32(value, delta=1):
    return bytes([delta << 4 | 5]) + varint(value << 1)


def header(kind, unpacked, packed, more=b""):
    return i32(kind) + i32(unpacked) + i32(packed) + more + b"\0"


STRUCT = b"\x2c" + i32(10) + i32(0) + b"\x11" + b"\0"  # delta 2: integers, a true, the end
STATISTICS = b"\x1c" + b"\x18\x03abc" + b"\x19\x25\x02\x04" + b"\x17" + bytes(8) + b"\0"


def test_pages_are_read_one_after_the_other():
    content = b"PAR1" + header(2, 70, 3, STRUCT) + b"abc" + header(0, 9, 1, STATISTICS) + b"d"
    pages = list(read_pages(memoryview(content), 4, len(content) - 4))
    assert pages == [Page(DICTIONARY_PAGE, 70), Page(0, 9)]


def test_those_of_pyarrow_have_its_sizes(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra d3fast[tables]")
    from pyarrow import parquet, table

    parquet.write_table(table({"a": [f"text {n}" for n in range(5000)]}), tmp_path / "a.parquet")
    column = parquet.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
    content = memoryview((tmp_path / "a.parquet").read_bytes())
    pages = list(read_pages(content, column.dictionary_page_offset, column.total_compressed_size))
    assert [page.kind for page in pages] == [DICTIONARY_PAGE, 0]
    # The sum in the footer counts headers too.
    assert 0 < column.total_uncompressed_size - sum(page.unpacked for page in pages) < 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header(0, 9, 5), "not in the file"),
        (header(0, 9, 1)[:-1], "not in the file"),
        (b"\x15" + b"\xff" * 11, "does not end"),
        (b"\x1c" * 20 + b"\0" * 21, "nests too deeply"),
        (b"\x1f\0", "damaged"),
        (i32(0) + b"\0", "not in the file"),
        (b"\x19\xf5" + varint(2**40) + b"\0" * 8, "not in the file"),
    ],
)
def test_a_damaged_header_is_refused(content, says):
    with pytest.raises(ValueError, match=says):
        list(read_pages(memoryview(content), 0, len(content)))


def test_a_chunk_outside_of_the_file_is_refused():
    with pytest.raises(ValueError, match="not in the file"):
        list(read_pages(memoryview(b"abc"), 1, 3))


def test_endless_empty_pages_are_refused():
    content = header(0, 0, 0) * (2**16 + 1)
    with pytest.raises(ValueError, match="more than 65536 pages"):
        list(read_pages(memoryview(content), 0, len(content)))
