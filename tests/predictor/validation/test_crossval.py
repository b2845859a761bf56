import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic_latency import SETUP, block_records, head_and_stem_records, network_records, random_blocks, record

from netlathe.archspace.blocks import Pool
from netlathe.archspace.errors import RecordError
from netlathe.archspace.records import Measurement, Round, Status
from netlathe.predictor import LatencyPredictor, PredictorError, TooFewRecordsError, cross_validate
from netlathe.predictor.transfer.prior import Prior

BLOCKS = random_blocks(60)
RECORDS = block_records(BLOCKS, noise=0.01)
STEADY = (1.0, 1.001, 1.0, 1.001)


def measured(one, factors):
    """The same record with a round per factor."""
    rounds = tuple(Round((one.latency_ms * factor,)) for factor in factors)
    return dataclasses.replace(one, measurement=Measurement(rounds))


@pytest.fixture(scope="module")
def everything():
    return cross_validate(RECORDS, folds=5, residual="none")


def test_every_block_is_predicted_once_and_well(everything):
    blocks = everything.splits["configuration"]
    assert sorted(blocks.names) == sorted(r.name for r in RECORDS)
    assert blocks.metrics.n == 60
    assert blocks.metrics.within_10 > 0.95
    assert 0.8 < blocks.metrics.coverage <= 1
    assert everything.not_predicted == everything.unsteady == ()
    measured_ms = {r.name: r.latency_ms for r in RECORDS}
    assert blocks.measured_ms.tolist() == [measured_ms[n] for n in blocks.names]


def test_all_splits_that_the_blocks_admit_are_there_and_the_rest_says_why_not(everything):
    assert list(everything.splits) == ["configuration", "kernel", "stage", "larger"]
    assert "measured twice" in everything.impossible["random"]
    assert "fewer than two networks" in everything.impossible["network"]


def test_blocks_are_told_apart_by_kind(everything):
    by_kind = everything.splits["configuration"].by_kind()
    assert list(by_kind) == ["mbconv k3", "mbconv k5", "mbconv k7"]
    assert sum(part.metrics.n for part in by_kind.values()) == 60


def test_a_configuration_is_never_predicted_from_itself():
    # Latencies that have nothing to do with the blocks cannot be predicted; a leak would predict them.
    noise = np.random.default_rng(0).uniform(1, 10, 18).tolist()
    blocks = random_blocks(18)
    twice = [record(f"{b.name}-{copy}", b.graph(), ms) for b, ms in zip(blocks, noise, strict=True) for copy in (1, 2)]
    found = cross_validate(twice, folds=3, residual="gp", splits=["configuration"]).splits["configuration"]
    assert found.metrics.within_10 < 0.4
    assert found.metrics.spearman < 0.5


def test_an_interval_knows_nothing_of_the_block_that_it_is_about():
    wild = measured(RECORDS[0], [9.0])
    found = cross_validate([wild, *RECORDS[1:19]], folds=19, residual="none", splits=["configuration"])
    blocks = found.splits["configuration"]
    widest = blocks.half_widths[blocks.names.index(wild.name), -1]
    assert widest < np.log(9) / 2  # with its own error among the scores, it would be the widest of all


def test_leaving_a_kernel_size_out_is_an_extrapolation_that_the_interval_knows(everything):
    kernel = everything.splits["kernel"].metrics
    assert kernel.n == 60
    assert kernel.within_10 < 0.8  # the cliff at 7x7 cannot be guessed from 5x5
    assert kernel.coverage > 0.8


def test_larger_inputs_are_predicted_from_smaller_ones(everything):
    larger = everything.splits["larger"]
    assert 20 <= larger.metrics.n <= 40
    assert larger.metrics.within_10 > 0.8


def test_networks_are_predicted_from_the_other_networks():
    networks = network_records(range(10), slope=1.15, offset_ms=0.5, noise=0.01)
    found = cross_validate(RECORDS + head_and_stem_records() + networks, residual="none", splits=["network"])
    assert sorted(found.splits["network"].names) == sorted(r.name for r in networks)
    assert set(found.splits["network"].kinds) == {"network"}
    assert found.splits["network"].metrics.within_10 == 1
    assert found.splits["network"].metrics.coverage >= 0.8


def predicted_ms(records, name):
    found = cross_validate(records, residual="none", splits=["network"]).splits["network"]
    return found.predicted_ms[found.names.index(name)]


def test_a_network_s_own_latency_does_not_reach_its_prediction():
    networks = network_records(range(6), slope=1.0, offset_ms=0.0)
    wild = measured(networks[2], [50.0])
    blocks = RECORDS + head_and_stem_records()
    calm = predicted_ms(blocks + networks, "net2")
    assert predicted_ms([*blocks, *networks[:2], wild, *networks[3:]], "net2") == calm


def test_networks_that_the_fit_leaves_out_are_left_out_here():
    networks = [measured(r, STEADY) for r in network_records(range(6), slope=1.1, offset_ms=0.2)]
    shaky = measured(networks[1], (1.0, 3.0, 1.0, 3.0))
    records = [*RECORDS, *head_and_stem_records(), networks[0], shaky, *networks[2:]]
    found = cross_validate(records, residual="none", splits=["network"])
    assert found.unsteady == ("net1",)
    assert found.splits["network"].metrics.n == LatencyPredictor("none").fit(records).n_networks_ == 5


def test_where_only_networks_are_measured_they_are_predicted_from_each_other():
    networks = network_records(range(30), slope=1.0, offset_ms=0.0)
    found = cross_validate(networks, residual="none")
    assert list(found.splits) == ["network"]
    assert found.splits["network"].metrics.n == 30
    assert found.splits["network"].metrics.spearman > 0.9


def test_items_and_latencies_are_as_good_as_records():
    graphs, latency_ms = [r.graph for r in RECORDS], [r.latency_ms for r in RECORDS]
    of_records, of_items = (
        cross_validate(*given, residual="none", setup=SETUP, splits=["configuration"])
        for given in ((RECORDS,), (graphs, latency_ms))
    )
    assert of_items.setup == SETUP
    expected = of_records.splits["configuration"].predicted_ms
    assert of_items.splits["configuration"].predicted_ms.tolist() == expected.tolist()
    table = pd.DataFrame({"block": [b.name for b in BLOCKS]})
    of_table = cross_validate(table, latency_ms, residual="none", splits=["configuration"])
    assert of_table.splits["configuration"].predicted_ms.tolist() == expected.tolist()


def test_a_block_with_an_op_of_its_own_is_named_and_not_predicted():
    pool = Pool("max", 16, 28, 28)
    records = [*RECORDS, record(pool.name, pool.graph(), 0.1)]
    found = cross_validate(records, folds=5, residual="none", splits=["configuration"])
    assert found.not_predicted == (pool.name,)
    assert found.splits["configuration"].metrics.n == 60


def test_the_noise_floor_comes_from_the_measurements():
    noisy = [measured(r, (1.0, 1.02, 1.0, 1.02)) for r in RECORDS]
    assert cross_validate(RECORDS, residual="none", splits=[]).noise_floor is None
    assert cross_validate(noisy, residual="none", splits=[]).noise_floor == pytest.approx(1 - 1 / 1.02)


def test_where_there_are_no_rounds_repetitions_tell_the_noise():
    again = [measured(r, [1.04]) for r in RECORDS[:30]]
    found = cross_validate(RECORDS + again, residual="none", splits=["random", "configuration"])
    assert found.noise_floor == pytest.approx(1 - 1 / 1.04)
    assert found.splits["random"].metrics.n == 90


def test_with_too_few_blocks_to_hold_any_out_nothing_is_predicted():
    found = cross_validate(RECORDS[:3], residual="none")
    assert not found.splits
    assert "2 of 3" in found.impossible["configuration"]


def test_failed_records_are_left_out():
    failed = dataclasses.replace(RECORDS[0], status=Status.FAILED, measurement=None, message="no")
    found = cross_validate([failed, *RECORDS[1:]], residual="none", splits=["configuration"])
    assert found.splits["configuration"].metrics.n == 59


def test_impossible_requests_say_why():
    with pytest.raises(PredictorError, match="at least 2 folds"):
        cross_validate(RECORDS, folds=1)
    with pytest.raises(PredictorError, match="phase of the moon"):
        cross_validate(RECORDS, splits=["phase of the moon"])
    with pytest.raises(TooFewRecordsError):
        cross_validate(RECORDS[:2])
    with pytest.raises(TooFewRecordsError):
        cross_validate(network_records(range(2), 1, 0))
    with pytest.raises(TooFewRecordsError):
        cross_validate([])
    with pytest.raises(RecordError, match="do not mix"):
        cross_validate([*RECORDS, dataclasses.replace(RECORDS[0], setup=dataclasses.replace(SETUP, dtype="int8"))])


def test_with_a_prior_three_blocks_predict_each_other():
    prior = Prior.learn({"like it": ([r.graph for r in RECORDS], [3 * r.latency_ms for r in RECORDS])})
    found = cross_validate(RECORDS[:3], prior=prior, splits=["configuration"]).splits["configuration"]
    assert found.metrics.n == 3
    assert found.metrics.within_10 == 1


def test_a_prior_of_devices_unlike_this_one_is_left_out_as_in_the_fit():
    noise = np.random.default_rng(0).uniform(1, 100, 60)
    prior = Prior.learn({"unlike": ([r.graph for r in RECORDS], noise.tolist())})
    with_prior, without = (
        cross_validate(RECORDS, residual="none", prior=known, splits=["configuration"]).splits["configuration"]
        for known in (prior, None)
    )
    assert with_prior.predicted_ms.tolist() == without.predicted_ms.tolist()
