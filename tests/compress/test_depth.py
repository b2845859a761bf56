"""Residual blocks that can be left out."""

from __future__ import annotations

import numpy as np
from networks import RELU, run

from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Add, Constant, Conv2d, Mul
from netlathe.compress import Shaper, couple_channels, pruned, residual_blocks


def test_the_blocks_of_mobilenet_v2_that_keep_their_shape_can_be_left_out() -> None:
    graph = network("mobilenet_v2").graph()
    blocks = residual_blocks(graph)
    assert [graph.nodes[max(block.nodes)].scope for block in blocks] == [
        "b03", "b05", "b06", "b08", "b09", "b10", "b12", "b13", "b15", "b16"
    ]  # fmt: skip
    coupled = couple_channels(graph)
    left = Shaper(coupled).graph([group.units for group in coupled.groups], blocks)
    scopes = {node.scope for node in left.nodes}
    assert scopes == {f"b{i:02d}" for i in (0, 1, 2, 4, 7, 11, 14, 17, 18, 19)} & {node.scope for node in graph.nodes}


def test_without_a_block_its_input_takes_its_place() -> None:
    """The same as a branch that gives zeros."""
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(8), 0)
    y = builder.add("scaled", Mul(), builder.add("branch", Conv2d(8), x), builder.add("factors", Constant((8,))))
    y = builder.add("relu", RELU, builder.add("sum", Add(), y, x))
    graph = builder.build(builder.add("head", Conv2d(5), y))
    (block,) = residual_blocks(graph)
    assert (block.name, block.entry, {graph.nodes[i].name for i in block.nodes}) == (
        "sum", x, {"branch", "factors", "scaled", "sum"}
    )  # fmt: skip
    weights = random_weights(graph)
    cut, left = pruned(couple_channels(graph), weights, {"stem": [0, 1, 5]}, [block])
    assert [node.name for node in cut.nodes] == ["stem", "relu", "head"]
    assert left.keys() == {"stem", "head"}
    zeros = {**weights, "factors": {"values": np.zeros(8, np.float32)}}
    with_zeros = pruned(couple_channels(graph), zeros, {"stem": [0, 1, 5]})
    np.testing.assert_allclose(run(cut, left)[0], run(*with_zeros)[0], rtol=1e-5, atol=1e-6)


def test_a_branch_that_others_need_stays() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(8), 0)
    y = builder.add("branch", Conv2d(8), x)
    z = builder.add("outer", Add(), builder.add("sum", Add(), x, y), y)
    assert residual_blocks(builder.build(builder.add("head", Conv2d(5), z))) == ()


def test_a_shortcut_with_weights_and_a_sum_of_two_inputs_are_none() -> None:
    builder = GraphBuilder((1, 8, 8, 3), (1, 8, 8, 8))
    x = builder.add("sum", Add(), builder.add("a", Conv2d(8), 0), builder.add("b", Conv2d(8), 0))
    y = builder.add("both", Add(), x, 1)
    assert residual_blocks(builder.build(builder.add("head", Conv2d(5), y))) == ()


def test_an_output_is_given_once() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(8), 0)
    y = builder.add("sum", Add(), x, builder.add("branch", Conv2d(8), x))
    assert residual_blocks(builder.build(x, y)) == ()
    assert [block.name for block in residual_blocks(builder.build(y))] == ["sum"]


def test_a_block_within_a_block_goes_with_it() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(8), 0)
    y = builder.add("a", Conv2d(8), x)
    y = builder.add("inner", Add(), y, builder.add("b", Conv2d(8), y))
    z = builder.add("outer", Add(), x, y)
    graph = builder.build(builder.add("head", Conv2d(5), z))
    inner, outer = residual_blocks(graph)
    coupled = couple_channels(graph)
    widths = [group.units for group in coupled.groups]
    for left_out, names in (
        ([inner], ["stem", "a", "outer", "head"]), ([outer], ["stem", "head"]), ([inner, outer], ["stem", "head"]),
    ):  # fmt: skip
        assert [node.name for node in Shaper(coupled).graph(widths, left_out).nodes] == names
