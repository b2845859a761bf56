import math

import numpy as np
import pytest
from scipy.stats import t

from predictor.errors import PredictorError
from predictor.intervals import WIDEST, Conformal, bounds, check_coverage


def test_the_quantile_is_the_conformal_rank():
    errors = Conformal(np.arange(1, 20) / 100)  # ceil(20 * 0.9) = 18th of 19
    assert errors.quantile(0.9) == 0.18
    assert errors.quantile(0.5) == 0.10


def test_too_few_scores_fall_back_on_student_s_t():
    errors = Conformal(np.full(4, 0.1))
    assert errors.quantile(0.9) == pytest.approx(t.ppf(0.95, 4) * 0.1 * math.sqrt(1.25))


def test_without_scores_nothing_is_known():
    assert Conformal(np.zeros(0)).quantile(0.9) == WIDEST


def test_more_coverage_is_never_narrower():
    errors = Conformal(np.sort(np.random.default_rng(0).random(30)))
    widths = [errors.quantile(c) for c in np.linspace(0.05, 0.96, 40)]
    assert widths == sorted(widths)


def test_a_new_score_is_covered_as_often_as_asked():
    rng = np.random.default_rng(0)
    hits = [
        rng.standard_exponential() <= Conformal(np.sort(rng.standard_exponential(49))).quantile(0.9)
        for _ in range(4000)
    ]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.015)


def test_bounds_are_factors_around_the_prediction_and_end_somewhere():
    low, high = bounds(np.array([10.0, 10.0]), np.array([math.log(2), 50.0]))
    assert low == pytest.approx([5, 0.1])
    assert high == pytest.approx([20, 1000])


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, float("nan")])
def test_impossible_coverages_are_refused(coverage):
    with pytest.raises(PredictorError, match="between 0 and 1"):
        check_coverage(coverage)
