"""What every op does with channels that are cut: the contract of the table of rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from networks import masked, random_keep, run
from op_examples import EXAMPLES, OpExample

from netlathe.archspace.forms.weights import check_weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    OPS,
    Add,
    ArgMax,
    Constant,
    Conv2d,
    Div,
    FullyConnected,
    Gather,
    LayerNorm,
    LocalResponseNorm,
    MatMul,
    Op,
    Opaque,
    PadAxes,
    Reduce,
    ReduceKind,
    Reshape,
    Slice,
    Softmax,
)
from netlathe.compress import CoupledChannels, couple_channels, pruned
from netlathe.compress.rules import couple


def network(example: OpExample) -> Graph:
    """The op between fully connected layers, which give what it takes and read all that it gives."""
    shapes = example.inputs[: len(example.inputs) - len(example.constants)] or example.results
    builder = GraphBuilder(*[(*shape[:-1], 3) for shape in shapes if len(shape) > 1] or [(2, 3)])
    inputs, images = [], 0
    for place, shape in enumerate(shapes):
        op: Op = FullyConnected(shape[-1]) if len(shape) > 1 else Constant(shape)
        inputs.append(builder.add(f"giver{place}", op, *([images] if len(shape) > 1 else [])))
        images += len(shape) > 1
    stored = [builder.add(f"constant{place}", constant) for place, constant in enumerate(example.constants)]
    if example.inputs:
        first = builder.add("op", example.op, *inputs, *stored)
    else:
        first = builder.add("sum", Add(), *inputs, builder.add("op", example.op))
    outputs = [] if images else [builder.add("reader", FullyConnected(2), 0)]
    for place in range(len(example.results)):
        size = math.prod(builder.shape(first + place))
        if isinstance(example.op, ArgMax):
            outputs.append(first + place)
            continue
        row = first + place
        if not isinstance(example.op, MatMul):  # whose rows and columns may be channels
            row = builder.add(f"row{place}", Reshape((1, size), whole=True), row)
        outputs.append(builder.add(f"reader{place}", FullyConnected(2), row))
    return builder.build(*outputs)


def keeps_all(example: OpExample) -> bool:
    """Whether the op keeps the channels that it is given, which are along its last axis."""
    op, shape = example.op, example.inputs[0] if example.inputs else ()
    if isinstance(op, ArgMax):
        return True  # the network gives its result, with all axes
    if isinstance(op, Gather | Softmax):
        return op.axis % len(shape) == len(shape) - 1
    if isinstance(op, Slice):
        return bool(op.steps) and op.steps[-1] != 1
    return isinstance(op, LocalResponseNorm) or all(len(shape) == 1 for shape in example.inputs or example.results)


def is_exact(example: OpExample) -> bool:
    """Whether zeros in place of channels are the same as none; statistics over channels count those that are there."""
    op = example.op
    if isinstance(op, Reduce) and op.function not in (ReduceKind.SUM, ReduceKind.L1, ReduceKind.L2):
        return all(axis % len(example.inputs[0]) != len(example.inputs[0]) - 1 for axis in op.axes)
    return not isinstance(op, LayerNorm)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_network_around_the_op_without_channels_is_the_one_that_reads_zeros(example: OpExample) -> None:
    graph = network(example)
    coupled = couple_channels(graph)
    assert bool(coupled.groups) != keeps_all(example), coupled.fixed
    weights = random_weights(graph, 1)
    keep = random_keep(coupled, 1)
    cut, left = pruned(coupled, weights, keep)
    check_weights(cut, left)
    if "onnx" not in example.lacks and is_exact(example):
        whole = run(graph, masked(coupled, weights, keep, producers=not isinstance(example.op, Div)))
        for result, expected in zip(run(cut, left), whole, strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_every_op_that_netlathe_knows_has_a_rule() -> None:
    default = couple.dispatch(object)
    assert [kind for kind, op in OPS.items() if couple.dispatch(op) is default] == [Opaque.kind]


def around(op: Op, channels: int = 8) -> CoupledChannels:
    """The channels of a layer whose result the op takes."""
    builder = GraphBuilder((1, 4, 4, 3))
    x = builder.add("op", op, builder.add("giver", FullyConnected(channels), 0))
    row = builder.add("row", Reshape((math.prod(builder.shape(x)),)), x)
    return couple_channels(builder.build(builder.add("reader", FullyConnected(2), row)))


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (Opaque("Mystery", ((1, 4, 4, 8),)), "Mystery 'op' is not understood"),
        (Softmax(), "softmax 'op' is taken over all of them"),
        (Slice((0, 0, 0, 0), (1, 4, 4, 4), (1, 1, 1, 2)), "slice 'op' takes every so many of them"),
        (LocalResponseNorm(5), "local_response_norm 'op' looks at their neighbours"),
    ],
)
def test_what_keeps_channels_is_named(op: Op, reason: str) -> None:
    found = around(op)
    assert not found.groups
    assert [(fixed.layer, fixed.channels, fixed.reason) for fixed in found.fixed] == [
        ("giver", 8, reason), ("reader", 2, "the network's output has them")
    ]  # fmt: skip


def test_channels_that_a_border_adds_are_cut_with_those_that_they_are_added_to() -> None:
    """The shortcut of a ResNet without weights: zeros in place of the channels that the block has more."""
    builder = GraphBuilder((1, 4, 4, 3))
    x = builder.add("stem", Conv2d(8), 0)
    wide = builder.add("shortcut", PadAxes(((0, 0), (0, 0), (0, 0), (2, 3))), x)
    joined = builder.add("sum", Add(), wide, builder.add("block", Conv2d(13), x))
    graph = builder.build(builder.add("reader", Conv2d(5), joined))
    coupled = couple_channels(graph)
    assert [(g.name, g.units, g.producers) for g in coupled.groups] == [
        ("stem", 8, ("stem", "block")), ("block", 2, ("block",)), ("block#2", 3, ("block",))
    ]  # fmt: skip
    keep = {"stem": [1, 5, 6], "block": [0], "block#2": [1, 2]}
    weights = random_weights(graph)
    cut, left = pruned(coupled, weights, keep)
    assert cut.nodes[1].op == PadAxes(((0, 0), (0, 0), (0, 0), (1, 2)))
    np.testing.assert_array_equal(left["block"]["bias"], weights["block"]["bias"][[0, 3, 7, 8, 11, 12]])
    np.testing.assert_allclose(run(cut, left)[0], run(graph, masked(coupled, weights, keep))[0], rtol=1e-5, atol=1e-5)
