"""How `auto` weighs the residuals: by their errors on records that they had not seen."""

import numpy as np
import pytest
from synthetic_latency import block_records, random_blocks, random_network, true_latency_ms

from netlathe.archspace.records import LatencyRecord
from netlathe.predictor import LatencyPredictor, PredictorError, cross_validate
from netlathe.predictor.blocks.block_model import MeasuredBlocks
from netlathe.predictor.features.samples import sample_of
from netlathe.predictor.validation.choose_residual import _stacked, choose_residual
from netlathe.predictor.validation.held_out import HeldOut, Trial

N = 40
KINDS = ("none", "gp", "xgboost", "forest")
WRONG = 0.2 * np.random.default_rng(0).standard_normal(N)
BLOCKS = block_records(random_blocks(40, seed=3), noise=0.02)
FEW = BLOCKS[:18]


def held_out(**errors):
    """Errors of each kind, unless given as wrong as any."""
    columns = np.stack([errors.get(kind, np.full(N, 0.5)) for kind in KINDS], axis=1)
    return HeldOut(columns, np.zeros(N), np.zeros(N), np.arange(N))


def stacked(near, *far):
    return dict(_stacked(Trial(near, far), KINDS))


def measured(records: list[LatencyRecord]) -> MeasuredBlocks:
    return MeasuredBlocks.of(sample_of(records, None, None))


def test_two_that_are_wrong_in_opposite_ways_are_mixed():
    found = stacked(held_out(gp=WRONG, forest=-WRONG))
    assert found == pytest.approx({"gp": 0.5, "forest": 0.5})
    assert stacked(held_out(gp=WRONG, xgboost=-WRONG / 4)) == pytest.approx({"gp": 0.2, "xgboost": 0.8})


def test_one_that_is_far_better_is_left_alone():
    independent = 0.2 * np.random.default_rng(1).standard_normal(N)
    assert stacked(held_out(gp=WRONG / 50, forest=independent)) == {"gp": 1.0}


def test_nothing_is_put_on_physics_that_does_as_well():
    assert stacked(held_out(**dict.fromkeys(KINDS, WRONG))) == {"none": 1.0}


def test_errors_far_from_the_records_count_as_those_near_them():
    near, far = held_out(gp=WRONG / 10, forest=WRONG), held_out(gp=10 * WRONG, forest=WRONG / 10)
    assert stacked(near) == {"gp": 1.0}
    assert max(stacked(near, far), key=stacked(near, far).get) == "forest"


def test_a_way_of_holding_out_that_tells_nothing_decides_nothing():
    unknown = held_out(**dict.fromkeys(KINDS, np.full(N, np.nan)))
    assert stacked(held_out(gp=WRONG, forest=-WRONG), unknown) == pytest.approx({"gp": 0.5, "forest": 0.5})


def test_where_networks_alone_are_measured_residuals_serve_them_too():
    """Their inputs and outputs are all of one size, so no stage can be left out."""
    networks = [random_network(seed) for seed in range(60)]
    depth = np.array([len(network.segments()) for network in networks])
    latency_ms = np.array([true_latency_ms(network) for network in networks]) * np.where(depth > 7, 1.5, 1.0)
    data = MeasuredBlocks.of(sample_of(networks, latency_ms, None))
    weights, trial = choose_residual(data, "auto", 0)
    assert weights.get("none", 0) < 0.5
    assert trial.typical < 0.8 * choose_residual(data, "none", 0)[1].typical


def test_the_errors_of_a_mixture_are_those_that_its_intervals_are_made_of():
    weights = {"gp": 0.6, "forest": 0.4}
    _, mixed = choose_residual(measured(FEW), weights, 0)
    alone = [choose_residual(measured(FEW), kind, 0)[1].near.errors for kind in weights]
    assert mixed.near.errors == pytest.approx(0.6 * alone[0] + 0.4 * alone[1])


def test_a_mixture_s_weights_can_be_given_and_are_told(tmp_path):
    weights = {"gp": 0.6, "forest": 0.4}
    predictor = LatencyPredictor(weights).fit(FEW)
    assert predictor.residual_ == "0.6 gp + 0.4 forest"
    predictor.save(tmp_path / "p.json")
    again, items = LatencyPredictor.load(tmp_path / "p.json"), [record.graph for record in FEW]
    assert again.residual == weights
    assert np.array_equal(again.predict(items), predictor.predict(items))
    parts = [LatencyPredictor(kind).fit(FEW).predict(items) for kind in weights]
    assert predictor.predict(items) == pytest.approx(parts[0] ** 0.6 * parts[1] ** 0.4)


def test_cross_validation_takes_the_weights_that_a_fit_found():
    auto = cross_validate(FEW, splits=["configuration"], folds=2)
    weights = LatencyPredictor().fit(FEW).model_.blocks.residual.weights
    given = cross_validate(FEW, residual=weights, splits=["configuration"], folds=2)
    assert np.allclose(*(found.splits["configuration"].predicted_ms for found in (auto, given)), rtol=1e-12)


@pytest.mark.parametrize("weights", [{}, {"gp": 0.5}, {"gp": 1.5, "none": -0.5}, {"ridge": 1.0}, {"gp": float("nan")}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(PredictorError, match="must sum up to 1"):
        LatencyPredictor(weights).fit(BLOCKS)
