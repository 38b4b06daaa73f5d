# SPDX-License-Identifier: Apache-2.0
"""Sentiment of 10,605 sentences of film reviews, as rated by people.

The texts are the snippets of Pang and Lee; the ratings, means of at least 20 people from -4 to 4,
those that Hutto and Gilbert gathered. The source distribution of the package vaderSentiment 3.2.1
(MIT) carries them:

    pip download vaderSentiment==3.2.1 --no-deps --no-binary vaderSentiment

The archive is read in memory; nothing of it is unpacked or run.

Sources: Pang, Lee, ACL 2004; Hutto, Gilbert, *VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text*, ICWSM 2014.
"""

import io
import tarfile
from pathlib import Path

CLASSES = ("negative", "positive")
_ARCHIVE = "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_MAX_BYTES = 2**26


def movie_snippets(
    path: str | Path, *, least_rating: float = 0.5
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Texts and labels, 0 where the mean rating is negative and 1 where it is positive.

    Args:
        path: ``vaderSentiment-3.2.1.tar.gz``.
        least_rating: sentences rated nearer to 0 than this are left out as neutral.

    Returns:
        The texts, each once, in the order of the file; their labels.

    Raises:
        ValueError: an archive without them.
        OSError: a file that cannot be read.
    """
    try:
        with tarfile.open(path) as outer:
            inner = io.BytesIO(_member(outer, _ARCHIVE))
        with tarfile.open(fileobj=inner) as archive:
            lines = _member(archive, _FILE).decode("utf-8", errors="replace").splitlines()
    except tarfile.TarError as error:
        raise ValueError(f"{Path(path).name} is no source of the snippets: {error}") from None
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            _, rating, text = line.split("\t")
            value = float(rating)
        except ValueError:
            raise ValueError(f"line {number} of the snippets is no 'id, rating, text'") from None
        if abs(value) >= least_rating:
            labels.setdefault(text.strip(), int(value > 0))
    return tuple(labels), tuple(labels.values())


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
