"""Contract of every data set of the registry. A new data set is a line in ``SMALL``."""

import pytest
import torch

from d3fast.data import DATASETS, RESIZABLE, Splits, load
from d3fast.io.untrusted import is_displayable
from tests.data.small import SMALL

TRAIN, CLEAN = 6, 4


def test_every_data_set_is_tested():
    assert DATASETS.keys() == SMALL.keys()


@pytest.fixture(scope="module", params=SMALL)
def files(request, tmp_path_factory):
    """The name of a data set and the ``data_dir`` of a small copy."""
    return request.param, SMALL[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def splits(files):
    name, data_dir = files
    return load(name, 0, train=TRAIN, clean=CLEAN, data_dir=data_dir)


def parts(splits):
    return splits.train, splits.clean, splits.test


def same(a, b):
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def rows(data):
    return {bytes(image.flatten().tolist()) for image in data.images}


def test_parts_have_the_sizes_requested(splits):
    assert isinstance(splits, Splits)
    assert (len(splits.train), len(splits.clean)) == (TRAIN, CLEAN)
    assert len(splits.test) > 0


def test_parts_have_one_shape_one_dtype_and_one_list_of_classes(splits):
    assert len({part.shape for part in parts(splits)}) == 1
    assert {part.images.dtype for part in parts(splits)} == {torch.uint8}
    assert {part.labels.dtype for part in parts(splits)} == {torch.int64}
    assert len({part.classes for part in parts(splits)}) == 1


def test_names_of_classes_are_distinct_and_can_be_printed(splits):
    names = splits.train.classes
    assert len(set(names)) == len(names) >= 2
    assert all(map(is_displayable, names))


def test_no_image_is_in_two_parts(splits):
    train, clean, test = map(rows, parts(splits))
    assert len(train | clean | test) == len(train) + len(clean) + len(test)


def test_one_seed_gives_one_draw_and_another_seed_another(files, splits):
    name, data_dir = files
    again = load(name, 0, train=TRAIN, clean=CLEAN, data_dir=data_dir)
    assert all(same(a, b) for a, b in zip(parts(splits), parts(again), strict=True))
    other = load(name, 1, train=TRAIN, clean=CLEAN, data_dir=data_dir)
    assert not same(splits.train, other.train)


def test_the_test_part_does_not_depend_on_the_sizes_of_the_others(files, splits):
    name, data_dir = files
    assert same(load(name, 0, train=2, clean=2, data_dir=data_dir).test, splits.test)


def test_without_a_number_train_takes_all_that_clean_leaves_over(files):
    name, data_dir = files
    whole, less = (load(name, 0, clean=clean, data_dir=data_dir).train for clean in (0, CLEAN))
    assert len(whole) == len(less) + CLEAN


def test_every_class_of_the_data_set_keeps_its_share(files):
    name, data_dir = files
    data = load(name, 0, clean=0, data_dir=data_dir).train
    half = load(name, 0, train=len(data) // 2, clean=len(data) // 4, data_dir=data_dir)
    whole = data.labels.bincount(minlength=len(data.classes))
    for part in (half.train, half.clean):
        counts = part.labels.bincount(minlength=len(data.classes))
        assert ((whole * len(part) / len(data) - counts).abs() <= 2).all()


@pytest.mark.parametrize(
    "sizes", [{"train": 10**6}, {"train": None, "clean": 10**6}, {"clean": -1}]
)
def test_impossible_sizes_are_refused(files, sizes):
    name, data_dir = files
    with pytest.raises(ValueError, match="sizes must be >= 0"):
        load(name, 0, **{"train": TRAIN, "clean": CLEAN, **sizes}, data_dir=data_dir)


def test_images_of_files_can_be_resized_and_others_cannot(files):
    name, data_dir = files
    if name in RESIZABLE:
        resized = load(name, 0, train=TRAIN, clean=CLEAN, data_dir=data_dir, size=5)
        assert resized.train.shape[1:] == (5, 5)
    else:
        with pytest.raises(ValueError, match=f"got 5 for {name}"):
            load(name, 0, train=TRAIN, clean=CLEAN, data_dir=data_dir, size=5)


def test_an_empty_folder_is_one_line_that_names_it(files, tmp_path):
    name, _ = files
    if name == "digits":  # part of scikit-learn
        return
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        load(name, 0, clean=1, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
