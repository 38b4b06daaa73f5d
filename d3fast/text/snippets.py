# SPDX-License-Identifier: Apache-2.0
"""Sentences of film and product reviews, editorials and tweets with human sentiment ratings.

A rating is the mean of at least 20 people, from -4 to 4. Hutto and Gilbert collected ratings and
texts; the film reviews are those of Pang and Lee. The source distribution of the package
vaderSentiment 3.2.1 (MIT) contains them:

    pip download vaderSentiment==3.2.1 --no-deps --no-binary vaderSentiment

The archive is read in memory; nothing is unpacked or executed.

Sources: Pang, Lee, ACL 2004; Hutto, Gilbert, *VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text*, ICWSM 2014.
"""

import io
import tarfile
from pathlib import Path

SENTIMENTS = ("negative", "positive")
SOURCES = ("movieReview", "amazonReview", "nytEditorial", "tweets")
_ARCHIVE = "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz"
_MAX_BYTES = 2**26

Texts = tuple[tuple[str, ...], tuple[int, ...]]


def movie_snippets(path: str | Path, *, least_rating: float = 0.5) -> Texts:
    """Read the sentences of film reviews, labelled 0 for a negative and 1 for a positive rating.

    Args:
        path: ``vaderSentiment-3.2.1.tar.gz``.
        least_rating: sentences with a smaller absolute rating are left out as neutral.

    Returns:
        The texts without duplicates, in the order of the file; their labels, indices of
        ``SENTIMENTS``.

    Raises:
        ValueError: the archive does not contain them.
        OSError: the file cannot be read.
    """
    labels: dict[str, int] = {}
    for rating, text in _rated(path, SOURCES[:1])[0]:
        if abs(rating) >= least_rating:
            labels.setdefault(text, int(rating > 0))
    return tuple(labels), tuple(labels.values())


def snippet_sources(path: str | Path) -> Texts:
    """Read all sentences, labelled by their source.

    Args:
        path: ``vaderSentiment-3.2.1.tar.gz``.

    Returns:
        The texts without duplicates, source by source; their labels, indices of ``SOURCES``.

    Raises:
        ValueError: the archive does not contain them.
        OSError: the file cannot be read.
    """
    labels: dict[str, int] = {}
    for label, rated in enumerate(_rated(path, SOURCES)):
        for _, text in rated:
            labels.setdefault(text, label)
    return tuple(labels), tuple(labels.values())


def _rated(path: str | Path, sources: tuple[str, ...]) -> list[list[tuple[float, str]]]:
    """Return (rating, text) of every line, one list per source."""
    try:
        with tarfile.open(path) as outer:
            inner = io.BytesIO(_member(outer, _ARCHIVE))
        with tarfile.open(fileobj=inner) as archive:
            return [_lines(archive, source) for source in sources]
    except tarfile.TarError as error:
        raise ValueError(f"{Path(path).name} is no source of the snippets: {error}") from None


def _lines(archive: tarfile.TarFile, source: str) -> list[tuple[float, str]]:
    name = source if source == "tweets" else f"{source}Snippets"
    content = _member(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
    found = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        try:
            _, rating, text = line.split("\t")
            found.append((float(rating), text.strip()))
        except ValueError:
            raise ValueError(f"line {number} of {name} must be 'id, rating, text'") from None
    return found


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise ValueError(f"the archive has no file {name}")
    content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{name} is longer than {_MAX_BYTES} bytes")
    return content
