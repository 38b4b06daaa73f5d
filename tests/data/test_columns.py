"""Which columns hold samples and labels."""

import pytest

from d3fast.data.columns import Chosen, Columns, choose_columns


@pytest.mark.parametrize(
    ("names", "samples", "label", "images"),
    [
        (("text", "label"), "text", "label", False),
        (("id", "Review", "Target", "date"), "Review", "Target", False),
        (("image", "label"), "image", "label", True),
        (("file_name", "class", "width"), "file_name", "class", True),
        (("utterance", "category"), "utterance", "category", False),  # the only one left
        (("sentence",), "sentence", None, False),
    ],
)
def test_columns_are_guessed_and_said(names, samples, label, images):
    chosen = choose_columns(names)
    assert (chosen.samples, chosen.label, chosen.images) == (samples, label, images)
    (note,) = chosen.notes
    assert f"'{samples}'" in note
    assert "no labels" in note if label is None else f"'{label}'" in note


def test_what_the_user_says_is_not_guessed_and_not_noted():
    names = ("text", "content", "label", "class")
    asked = Columns(text="content", label="class")
    assert choose_columns(names, asked) == Chosen("content", "class", images=False)
    assert choose_columns(("a", "b"), Columns(image="a", label="b")).images


@pytest.mark.parametrize(
    ("names", "asked", "says"),
    [
        (("text", "sentence", "label"), {}, "'text', 'sentence' could each be the text.*--text-c"),
        (("text", "label", "class"), {}, "'label', 'class' could each be the label.*--label-c"),
        (("text", "image"), {}, "'text' and 'image' could be the samples"),
        (("a", "b", "label"), {}, "none of its columns 'a', 'b', 'label' is known"),
        (("text",), {"label": "y"}, "no column 'y' \\(--label-column\\), it has 'text'"),
        (("a", "b"), {"text": "a", "image": "b"}, "not both"),
    ],
)
def test_what_cannot_be_told_is_one_line(names, asked, says):
    with pytest.raises(ValueError, match=says):
        choose_columns(names, Columns(**asked))


def test_long_lists_and_control_characters_are_cut():
    with pytest.raises(ValueError, match="…") as raised:
        choose_columns([f"\x1b[31m{n}" for n in range(1000)])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600
