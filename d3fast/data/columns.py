# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table hold the samples and their labels: named by the user, or guessed."""

from collections.abc import Sequence
from dataclasses import dataclass

from d3fast.io.untrusted import printable

TEXTS = ("text", "sentence", "review", "content", "comment", "document", "tweet", "message", "body")
IMAGES = ("image", "img", "path", "file", "file_name", "filename", "image_path", "filepath")
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "class_name", "cls", "y")
_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """Columns of a table of samples; ``None`` is guessed, and a note says what was taken.

    Attributes:
        text: column of the texts.
        label: column of the labels.
        image: column of the images, or of the paths to their files.
    """

    text: str | None = None
    label: str | None = None
    image: str | None = None


ANY_COLUMNS = Columns()


@dataclass(frozen=True)
class Chosen:
    """The columns to read.

    Attributes:
        samples: column of the texts or images.
        label: column of the labels; ``None`` for unlabelled samples.
        images: whether the samples are images.
        notes: what was guessed.
    """

    samples: str
    label: str | None
    images: bool
    notes: tuple[str, ...] = ()


def choose_columns(names: Sequence[str], asked: Columns = ANY_COLUMNS) -> Chosen:
    """Return the columns of the samples and of the labels.

    Args:
        names: the columns that the table has.
        asked: what the user said.

    Raises:
        ValueError: a column that the table lacks; columns of texts and of images, or several that
            could be meant.

    Example:
        >>> choose_columns(("id", "sentence", "Label")).notes
        ("Texts are taken from column 'sentence', labels from 'Label'.",)
    """
    for option in ("text", "label", "image"):
        given = getattr(asked, option)
        if given is not None and given not in names:
            raise ValueError(
                f"it has no column '{printable(given, 80)}' (--{option}-column), it has "
                f"{_listed(names)}"
            )
    if asked.text is not None and asked.image is not None:
        raise ValueError("give --text-column or --image-column, not both")
    label = asked.label or _guessed(
        [n for n in names if n not in (asked.text, asked.image)], LABELS, "label"
    )
    rest = [name for name in names if name != label]
    text, image = asked.text, asked.image
    if text is None and image is None:
        text, image = _guessed(rest, TEXTS, "text"), _guessed(rest, IMAGES, "image")
        if text is not None and image is not None:
            raise ValueError(
                f"its columns '{printable(text, 80)}' and '{printable(image, 80)}' could be the "
                "samples: give --text-column or --image-column"
            )
        if text is None and image is None and len(rest) == 1:
            text = rest[0]
    samples = text or image
    if samples is None:
        raise ValueError(
            f"none of its columns {_listed(names)} is known to hold texts or images: give "
            "--text-column or --image-column"
        )
    kind = "Texts" if text else "Images"
    said = f"{kind} are taken from column '{printable(samples, 80)}'"
    if label is None:
        said += f", and there are no labels among {_listed(names)} (--label-column)"
    else:
        said += f", labels from '{printable(label, 80)}'"
    told = (asked.text or asked.image) and asked.label
    return Chosen(samples, label, text is None, () if told else (f"{said}.",))


def _guessed(names: Sequence[str], known: Sequence[str], option: str) -> str | None:
    found = [name for name in names if name.casefold() in known]
    if len(found) > 1:
        raise ValueError(
            f"its columns {_listed(found)} could each be the {option}: give --{option}-column"
        )
    return found[0] if found else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(name, 40)}'" for name in names[:_SHOWN])
    return shown + (", …" if len(names) > _SHOWN else "")
