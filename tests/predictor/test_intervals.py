import math

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import norm, t

from netlathe.predictor.blocks.domain import USUAL_GROWTH, fit_domain
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.item_features import LOG_FEATURES
from netlathe.predictor.intervals import (
    WIDEST,
    Conformal,
    bounds,
    check_coverage,
    expected_scores,
    normal_quantile,
    one_for_each,
    student_quantile,
)
from netlathe.predictor.validation.held_out import HeldOut, Trial


@pytest.mark.parametrize("count", [3, 8, 12, 40])
def test_more_coverage_is_never_a_narrower_interval_however_far_the_worst_score_stands_out(count):
    errors = Conformal(np.array([0.01] * (count - 1) + [1.0]))
    widths = [errors.quantile(c) for c in np.linspace(0.05, 0.999, 200)]
    assert np.all(np.diff(widths) >= 0)
    assert widths[-1] >= 1.0


def test_the_quantile_is_the_conformal_rank():
    errors = Conformal(np.arange(1, 20) / 100)  # ceil(20 * 0.9) = 18th of 19
    assert errors.quantile(0.9) == 0.18
    assert errors.quantile(0.5) == 0.10


@pytest.mark.parametrize("probability", [0.51, 0.75, 0.95, 0.995, 0.9995])
def test_quantiles_are_those_of_scipy(probability):
    assert normal_quantile(probability) == pytest.approx(norm.ppf(probability), rel=1e-12)
    freedoms = [*range(1, 30), 999]
    found = [student_quantile(probability, freedom) for freedom in freedoms]
    assert found == pytest.approx(t.ppf(probability, freedoms), rel=1e-10)


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


def held_out(error: float, excess: float = 0.0) -> HeldOut:
    return HeldOut(np.full(40, error), np.zeros(40), np.full(40, excess), np.arange(40))


HELD_OUT = held_out(0.02)


def test_a_configuration_counts_once_however_often_it_was_measured():
    scores, groups = np.array([0.3, 0.1, 0.2, 0.2, 0.2, 0.2]), ["a", "b", "c", "c", "c", "c"]
    assert one_for_each(scores, groups).tolist() == [0.1, 0.2, 0.3]
    assert one_for_each(scores, list("abcdef")).tolist() == sorted(scores)
    assert one_for_each(np.array([np.nan, 0.1]), ["a", "b"]).tolist() == [0.1]
    assert one_for_each(np.zeros(0), []).tolist() == []


def test_all_measurements_of_configurations_that_scatter_are_in_their_scores():
    scores = np.random.default_rng(0).random((50, 20))
    found = one_for_each(scores.ravel(), np.repeat(np.arange(50), 20))
    assert found == pytest.approx(np.quantile(scores, (np.arange(50) + 0.5) / 50), abs=0.002)


def test_an_interval_grows_just_enough_to_cover_what_is_far_away():
    far = held_out(0.12, 2.0)  # six times the error, two units away
    growth, errors = Trial(HELD_OUT, (far,)).calibrated()
    assert errors.quantile(0.9) == pytest.approx(0.02)
    assert 2.5 <= growth < 2.5 * 1.1  # 1 + 2.5 * 2 = 6


def test_an_interval_grows_with_the_distance_even_where_what_was_far_away_happened_to_be_right():
    lucky = held_out(0.0, 1.0)
    assert Trial(HELD_OUT, (lucky,)).calibrated()[0] == pytest.approx(USUAL_GROWTH / 2)


def test_the_hardest_of_several_ways_to_be_far_sets_the_growth():
    mild, hard = (held_out(error, 1.0) for error in (0.03, 0.2))
    assert Trial(HELD_OUT, (mild, hard)).calibrated()[0] == Trial(HELD_OUT, (hard,)).calibrated()[0]


def test_a_few_records_that_agree_by_chance_do_not_make_a_narrow_interval():
    few = Trial(HELD_OUT.take(np.arange(8)), ()).calibrated()[1].quantile(0.9)
    assert few > 3 * Trial(HELD_OUT, ()).calibrated()[1].quantile(0.9)


def test_without_any_record_held_out_nothing_is_known():
    assert Trial(HELD_OUT.take(np.arange(0)), ()).calibrated()[1].quantile(0.9) == WIDEST


def test_the_distance_is_the_one_to_the_nearest_point_however_many_there_are():
    rng = np.random.default_rng(0)
    domain = fit_domain(rng.standard_normal((3000, len(LOG_FEATURES))))
    wanted = rng.standard_normal((500, len(LOG_FEATURES)))
    nearest = cKDTree(domain.points).query(domain.standardise(wanted))[0]
    assert domain.remoteness(wanted) == pytest.approx(nearest / domain.reach, rel=1e-9)
    assert domain.remoteness(wanted[:0]).shape == (0,)


def test_distance_counts_from_the_usual_gap_on_and_more_outside_the_range():
    domain = fit_domain(np.linspace(0, 1, 11)[:, None] * np.ones(len(LOG_FEATURES)))
    inside, gap, outside = (np.full((1, len(LOG_FEATURES)), x) for x in (0.5, 0.55, 1.4))
    assert domain.excess(inside) == domain.excess(gap) == [0]
    assert domain.stretch(inside) == [1]
    assert domain.remoteness(outside) == pytest.approx([4], rel=1e-6)
    assert domain.excess(outside)[0] > 3
    assert domain.proximity(inside) == [1]
    assert domain.proximity(outside) == pytest.approx([1 / (1 + 3**2)], rel=1e-6)


def test_expected_scores_lie_evenly_over_a_normal_distribution():
    scores = expected_scores(10)
    assert scores == pytest.approx(norm.ppf(0.5 + np.arange(0.025, 0.5, 0.05)))
    assert (np.diff(scores) > 0).all()
    assert Conformal(expected_scores(1000)).quantile(0.9) == pytest.approx(norm.ppf(0.95), rel=0.01)
