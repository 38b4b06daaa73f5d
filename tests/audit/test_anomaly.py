"""The anomaly index against numbers worked out by hand, and where there is no spread."""

import math

import pytest

from d3fast.audit.anomaly import MAD_SCALE, anomaly_indices, outliers


def test_the_index_is_the_distance_from_the_median_in_scaled_mads():
    # Median 10, distances 0, 2, 1, 8, 1, their median 1.
    expected = [0.0, 2 / MAD_SCALE, 1 / MAD_SCALE, 8 / MAD_SCALE, 1 / MAD_SCALE]
    assert anomaly_indices([10.0, 12.0, 11.0, 2.0, 9.0]) == pytest.approx(expected)


def test_an_even_number_of_norms_has_the_mean_of_the_middle_two_as_median():
    # Median 2.5, distances 1.5, 0.5, 0.5, 1.5, their median 1.
    assert anomaly_indices([1.0, 2.0, 3.0, 4.0]) == pytest.approx(
        [1.5 / MAD_SCALE, 0.5 / MAD_SCALE, 0.5 / MAD_SCALE, 1.5 / MAD_SCALE]
    )


def test_the_index_does_not_depend_on_units():
    norms = [10.0, 12.0, 11.0, 2.0, 9.0]
    assert anomaly_indices([7 * n for n in norms]) == pytest.approx(anomaly_indices(norms))


def test_only_small_norms_are_outliers():
    norms = [10.0, 12.0, 11.0, 2.0, 9.0, 40.0]
    indices = anomaly_indices(norms)
    assert indices[3] > 2
    assert indices[5] > 2
    assert outliers(norms) == (3,)


def test_several_outliers_come_in_order():
    norms = [1.0, 10.0, 11.0, 12.0, 9.0, 2.0, 10.5, 9.5]
    assert outliers(norms) == (0, 5)


def test_the_threshold_itself_is_not_above_the_threshold():
    norms = [10.0, 12.0, 11.0, 2.0, 9.0]
    index = anomaly_indices(norms)[3]
    assert outliers(norms, index) == ()
    assert outliers(norms, math.nextafter(index, 0)) == (3,)


def test_without_spread_equal_norms_have_index_0_and_others_infinity():
    assert anomaly_indices([5.0] * 4) == (0.0,) * 4
    assert anomaly_indices([5.0, 5.0, 5.0, 1.0, 9.0]) == (0.0, 0.0, 0.0, math.inf, math.inf)
    assert outliers([5.0, 5.0, 5.0, 1.0, 9.0]) == (3,)


@pytest.mark.parametrize("norms", [[0.0], [7.0], [1.0, 1.0], [0.0, 100.0], [100.0, 0.0]])
def test_of_one_or_two_classes_none_stands_out(norms):
    assert all(index < 1 for index in anomaly_indices(norms))
    assert outliers(norms) == ()


@pytest.mark.parametrize(
    ("norms", "error_text"),
    [
        ([], "norms must be one number per class, got none"),
        ([1.0, math.nan], "norms must be finite and >= 0, got nan"),
        ([1.0, math.inf], "norms must be finite and >= 0, got inf"),
    ],
)
def test_what_has_no_median_is_refused(norms, error_text):
    with pytest.raises(ValueError, match=error_text):
        anomaly_indices(norms)
