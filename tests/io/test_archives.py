"""Members of .tar.gz archives, good and hostile."""

import gzip
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3fast.io.archives import read_tar_gz


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


GOOD = gzip.compress(_tar([("x/one", b"1" * 700), ("x/two", b"2"), ("x/three", b"3")]), mtime=0)


def test_the_members_asked_for_are_read_by_the_last_part_of_their_name(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(GOOD)
    assert read_tar_gz(path, {"one", "three", "four"}, 2**20) == {"one": b"1" * 700, "three": b"3"}


def test_nothing_is_written_and_names_lead_nowhere(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(_tar([("../../one", b"1"), ("/etc/two", b"2")])))
    assert read_tar_gz(path, {"one", "two"}, 2**20) == {"one": b"1", "two": b"2"}
    assert list(tmp_path.iterdir()) == [path]


def test_links_in_an_archive_are_no_members(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("one")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read_tar_gz(path, {"one"}, 2**20) == {}


def test_an_archive_longer_than_the_limit_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    header = tarfile.TarInfo("one")
    header.size = 2**32
    for kind, message in (
        (tarfile.REGTYPE, "it is longer than it may be"),
        (tarfile.XHDTYPE, "4294967296 bytes"),
        (tarfile.GNUTYPE_LONGNAME, "4294967296 bytes"),
    ):
        header.type = kind
        path.write_bytes(gzip.compress(header.tobuf() + bytes(2**24)))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=rf"bomb\.tar\.gz .* {message}"):
                read_tar_gz(path, {"one"}, 2**20)
            assert tracemalloc.get_traced_memory()[1] < 2**23
        finally:
            tracemalloc.stop()


def test_an_archive_of_many_members_is_refused(tmp_path):
    path = tmp_path / "many.tar.gz"
    path.write_bytes(gzip.compress(_tar([(f"{n}", b"") for n in range(1001)])))
    with pytest.raises(ValueError, match=r"many\.tar\.gz .* more than 1000 members"):
        read_tar_gz(path, {"one"}, 2**20)


def test_a_long_name_in_an_extended_header_is_read(tmp_path):
    path = tmp_path / "long.tar.gz"
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(path, "w:gz", format=kind) as archive:
            member = tarfile.TarInfo("x" * 300 + "/one")
            member.size = 1
            archive.addfile(member, io.BytesIO(b"1"))
        assert read_tar_gz(path, {"one"}, 2**20) == {"one": b"1"}


def test_a_sparse_member_is_refused_whatever_length_it_claims(tmp_path):
    path = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("one")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # the length that the holes fill up to
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    path.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    with pytest.raises(ValueError, match="its member one is sparse"):
        read_tar_gz(path, {"one"}, 2**20)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", GOOD[:60], GOOD[:-4], gzip.compress(b"x", mtime=0)]
)
def test_what_is_no_archive_or_cut_off_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.tar\.gz is not a \.tar\.gz archive, or a damaged one"
    ):
        read_tar_gz(path, {"one"}, 2**20)


@pytest.fixture(scope="module")
def suspect(tmp_path_factory):
    return tmp_path_factory.mktemp("archives") / "suspect.tar.gz"


@settings(max_examples=200)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), zipped=st.booleans())
def test_any_flipped_byte_gives_members_or_one_kind_of_error(suspect, position, byte, zipped):
    content = bytearray(GOOD if zipped else gzip.decompress(GOOD)[:3000])
    content[position % len(content)] = byte
    suspect.write_bytes(content if zipped else gzip.compress(content))
    try:
        found = read_tar_gz(suspect, {"one", "two"}, 2**20)
    except ValueError:
        return
    if zipped:  # the checksum vouches for what was read
        assert found == {"one": b"1" * 700, "two": b"2"}
