"""Lists of class names, and the fingerprint of samples."""

import pytest
import torch

from d3fast.data import ImageData, fingerprint, read_classes
from d3fast.text import TextData


def test_a_list_of_classes_is_read_in_its_order(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\n  frog \n\ncat\n")
    assert read_classes(tmp_path / "classes.txt") == ("dog", "frog", "cat")


@pytest.mark.parametrize(("lines", "error_text"), [("a\nb\na\n", "twice"), ("", "no class")])
def test_a_list_that_cannot_be_one_is_refused(tmp_path, lines, error_text):
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(ValueError, match=error_text):
        read_classes(tmp_path / "classes.txt")


def test_the_fingerprint_tells_samples_apart():
    images = ImageData(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"))
    texts = [TextData(torch.zeros(2, 4).long(), torch.tensor([0, n]), ("a", "b")) for n in (0, 1)]
    assert len({fingerprint(data) for data in (images, *texts)}) == 3
