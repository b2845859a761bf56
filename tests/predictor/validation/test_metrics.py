import math

import numpy as np
import pytest

from netlathe.predictor.errors import PredictorError
from netlathe.predictor.validation.metrics import LEVELS, Predictions, measure


def test_closed_form_figures():
    metrics = measure([1, 2, 4, 10], [1.04, 1.8, 4.8, 10], low=[0.9, 1.7, 4.5, 9], high=[1.1, 1.9, 5.2, 11])
    assert metrics.n == 4
    assert metrics.mape == pytest.approx((0.04 + 0.10 + 0.20 + 0) / 4)
    assert (metrics.within_5, metrics.within_10, metrics.coverage) == (0.5, 0.75, 0.5)
    assert metrics.spearman == pytest.approx(1)


def test_spearman_is_about_ranks_only():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert measure(y, np.exp(y)).spearman == pytest.approx(1)
    assert measure(y, -y).spearman == pytest.approx(-1)
    assert measure(y, [1, 3, 2, 4]).spearman == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)


def test_spearman_of_a_constant_is_not_a_number():
    assert math.isnan(measure([1, 2], [3, 3]).spearman)


def test_without_intervals_there_is_no_coverage():
    assert measure([1.0], [1.0]).coverage is None


@pytest.mark.parametrize(("y", "p"), [([], []), ([1, 2], [1]), ([0.0], [1.0]), ([float("nan")], [1.0])])
def test_what_cannot_be_compared_is_refused(y, p):
    with pytest.raises(PredictorError, match=r"compared|above zero"):
        measure(y, p)


def test_the_text_reads_in_percent():
    assert str(measure([1, 2], [1, 2.2], [0, 0], [9, 9])) == (
        "n = 2: mean error 5.0 %, 50 % within ±5 %, 100 % within ±10 %, Spearman 1.000, 100 % inside their intervals"
    )


def two_kinds():
    half_widths = np.log([[1.01, 1.02, 1.03, 1.04, 1.05, 1.06]] * 2 + [[1.1] * 6])
    return Predictions(
        ("a", "b", "c"), ("mbconv k3", "linear", "mbconv k3"), np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.06, 4.2]),
        half_widths,
    )  # fmt: skip


def test_intervals_are_factors_around_the_prediction():
    low, high = two_kinds().interval_ms(0.9)
    assert low == pytest.approx([1 / 1.05, 2.06 / 1.05, 4.2 / 1.1])
    assert high == pytest.approx([1.05, 2.06 * 1.05, 4.2 * 1.1])


def test_coverages_are_shares_inside_the_intervals_of_each_level():
    assert LEVELS == (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    # a is inside all, b is 3 % off (just inside from the third level on), c is 5 % off within 10 %
    assert two_kinds().coverages() == pytest.approx([2 / 3, 2 / 3, 1, 1, 1, 1])
    assert two_kinds().metrics.coverage == 1


def test_predictions_come_apart_by_kind_and_together_again():
    by_kind = two_kinds().by_kind()
    assert list(by_kind) == ["linear", "mbconv k3"]
    assert by_kind["mbconv k3"].names == ("a", "c")
    assert by_kind["linear"].predicted_ms.tolist() == [2.06]
    together = Predictions.joined([by_kind["mbconv k3"], by_kind["linear"]])
    assert together.names == ("a", "c", "b")
    assert together.half_widths.shape == (3, 6)
    assert together.metrics.mape == pytest.approx(two_kinds().metrics.mape)
