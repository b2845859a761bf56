import dataclasses

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, network_records, random_blocks, record

from archspace.blocks import ConvBlock, MBConv, Pool
from archspace.errors import RecordError
from archspace.records import Measurement, Round
from predictor import PredictorError, TooFewRecordsError, cross_validate
from predictor.crossval import depthwise_kernel
from predictor.folds import configuration_folds

RECORDS = block_records(random_blocks(60), noise=0.01)


def test_folds_keep_a_configuration_together_and_use_every_record_once():
    configurations = [f"g{i % 13}" for i in range(50)]
    folds = configuration_folds(configurations, 5, 0)
    assert sorted(np.concatenate(folds).tolist()) == list(range(50))
    members = [{configurations[i] for i in fold} for fold in folds]
    assert sum(map(len, members)) == 13
    assert {len(m) for m in members} == {2, 3}


def test_folds_depend_on_the_seed_alone():
    deal = [[f.tolist() for f in configuration_folds(list("abcdefgh"), 3, seed)] for seed in (1, 1, 2)]
    assert deal[0] == deal[1] != deal[2]


def test_fewer_configurations_than_folds_make_fewer_folds():
    assert [len(fold) for fold in configuration_folds(["a", "b", "a"], 10, 0)] in ([1, 2], [2, 1])


def test_every_block_is_predicted_once_and_well():
    found = cross_validate(RECORDS, 5, residual="none")
    assert sorted(found.blocks.names) == sorted(r.name for r in RECORDS)
    assert found.blocks.metrics.n == 60
    assert found.blocks.metrics.within_10 > 0.95
    assert 0.8 < found.blocks.metrics.coverage <= 1
    assert found.networks is None
    assert found.not_predicted == ()
    measured = {r.name: r.latency_ms for r in RECORDS}
    assert found.blocks.measured_ms.tolist() == [measured[n] for n in found.blocks.names]


def test_a_configuration_is_never_predicted_from_itself():
    # Latencies that have nothing to do with the blocks cannot be predicted; a leak would predict them.
    noise = np.random.default_rng(0).uniform(1, 10, 40).tolist()
    blocks = random_blocks(40)
    twice = [record(f"{b.name}-{copy}", b.graph(), ms) for b, ms in zip(blocks, noise, strict=True) for copy in (1, 2)]
    found = cross_validate(twice, 5, residual="gp")
    assert found.blocks.metrics.within_10 < 0.4
    assert found.blocks.metrics.spearman < 0.5


def test_leaving_a_kernel_size_out_is_an_extrapolation_that_the_interval_knows():
    found = cross_validate(RECORDS, split="kernel", residual="none")
    assert found.split == "kernel"
    assert found.blocks.metrics.n == 60
    assert found.blocks.metrics.within_10 < 0.8  # the cliff at 7x7 cannot be guessed from 5x5
    assert found.blocks.metrics.coverage > 0.8


def test_leaving_the_only_kernel_size_out_is_impossible():
    with pytest.raises(PredictorError, match="one depthwise kernel size"):
        cross_validate(block_records(random_blocks(20, kernels=(3,))), split="kernel")


def test_networks_are_predicted_from_the_other_networks():
    networks = network_records(range(10), slope=1.15, offset_ms=0.5, noise=0.01)
    found = cross_validate(RECORDS + head_and_stem_records() + networks, 3, residual="none")
    assert found.networks.names == tuple(r.name for r in networks)
    assert found.networks.metrics.within_10 == 1
    assert found.networks.metrics.coverage >= 0.8


def test_a_network_s_own_latency_does_not_reach_its_prediction():
    networks = network_records(range(6), slope=1.0, offset_ms=0.0)
    wild = dataclasses.replace(networks[2], measurement=Measurement((Round((networks[2].latency_ms * 50,)),)))
    blocks = RECORDS + head_and_stem_records()
    calm = cross_validate(blocks + networks, 3, residual="none").networks.predicted_ms[2]
    spoiled = cross_validate([*blocks, *networks[:2], wild, *networks[3:]], 3, residual="none").networks.predicted_ms[2]
    assert spoiled == calm


def test_a_block_with_an_op_of_its_own_is_named_and_not_predicted():
    pool = Pool("max", 16, 28, 28)
    found = cross_validate([*RECORDS, record(pool.name, pool.graph(), 0.1)], 5, residual="none")
    assert found.not_predicted == (pool.name,)
    assert found.blocks.metrics.n == 60


def test_the_noise_floor_comes_from_the_measurements():
    def noisy(one):
        rounds = tuple(Round((one.latency_ms * f,)) for f in (1.0, 1.02, 1.0, 1.02))
        return dataclasses.replace(one, measurement=Measurement(rounds))

    assert cross_validate(RECORDS, 3, residual="none").noise_floor is None
    assert cross_validate(list(map(noisy, RECORDS)), 3, residual="none").noise_floor == pytest.approx(1 - 1 / 1.02)


def test_impossible_requests_say_why():
    with pytest.raises(PredictorError, match="at least 2 folds"):
        cross_validate(RECORDS, 1)
    with pytest.raises(PredictorError, match="'phase of the moon'"):
        cross_validate(RECORDS, split="phase of the moon")
    with pytest.raises(TooFewRecordsError):
        cross_validate(RECORDS[:3], 3)
    with pytest.raises(TooFewRecordsError):
        cross_validate(network_records(range(2), 1, 0))
    with pytest.raises(RecordError):
        cross_validate([])


def test_the_depthwise_kernel_of_a_graph_is_its_largest():
    assert depthwise_kernel(MBConv(8, 8, 9, 9, kernel=5).graph()) == 5
    assert depthwise_kernel(ConvBlock(8, 8, 9, 9, kernel=7).graph()) == 0
