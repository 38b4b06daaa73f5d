"""Samples of a user, read as a suspect wants them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from d3fast.data import ImageData, load, save_samples
from d3fast.data.records import Records
from d3fast.hub import Samples, TextInput, open_samples
from tests.hub.suspects import image_suspect, read_samples


@pytest.fixture
def archive(tmp_path):
    """Twelve images, each of one grey: its number; three classes by name."""
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    path = tmp_path / "clean.npz"
    np.savez(path, images=images, labels=np.arange(12) % 3, classes=np.array(["a", "b", "c"]))
    return path


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for grey in range(5):
            Image.new("L", (6, 6), 10 * grey + label).save(root / name / f"{grey}.png")
    return root


def test_every_image_of_an_archive_is_there_once(archive):
    data = read_samples(archive)
    assert data.images[:, 0, 0, 0].tolist() == list(range(12))
    assert (data.images[:, 0, 0, 0] % 3).tolist() == data.labels.tolist()


def test_every_image_of_a_folder_is_there_once(pictures):
    data = read_samples(pictures)
    assert sorted(data.images[:, 0, 0, 0].tolist()) == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
    assert (data.images[:, 0, 0, 0] % 10).tolist() == data.labels.tolist()
    assert data.classes == ("cat", "dog")


def test_train_and_test_folders_are_taken_together(pictures):
    root = pictures.parent / "both"
    root.mkdir()
    pictures.rename(root / "train")
    (root / "test" / "dog").mkdir(parents=True)
    Image.new("L", (6, 6), 99).save(root / "test" / "dog" / "last.png")
    data = read_samples(root)
    assert len(data) == 11
    assert data.labels[data.images[:, 0, 0, 0] == 99].tolist() == [1]


@pytest.mark.parametrize("path", ["archive", "pictures"])
def test_images_have_the_models_size_and_channels(path, request):
    samples = open_samples(request.getfixturevalue(path))
    clean = samples.for_model(image_suspect(3, size=(3, 2)))
    assert clean.data.shape == (3, 3, 2)
    assert clean.notes == ("The model takes colour images: the samples were converted.",)
    assert samples.for_model(image_suspect()).notes == ()


def test_the_suspects_names_number_the_labels(pictures):
    clean = open_samples(pictures).for_model(image_suspect(classes=("Dog", "frog", "Cat")))
    assert clean.data.classes == ("Dog", "frog", "Cat")
    assert (clean.data.labels == 2 - 2 * (clean.data.images[:, 0, 0, 0] % 10)).all()
    assert clean.labelled
    assert "without case" in clean.notes[0]


def test_a_list_of_classes_replaces_the_suspects_names(pictures, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("dog\nfrog\ncat\n")
    for own in (None, ("LABEL_0", "LABEL_1", "LABEL_2")):
        data = open_samples(pictures).for_model(image_suspect(classes=own), names).data
        assert data.classes == ("dog", "frog", "cat")
        assert data.labels.tolist() == [2] * 5 + [0] * 5


@pytest.mark.parametrize(
    ("lines", "own", "error_text"),
    [
        ("cat\nfrog\n", None, "no class 'dog'"),
        ("cat\ndog\ncat\n", None, "twice"),
        ("", None, "names no class"),
        ("cat\ndog\n", ("a", "b", "c"), "must name 3 classes"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(pictures, tmp_path, lines, own, error_text):
    names = tmp_path / "classes.txt"
    names.write_text(lines)
    with pytest.raises(ValueError, match=error_text):
        open_samples(pictures).for_model(image_suspect(classes=own), names)


def test_answers_of_the_suspect_stand_in_for_missing_labels():
    images = torch.tensor([0, 255, 127, 255], dtype=torch.uint8)[:, None, None, None]
    clean = Samples(Records(images, None, None, 1)).for_model(image_suspect())
    assert clean.data.labels.tolist() == [0, 2, 1, 2]
    assert (clean.data.classes, clean.labelled) == (("0", "1", "2"), False)
    assert "agreement" in clean.notes[0]


class Letters:
    """A tokenizer with one id per letter."""

    padding_side, pad_token_id = "right", 0

    def __call__(self, texts, max_length, **_):
        rows = [[ord(c) - 96 for c in text][:max_length] for text in texts]
        return {"input_ids": torch.tensor([r + [0] * (max_length - len(r)) for r in rows])}


def test_texts_become_token_ids():
    suspect = replace(image_suspect(), input=TextInput(Letters(), length=3, pad=0))
    records = Records(("ab", "bcde"), torch.tensor([1, 0]), ("bad", "good"), None)
    data = Samples(records).for_model(suspect).data
    assert (data.ids.tolist(), data.labels.tolist()) == ([[1, 2, 0], [2, 3, 4]], [1, 0])
    with pytest.raises(ValueError, match="48 bytes, more than 47"):
        Samples(records, max_memory=47).for_model(suspect)


def test_texts_do_not_fit_a_model_of_images():
    texts = Samples(Records(("a",), torch.tensor([0]), ("bad",), None))
    with pytest.raises(ValueError, match="the model takes images, the samples are texts"):
        texts.for_model(image_suspect())


def test_samples_beyond_the_memory_limit_are_refused(archive):
    with pytest.raises(ValueError, match=r"takes .* bytes, more than 191 \(--max-memory\)"):
        open_samples(archive, max_memory=191)
    samples = replace(open_samples(archive), max_memory=191)
    with pytest.raises(ValueError, match=r"more than 191: .* --max-memory"):
        samples.for_model(image_suspect())
    assert samples.for_model(image_suspect(size=(2, 2))).data.shape == (1, 2, 2)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="nowhere is missing"):
        open_samples(tmp_path / "nowhere")


def test_samples_that_were_written_are_read_again(tmp_path):
    data = load("digits", 0, clean=100).clean
    save_samples(data, tmp_path / "clean.npz")
    back = read_samples(tmp_path / "clean.npz")
    for one, other in ((back, data), (Samples.of(data).for_model(image_suspect()).data, data)):
        assert isinstance(one, ImageData)
        assert one.classes == other.classes
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
