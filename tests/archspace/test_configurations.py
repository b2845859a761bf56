"""Rows of tables become the graphs that their configurations describe."""

import pandas as pd
import pytest

from netlathe.archspace.blocks import MBConv, SeparableConv
from netlathe.archspace.configurations import graph_of, graphs_of
from netlathe.archspace.errors import RecordError
from netlathe.archspace.ops import Activation, ActivationKind

MBCONV = {"op": "mbconv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "stride": 1, "expand": 6}


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
        ({"op": "conv", "height": 8, "cin": 4, "cout": 6, "kernel": 1, "groups": 2}, 8 * 8 * 2 * 6, (1, 8, 8, 6)),
        ({"op": "conv", "height": 9, "cin": 4, "cout": 6, "kernel": 3, "stride": 2, "out_height": 4}, 16 * 4 * 6 * 9,
         (1, 4, 4, 6)),
        ({"op": "conv1x1", "height": 8, "cin": 4, "cout": 6}, 8 * 8 * 4 * 6, (1, 8, 8, 6)),
        ({"op": "pointwise", "height": 8, "cin": 4, "cout": 6, "kernel": 1.0}, 8 * 8 * 4 * 6, (1, 8, 8, 6)),
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


@pytest.mark.parametrize(
    ("cells", "kinds"),
    [
        ({"op": "conv", "cout": 4, "kernel": 1}, ["conv"]),
        ({"op": "mbconv", "cout": 8, "kernel": 3}, ["conv", "activation", "conv"]),
        ({"op": "sepconv", "cout": 4, "kernel": 3}, ["conv", "activation", "conv", "activation"]),
        ({"op": "mbconv", "cout": 8, "kernel": 3, "shortcut": "conv"}, ["conv", "activation", "conv", "conv", "add"]),
        ({"op": "softmax"}, ["softmax"]),
        ({"op": "sigmoid"}, ["activation"]),
        ({"op": "mul"}, ["mul"]),
    ],
)
def test_fused_ops_follow_whatever_the_row_is(cells, kinds):
    graph = row(**cells, height=8, cin=4, fused="add+hard_swish")
    assert [n.op.kind for n in graph.nodes] == [*kinds, "add", "activation"]


@pytest.mark.parametrize("op", ["softmax", "add", "mean"])
def test_an_activation_follows_ops_without_weights(op):
    graph = row(op=op, height=8, cin=4, activation="relu")
    assert graph.nodes[-1].op == Activation(ActivationKind.RELU)
    assert len(graph.nodes) == 2


@pytest.mark.parametrize("activation", ["hswish", "none", None])
def test_an_activation_may_name_itself_in_its_own_column(activation):
    assert len(row(op="hard_swish", height=8, cin=4, activation=activation).nodes) == 1


def test_sepconv_is_depthwise_then_pointwise():
    assert (
        row(op="sepconv", height=14, cin=8, cout=16, kernel=3, stride=2).key
        == SeparableConv(8, 16, 14, 14, 2).graph().key
    )


def test_block_names_are_a_table_of_their_own():
    block = MBConv(24, 24, 56, 56)
    assert graphs_of(pd.DataFrame({"block": [block.name, block.name]}), batch=4)[1].key == block.graph(4).key


@pytest.mark.parametrize("empty", [None, float("nan"), pd.NA])
def test_equal_rows_share_one_graph_with_empty_cells_too(empty):
    cells = {"op": "conv", "h": 8, "cin": 4, "cout": 6, "kernel": 1, "fused": empty, "groups": empty, "expand": empty}
    first, *others = graphs_of(pd.DataFrame([cells] * 3))
    assert all(other is first for other in others)


@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA])
def test_an_integer_column_may_have_empty_cells(missing):
    cells = [{"op": "conv1x1", "h": 8, "cin": 4, "cout": 6}, {"op": "add", "h": 8, "cin": 4, "cout": missing}]
    conv, add = graphs_of(pd.DataFrame(cells).astype({"cout": "Int64"}))
    assert (conv.output_shape, add.output_shape) == ((1, 8, 8, 6), (1, 8, 8, 4))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["op", "h", "cin", "hw_in"], "several columns of the table mean 'height': h, hw_in; keep one"),
        (["op", "height", "cin", "cin"], "several columns of the table mean 'cin': cin, cin; keep one"),
        (["block", "block"], "several columns of the table mean 'block': block, block; keep one"),
    ],
)
def test_columns_of_one_meaning_are_named(columns, message):
    with pytest.raises(RecordError, match=message):
        graphs_of(pd.DataFrame([["add", 8, 4, 8][: len(columns)]], columns=columns))


def test_other_columns_beside_block_names_may_mean_the_same():
    name = MBConv(24, 24, 56, 56).name
    assert len(graphs_of(pd.DataFrame({"block": [name], "h": [56], "hw_in": [56]}))) == 1


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"op": "warp"}, "unknown op 'warp'; known: mbconv"),
        ({"op": "conv", "height": 8, "cin": 4, "kernel": 1}, "conv needs a value in the column 'cout'"),
        ({"op": "conv1x1", "height": 8.5, "cin": 4, "cout": 4}, "height must be a whole number, got 8.5"),
        ({"op": "conv1x1", "height": 8, "cin": 4, "cout": 4, "activation": "spline"}, "unknown activation 'spline'"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "out_height": 3}, "do not give 3 pixels"),
        ({**MBCONV, "kernel": 4}, "kernel must be odd"),
        ({**MBCONV, "activation": "none"}, "mbconv cannot be without an activation"),
        ({**MBCONV, "op": "sepconv", "expand": 1, "activation": "none"}, "sepconv cannot be without an activation"),
        ({**MBCONV, "shortcut": "pool"}, "shortcut must be 'conv' or empty, got 'pool'"),
        ({**MBCONV, "expand": "six"}, "expand must be a number, got 'six'"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4}, "conv needs a value in the column 'kernel'"),
        ({"op": "dwconv", "height": 8, "cin": 4}, "depthwise needs a value in the column 'kernel'"),
        ({"op": "conv1x1", "height": 8, "cin": 4, "cout": 4, "kernel": 3}, "conv1x1 has kernel 1, got 3"),
        ({"op": "relu", "height": 8, "cin": 4, "activation": "sigmoid"}, "relu: the column 'activation' says sigmoid"),
        ({"op": "add", "height": float("inf"), "cin": 4}, "height must be a whole number, got inf"),
        ({"op": "maxpool", "height": 8, "cin": 4, "kernel": 2, "stride": 0}, "stride must be at least 1, got 0"),
        ({**MBCONV, "groups": 4}, "mbconv has no groups, got 4.*; leave the cell empty"),
        ({**MBCONV, "dilation": 2}, "mbconv: no block or op here has a dilation, got 2"),
        ({**MBCONV, "dilations": "2"}, "no block or op here has a dilation, got '2'"),
        ({**MBCONV, "padding": "valid"}, "padding must be same, symmetric or 1 pixels, got valid"),
        ({**MBCONV, "pad": 0}, "padding must be same, symmetric or 1 pixels, got 0"),
        ({**MBCONV, "batch": 8}, "batch says 8.* where batches of 1 are expected"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "dilation_rate": 2}, "has a dilation"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "se": 0.25}, "conv has no se, got 0.25"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "skip": 1}, "conv has no skip, got 1"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 5, "pad": 1}, "do not give 6 pixels"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "pad": "wide"}, "padding must be a number"),
        ({"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3, "pad": 1, "h_out": 6}, "gives 8 .* says 6"),
        ({"op": "dwconv", "height": 8, "cin": 4, "kernel": 3, "groups": 2}, "depthwise has as many groups as channels"),
        ({"op": "maxpool", "height": 8, "cin": 4, "kernel": 2, "groups": 4}, "max_pool has no groups"),
        ({"op": "add", "height": 8, "cin": 4, "padding": 1}, "add has no padding"),
        ({"op": "add", "height": 8, "cin": [4, 4]}, "every cell must be one number or word, got .*\\[4, 4\\]"),
    ],
)  # fmt: skip
def test_a_bad_row_says_which_and_why(cells, message):
    table = pd.DataFrame([{"op": "conv", "height": 8, "cin": 4, "cout": 6, "kernel": 1}, cells])
    with pytest.raises(RecordError, match=f"row 1: .*{message}"):
        graphs_of(table)


def test_cells_that_change_nothing_are_no_hindrance():
    plain = row(**MBCONV)
    for cells in ({"groups": 1}, {"dilation": 1.0}, {"padding": "SAME"}, {"batch": 1.0}, {"batch": "1"}, {"groups": 0}):
        assert row(**MBCONV, **cells).key == plain.key
    conv = {"op": "conv", "height": 8, "cin": 4, "cout": 4, "kernel": 3}
    others = {"se": 0, "mid": 0.0, "skip": False, "expand": 1, "shortcut": "", "groups": "1", "padding": "same"}
    assert row(**conv, **others).key == row(**conv).key


def test_padding_is_what_the_cell_says():
    conv = {"op": "conv", "height": 9, "cin": 4, "cout": 4, "kernel": 3}
    assert row(**conv, padding="valid").output_shape == row(**conv, padding=0).output_shape == (1, 7, 7, 4)
    assert row(**conv, padding=1, stride=2).output_shape == (1, 5, 5, 4)
    strided = {**MBCONV, "stride": 2, "kernel": 5}
    symmetric = MBConv(4, 4, 8, 8, 2, 5, padding="symmetric").graph().key
    assert row(**strided, padding="symmetric").key == row(**strided, padding=2).key == symmetric != row(**strided).key


def test_a_table_with_expansions_and_no_ops_is_one_of_mbconv():
    table = pd.DataFrame([{name: cell for name, cell in MBCONV.items() if name != "op"}])
    assert graphs_of(table)[0].key == graphs_of(table.assign(op="mbconv"))[0].key


def test_blocks_of_another_batch_are_refused():
    table = pd.DataFrame({"block": [MBConv(24, 24, 56, 56).name], "batch": [8]})
    assert graphs_of(table, batch=8)[0].input_shape[0] == 8
    with pytest.raises(RecordError, match="batches of 1 are expected"):
        graphs_of(table)


@pytest.mark.parametrize("name", [None, 5, ["a"], "mbconv"])
def test_a_bad_block_name_says_which_row(name):
    with pytest.raises(RecordError, match="row 1: "):
        graphs_of(pd.DataFrame({"block": [MBConv(24, 24, 56, 56).name, name]}))


def test_a_table_without_ops_says_what_it_has():
    with pytest.raises(RecordError, match="neither a column `op` nor `block`; it has a, b"):
        graphs_of(pd.DataFrame({"a": [1], "b": [2]}))
