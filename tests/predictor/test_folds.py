"""What is held out in each split, and why some splits are impossible."""

import numpy as np
import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip
from netlathe.archspace.configurations import graph_of
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.folds import block_folds, configuration_folds, input_side, kernel_size, op_kind, stage


def graphs(*blocks):
    return [block.graph() for block in blocks]


def held_out(split, *blocks, folds=10):
    return [fold.tolist() for fold in block_folds(split, graphs(*blocks), folds, seed=0)]


def mbconv(channels=8, side=8, kernel=3, stride=1):
    return MBConv(channels, channels, side, side, stride, kernel=kernel)


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


def test_a_record_without_a_configuration_is_never_held_out():
    folds = configuration_folds(["a", None, "b"], 2, 0)
    assert sorted(np.concatenate(folds).tolist()) == [0, 2]


def test_each_kernel_size_is_held_out_as_a_whole():
    folds = held_out("kernel", mbconv(kernel=3), mbconv(kernel=5), mbconv(16, kernel=3), LinearHead(8, 10, 4, 4))
    assert sorted(folds) == [[0, 2], [1]]


def test_each_stage_is_held_out_as_a_whole():
    blocks = [mbconv(kernel=3), mbconv(kernel=5), mbconv(stride=2), mbconv(16), LinearHead(8, 10, 4, 4)]
    assert sorted(held_out("stage", *blocks)) == [[0, 1], [2], [3]]


def test_more_stages_than_folds_are_held_out_several_at_a_time():
    folds = held_out("stage", *(mbconv(c) for c in range(8, 15)), folds=3)
    assert sorted(map(len, folds)) == [2, 2, 3]


def test_larger_inputs_are_about_half_of_the_blocks():
    assert held_out("larger", *(mbconv(side=s) for s in (4, 4, 8, 16, 32, 64))) == [[3, 4, 5]]
    assert held_out("larger", *(mbconv(side=s) for s in (32, 8, 8, 8))) == [[0]]


def test_a_random_split_may_tear_repetitions_apart():
    folds = held_out("random", *[mbconv()] * 9, mbconv(16), folds=5)
    assert sorted(i for fold in folds for i in fold) == list(range(10))
    assert all(len(fold) == 2 for fold in folds)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("random", "no configuration was measured twice"),
        ("kernel", "one kernel size"),
        ("stage", "one stage"),
        ("larger", "one input size"),
    ],
)
def test_a_split_that_the_blocks_do_not_admit_says_why(split, message):
    with pytest.raises(PredictorError, match=message):
        held_out(split, MBConv(8, 8, 8, 8, expand=3), MBConv(8, 8, 8, 8, expand=6))


def test_equal_blocks_cannot_be_told_apart():
    with pytest.raises(PredictorError, match="all the same"):
        held_out("configuration", mbconv(), mbconv())


def test_the_kernel_size_is_the_depthwise_one_before_any_other():
    assert kernel_size(mbconv(kernel=5).graph()) == 5
    assert kernel_size(ConvBlock(8, 8, 9, 9, kernel=7).graph()) == 7
    assert kernel_size(Pool("max", 8, 9, 9, kernel=2).graph()) == 2
    assert kernel_size(LinearHead(8, 10, 4, 4).graph()) is None
    assert kernel_size(ConvBlock(8, 8, 9, 9, kernel=1).graph()) is None


def test_a_stage_is_channels_and_stride():
    assert stage(MBConv(8, 16, 9, 9, 2).graph()) == stage(MBConv(8, 16, 7, 7, 2, kernel=5).graph()) == (8, 16, 2)
    assert stage(LinearHead(8, 10, 4, 4).graph()) is None


def test_the_side_of_an_image_and_of_a_vector():
    assert input_side(MBConv(8, 8, 4, 9).graph()) == 6
    assert input_side(graph_of({"op": "fully_connected", "cin": 5, "cout": 7})) == 1


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (mbconv(kernel=5), "mbconv k5"),
        (MBConv(8, 8, 8, 8, expand=1, se=0.25), "mbconv k3"),
        (SeparableConv(8, 16, 8, 8), "sepconv k3"),
        (ConvBlock(3, 8, 8, 8, 2), "conv k3"),
        (Pool("avg", 8, 8, 8), "avg pool"),
        (LinearHead(8, 10, 4, 4), "linear"),
        (Skip(8, 8, 4, 4), "skip"),
        (Skip(8, 16, 4, 4), "conv k1"),
    ],
)
def test_the_kind_of_a_block(block, kind):
    assert op_kind(block.graph()) == kind


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"op": "depthwise", "height": 8, "cin": 4, "kernel": 3, "fused": "relu"}, "depthwise k3"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 8, "kernel": 3, "groups": 2}, "grouped conv k3"),
        ({"op": "global_pool", "height": 8, "cin": 4}, "global avg pool"),
        ({"op": "add", "height": 8, "cin": 4}, "add"),
        ({"op": "hard_swish", "height": 8, "cin": 4}, "hard swish"),
    ],
)
def test_the_kind_of_a_kernel(row, kind):
    assert op_kind(graph_of(row)) == kind
