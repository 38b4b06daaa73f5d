# SPDX-License-Identifier: Apache-2.0
import io
import tarfile

import pytest

from d3fast.text import movie_snippets, snippet_sources

INNER = "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    def write(text: str, file: str = FILE, inner: str = INNER, **others: str):
        files = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": t for name, t in others.items()}
        path = tmp_path / "vaderSentiment-3.2.1.tar.gz"
        contents = {name: t.encode() for name, t in {file: text, **files}.items()}
        path.write_bytes(packed({inner: packed(contents)}))
        return path

    return write


def test_by_source_every_text_has_the_label_of_the_first_file_it_is_in(archive):
    path = archive(
        "1\t2\tfine\n",
        amazonReviewSnippets="1_1\t0.1\tworks\n1_2\t1\tfine\n",
        nytEditorialSnippets="1_1\t0\tvote\n",
        tweets="1\t3\tlol\n",
    )
    assert snippet_sources(path) == (("fine", "works", "vote", "lol"), (0, 1, 2, 3))


def test_the_sign_of_the_rating_is_the_label_and_neutral_texts_are_left_out(archive):
    path = archive("1\t2.5\tfine\n2\t-0.6\tpoor \n3\t0.3\tso so\n4\t-3\tfine\n")
    assert movie_snippets(path) == (("fine", "poor"), (1, 0))
    assert movie_snippets(path, least_rating=0.0)[0] == ("fine", "poor", "so so")


@pytest.mark.parametrize("line", ["no tabs", "1\tgood\tfine", "1\t2.5"])
def test_a_line_of_another_kind_is_named(archive, line):
    with pytest.raises(ValueError, match="line 2 of movieReviewSnippets"):
        movie_snippets(archive(f"1\t2.5\tfine\n{line}\n"))


def test_archives_without_them_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="has no file"):
        movie_snippets(archive("", file="other.txt"))
    with pytest.raises(ValueError, match="has no file"):
        movie_snippets(archive("", inner="other.tar.gz"))
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"nothing packed")
    with pytest.raises(ValueError, match=r"other\.tar\.gz is no source"):
        movie_snippets(other)
    with pytest.raises(FileNotFoundError):
        movie_snippets(tmp_path / "missing.tar.gz")
