import json

import numpy as np
import pytest

from netlathe.predictor.networks.network_model import NetworkModel
from netlathe.predictor.networks.network_model import fit_network_model as fit_by_key
from netlathe.predictor.networks.segments import BlockSums

SUMS = np.linspace(5, 60, 12)


def sums(latency_ms, half_width=0.05, weight_mb=0.0, blocks=0.0):
    latency_ms = np.asarray(latency_ms, dtype=float)
    ones = np.ones_like(latency_ms)
    return BlockSums(latency_ms, ones, 0 * ones, half_width * ones, weight_mb * ones, blocks * ones, 0.1 * latency_ms)


def fit_network_model(given, latency_ms):
    """Of networks that are all different."""
    return fit_by_key(given, latency_ms, [str(index) for index in range(len(latency_ms))])


@pytest.mark.parametrize(("slope", "offset_ms"), [(1.1, 2.0), (0.94, 0.0), (1.0, -1.5), (1.6, 3.0)])
def test_slope_and_offset_are_recovered(slope, offset_ms):
    model = fit_network_model(sums(SUMS), offset_ms + slope * SUMS)
    assert model.slope == pytest.approx(slope, rel=0.01)
    assert model.offset_ms == pytest.approx(offset_ms, abs=0.1)
    assert model.predict(sums(np.array([100.0]))) == pytest.approx(offset_ms + 100 * slope, rel=0.01)


def test_without_networks_a_network_is_the_sum_of_its_blocks():
    model = fit_network_model(sums([]), np.array([]))
    assert (model.slope, model.offset_ms) == (1, 0)
    assert model.predict(sums(np.array([7.0]))) == [7]


def test_one_network_mostly_sets_the_slope():
    # Posterior mean of y/S = 1.2 at S = 10, y = 12 under prior deviations 0.2 and 0.2 * 12 ms and 2 % noise.
    model = fit_network_model(sums([10.0]), np.array([12.0]))
    deviations = np.array([0.2, 2.4])
    design = np.array([10 / 12, 1 / 12])
    gain = deviations**2 * design / (design @ (deviations**2 * design) + 0.02**2)
    assert [model.slope, model.offset_ms] == pytest.approx(np.array([1, 0]) + gain * (1 - 10 / 12))
    assert model.predict(sums(np.array([10.0])))[0] == pytest.approx(12, rel=0.01)


def test_two_networks_fix_the_line_between_them():
    model = fit_network_model(sums([10.0, 40.0]), np.array([13.0, 46.0]))
    assert model.predict(sums(np.array([10.0, 25.0, 40.0]))) == pytest.approx([13, 29.5, 46], rel=0.02)


def test_the_cost_of_cold_weights_and_of_calls_saved_is_told_apart():
    rng = np.random.default_rng(0)
    latency_ms, weight_mb, blocks = rng.uniform(5, 60, 16), rng.uniform(1, 40, 16), rng.integers(5, 40, 16)
    given = sums(latency_ms, weight_mb=weight_mb, blocks=blocks)
    model = fit_network_model(given, 1.05 * latency_ms + 0.3 * weight_mb - 0.02 * blocks)
    assert model.slope == pytest.approx(1.05, rel=0.01)
    assert model.ms_per_weight_mb == pytest.approx(0.3, rel=0.03)
    assert model.predict(given) == pytest.approx(1.05 * latency_ms + 0.3 * weight_mb - 0.02 * blocks, rel=0.01)


def test_weights_never_make_a_network_faster_nor_blocks_slower():
    rng = np.random.default_rng(1)
    latency_ms, weight_mb, blocks = rng.uniform(20, 60, 16), rng.uniform(1, 40, 16), rng.integers(5, 40, 16)
    model = fit_network_model(
        sums(latency_ms, weight_mb=weight_mb, blocks=blocks), latency_ms - 0.2 * weight_mb + 0.1 * blocks
    )
    assert model.ms_per_weight_mb >= 0
    assert model.ms_per_block <= 0


def test_contributions_and_offset_add_up_to_the_network():
    rng = np.random.default_rng(2)
    latency_ms, weight_mb = rng.uniform(5, 60, 16), rng.uniform(1, 40, 16)
    model = fit_network_model(sums(latency_ms, weight_mb=weight_mb, blocks=10), 2 + latency_ms + 0.1 * weight_mb)
    assert model.ms_per_block > -0.5  # a tenth of the fastest network: its fastest block
    parts = model.contributions(sums([3.0, 4.0], weight_mb=2.0, blocks=1))
    whole = model.predict(sums([7.0], weight_mb=4.0, blocks=2))
    assert parts.sum() + model.offset_ms == pytest.approx(whole[0])


@pytest.mark.parametrize("place", [0, 3, 11])
@pytest.mark.parametrize("factor", [0.1, 0.2, 3, 10])
def test_one_wrong_network_of_twelve_does_not_move_the_line(factor, place):
    latency_ms = 2 + 1.1 * SUMS
    latency_ms[place] *= factor
    model = fit_network_model(sums(SUMS), latency_ms)
    assert model.predict(sums(SUMS)) == pytest.approx(2 + 1.1 * SUMS, rel=0.03)


def test_the_slope_never_falls_below_zero():
    model = fit_network_model(sums(SUMS), 80 - SUMS)
    assert model.slope >= 0
    assert (np.diff(model.predict(sums(SUMS))) >= 0).all()


def test_a_small_network_never_takes_less_than_nothing():
    model = fit_network_model(sums(SUMS), SUMS - 3)
    assert model.predict(sums(np.array([0.1, 1.0, 2.0]))).min() > 0


def test_fewer_networks_leave_more_doubt():
    one = sums([30.0])
    widths = [fit_network_model(sums(SUMS[:n]), 1.1 * SUMS[:n]).half_widths(one, 0.9)[0] for n in (0, 1, 3, 12)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.3
    assert widths[-1] < 0.02


def test_networks_far_beyond_the_measured_ones_are_doubted_more():
    rng = np.random.default_rng(0)
    model = fit_network_model(sums(SUMS[:4]), 1.1 * SUMS[:4] * np.exp(0.02 * rng.standard_normal(4)))
    near, far = model.half_widths(sums([20.0, 2000.0]), 0.9)
    assert far > near


def test_intervals_cover_new_networks():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        sums_ms = rng.uniform(10, 60, 21)
        latency_ms = (1.5 + 1.05 * sums_ms) * np.exp(0.03 * rng.standard_normal(21))
        model, rest = fit_network_model(sums(sums_ms[:11]), latency_ms[:11]), sums(sums_ms[11:])
        off = np.abs(np.log(latency_ms[11:] / model.predict(rest)))
        hits.append(off <= model.half_widths(rest, 0.9))
    assert 0.85 < np.mean(hits) < 0.97


def test_repeated_networks_do_not_make_intervals_narrower():
    """A network that is measured thirty times is held out with all its repetitions, and counts once."""
    latency_ms = 1.1 * SUMS * np.exp(0.05 * np.random.default_rng(3).standard_normal(12))
    again = np.concatenate([np.arange(12), np.full(29, 4)])
    once = fit_network_model(sums(SUMS), latency_ms)
    often = fit_by_key(sums(SUMS[again]), latency_ms[again], again.astype(str).tolist())
    assert len(often.errors.scores) == len(once.errors.scores) == 12
    assert often.half_widths(sums([20.0]), 0.9)[0] > 0.7 * once.half_widths(sums([20.0]), 0.9)[0]


@pytest.mark.parametrize("n", [0, 3, 12])
def test_json_gives_exactly_the_same_model_back(n):
    model = fit_network_model(sums(SUMS[:n]), 2 + 1.1 * SUMS[:n])
    again = NetworkModel.from_json(json.loads(json.dumps(model.to_json())))
    assert np.array_equal(again.predict(sums(SUMS)), model.predict(sums(SUMS)))
    assert np.array_equal(again.half_widths(sums(SUMS), 0.9), model.half_widths(sums(SUMS), 0.9))


@pytest.mark.parametrize(
    "damage",
    [
        {"slope": -1},
        {"ms_per_weight_mb": -1},
        {"ms_per_block": 1},
        {"covariance": np.diag([1, 1, 1, -1]).tolist()},
        {"covariance": (np.eye(4) + np.eye(4, k=1)).tolist()},
        {"covariance": 3},
        {"errors": {"scores": [2, 1]}},
    ],
)
def test_impossible_models_are_refused(damage):
    data = {**fit_network_model(sums(SUMS), 1.1 * SUMS).to_json(), **damage}
    with pytest.raises(ValueError, match=r"negative|shape|not from"):
        NetworkModel.from_json(data)


def test_a_fit_that_ends_at_a_bound_can_be_read_again():
    """The solver leaves bounds by rounding: with seed 56, weights would make networks faster by 1e-17 ms."""
    for seed in range(50, 60):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 9))
        latency_ms, weight_mb = rng.uniform(0.02, 2, count), rng.uniform(0.1, 4, count)
        blocks = rng.integers(5, 40, count)
        slower = 1.05 * latency_ms + 0.003 * blocks * rng.uniform(0.5, 1.5, count)
        model = fit_network_model(sums(latency_ms, weight_mb=weight_mb, blocks=blocks), slower)
        assert model.slope >= 0
        assert model.ms_per_weight_mb >= 0 >= model.ms_per_block
        NetworkModel.from_json(json.loads(json.dumps(model.to_json())))
