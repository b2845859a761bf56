"""Rows of tables become the graphs that their configurations describe."""

import pandas as pd
import pytest

from archspace.blocks import MBConv, SeparableConv
from archspace.configurations import graph_of, graphs_of
from archspace.errors import RecordError
from archspace.ops import ActivationKind


def row(**cells):
    return graph_of(cells)


def test_an_mbconv_row_is_the_block():
    block = MBConv(24, 40, 56, 56, 2, 5, 6, ActivationKind.HARD_SWISH, 0.25)
    graph = row(
        op="mbconv", height=56, cin=24, cout=40, kernel=5, stride=2, expand=6, activation="hard_swish", se=0.25
    )  # fmt: skip
    assert graph.key == block.graph().key


def test_middle_channels_may_stand_for_the_expansion():
    graph = row(op="mbconv", height=28, cin=18, cout=18, kernel=3, stride=1, mid=40)
    assert graph.shapes[1][3] == 40


@pytest.mark.parametrize(("skip", "adds"), [(1, 1), (0, 0), (None, 1), (float("nan"), 1)])
def test_skip_tells_whether_a_block_has_its_residual(skip, adds):
    graph = row(op="mbconv", height=28, cin=32, cout=32, kernel=3, stride=1, expand=6, skip=skip)
    assert sum(node.op.kind == "add" for node in graph.nodes) == adds


def test_a_convolution_beside_the_block_is_a_shortcut_and_not_a_network():
    cells = {"op": "mbconv", "height": 32, "cin": 16, "cout": 24, "kernel": 3, "expand": 3, "shortcut": "conv"}
    graph, strided = row(**cells, stride=1), row(**cells, stride=2)
    assert [n.op.kind for n in graph.nodes][-2:] == ["conv", "add"]
    assert [n.op.kind for n in strided.nodes][-3:] == ["pool", "conv", "add"]
    assert not graph.is_network
    assert graph.macs == MBConv(16, 24, 32, 32, 1, 3, 3).graph().macs + 32 * 32 * 16 * 24


def test_names_of_published_tables_are_understood():
    ours = row(op="depthwise", height=14, cin=96, kernel=5, stride=1)
    table = pd.DataFrame([{"op": "DEPTHWISE_CONV_2D", "hw_in": 14, "cin": 96, "k": 5, "s": 1, "latency_ms": 1.0}])
    assert graphs_of(table)[0].key == ours.key


@pytest.mark.parametrize(
    ("cells", "macs", "shape"),
    [
        ({"op": "conv", "height": 8, "cin": 4, "cout": 6, "kernel": 3, "stride": 2}, 4 * 4 * 4 * 6 * 9, (1, 4, 4, 6)),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 6, "groups": 2}, 8 * 8 * 2 * 6, (1, 8, 8, 6)),
        ({"op": "conv", "height": 9, "cin": 4, "cout": 6, "kernel": 3, "stride": 2, "out_height": 4}, 16 * 4 * 6 * 9,
         (1, 4, 4, 6)),
        ({"op": "fc", "cin": 10, "cout": 7}, 70, (1, 7)),
        ({"op": "maxpool", "height": 8, "cin": 4, "kernel": 2, "stride": 2}, 0, (1, 4, 4, 4)),
        ({"op": "mean", "height": 7, "cin": 4}, 0, (1, 4)),
        ({"op": "concat", "height": 7, "cin": 4, "cout": 12}, 0, (1, 7, 7, 12)),
        ({"op": "add", "height": 7, "cin": 4}, 0, (1, 7, 7, 4)),
        ({"op": "hard_swish", "height": 7, "cin": 4}, 0, (1, 7, 7, 4)),
        ({"op": "softmax", "cin": 10}, 0, (1, 10)),
    ],
)  # fmt: skip
def test_kernels_have_their_work_and_their_shape(cells, macs, shape):
    graph = graph_of(cells)
    assert (graph.macs, graph.output_shape) == (macs, shape)


def test_fused_ops_follow_the_kernel():
    graph = row(op="conv", height=8, cin=4, cout=4, fused="add+hard_swish")
    assert [n.op.kind for n in graph.nodes] == ["conv", "add", "activation"]


def test_sepconv_is_depthwise_then_pointwise():
    assert (
        row(op="sepconv", height=14, cin=8, cout=16, kernel=3, stride=2).key
        == SeparableConv(8, 16, 14, 14, 2).graph().key
    )


def test_block_names_are_a_table_of_their_own():
    block = MBConv(24, 24, 56, 56)
    assert graphs_of(pd.DataFrame({"block": [block.name, block.name]}), batch=4)[1].key == block.graph(4).key


def test_equal_rows_share_one_graph():
    table = pd.DataFrame([{"op": "conv", "h": 8, "cin": 4, "cout": 6}] * 3)
    first, *others = graphs_of(table)
    assert all(other is first for other in others)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"op": "warp"}, "unknown op 'warp'; known: mbconv"),
        ({"op": "conv", "height": 8, "cin": 4}, "conv needs a value in the column 'cout'"),
        ({"op": "conv", "height": 8.5, "cin": 4, "cout": 4}, "height must be a whole number, got 8.5"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "activation": "spline"}, "unknown activation 'spline'"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "out_height": 3}, "do not give 3 pixels"),
        (
            {"op": "mbconv", "height": 8, "cin": 4, "cout": 4, "kernel": 4, "stride": 1, "expand": 6},
            "kernel must be odd",
        ),
    ],
)
def test_a_bad_row_says_which_and_why(cells, message):
    table = pd.DataFrame([{"op": "conv", "height": 8, "cin": 4, "cout": 6}, cells])
    with pytest.raises(RecordError, match=f"row 1: .*{message}"):
        graphs_of(table)


def test_a_table_without_ops_says_what_it_has():
    with pytest.raises(RecordError, match="neither a column `op` nor `block`; it has a, b"):
        graphs_of(pd.DataFrame({"a": [1], "b": [2]}))
