"""Class names of samples among those of a model."""

import pytest

from d3fast.hub.labels import match_classes


@pytest.mark.parametrize(
    ("given", "classes", "positions", "note"),
    [
        (("dog", "cat"), ("cat", "dog"), (1, 0), None),
        (("Great White", "TABBY"), ("tabby", "great_white"), (1, 0), "'Great White' is 'great_wh"),
        (("tench",), ("goldfish", "tench, Tinca tinca"), (1,), "without case"),
        (("0", "2"), ("bad", "fair", "good"), (0, 2), "positions"),
        (("LABEL_1", "label 0"), ("neg", "pos"), (1, 0), "positions"),
        (("1", "0"), ("LABEL_0", "LABEL_1"), (1, 0), "positions"),
        (("2", "1"), ("1", "2"), (1, 0), None),  # names come before positions
    ],
)
def test_names_are_matched(given, classes, positions, note):
    found, notes = match_classes(given, classes)
    assert found == positions
    assert list(notes) == [] if note is None else note in notes[0]


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        (("great",), ("positive", "negative")),  # no synonyms
        (("3",), ("a", "b", "c")),
        (("0", "dog"), ("cat", "dog")),
        (("crane",), ("crane, bird", "crane, machine")),  # two classes
        (("a b",), ("A_B", "a-b")),
    ],
)
def test_a_name_that_the_model_lacks_is_refused(given, classes):
    with pytest.raises(ValueError, match=f"no class '(?:{'|'.join(given)})'.*it has {classes[0]}"):
        match_classes(given, classes)


def test_the_error_counts_the_others_and_shows_a_few():
    with pytest.raises(ValueError, match=r"'x0' and 9 more .* it has c0, c1, c2, c3, c4, …: "):
        match_classes([f"x{n}" for n in range(10)], [f"c{n}" for n in range(100)])
