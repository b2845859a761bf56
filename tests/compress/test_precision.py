"""Precisions of segments: where a network is cut, plans, and files that are held against them."""

from __future__ import annotations

import itertools

import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.decisions import DecisionSpace
from netlathe.archspace.errors import SpaceError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, Dequantize, Quantize
from netlathe.archspace.precisions import Precision, unmixed
from netlathe.compress.errors import CompressError
from netlathe.compress.precision import (
    PrecisionSpace,
    audited_segments,
    check_precisions,
    node_precisions,
    precision_space,
    segments_of,
)


def small(batch: int = 1) -> Graph:
    return chain(
        [
            ("b00", ConvBlock(3, 6, 12, 12, 2).graph(batch)),
            ("b01", MBConv(6, 6, 6, 6, activation=ActivationKind.SWISH).graph(batch)),
            ("b02", MBConv(6, 8, 6, 6, 2, se=0.25).graph(batch)),
            ("head", LinearHead(8, 10, 3, 3).graph(batch)),
        ]
    )


NETWORK = small()
SPACE = precision_space(NETWORK, "small", precisions=("float32", "int8", "int8-weights", "float16"), at_batch=small)


def conversions(graph: Graph) -> int:
    return sum(isinstance(node.op, Quantize | Dequantize) for node in graph.nodes)


def test_segments_are_the_blocks_of_a_network() -> None:
    assert [segment.name for segment in segments_of(NETWORK)] == ["b00", "b01", "b02", "head"]
    assert [name for s in segments_of(NETWORK) for name in s.nodes] == [node.name for node in NETWORK.nodes]
    assert len(segments_of(network("mobilenet_v2_0.5_96").graph())) == 20


def flat(*, relu_apart: bool = False) -> Graph:
    """A residual block between two convolutions, without scopes, or with a scope that ends before its relu."""
    builder = GraphBuilder((1, 6, 6, 8))
    relu = Activation(ActivationKind.RELU)
    x = builder.add("stem", Conv2d(8, (3, 3)), 0, scope="a" if relu_apart else "")
    x = builder.add("stem_relu", relu, x, scope="b" if relu_apart else "")
    y = builder.add("one", Conv2d(8, (3, 3)), x, scope="b" if relu_apart else "")
    y = builder.add("two", Conv2d(8, (3, 3)), y, scope="c" if relu_apart else "")
    x = builder.add("sum", Add(), x, y, scope="c" if relu_apart else "")
    return builder.build(builder.add("last", Conv2d(4), x, scope="d" if relu_apart else ""))


def test_a_cut_crosses_one_tensor_and_parts_no_clamp() -> None:
    """A residual is whole, a relu with its convolution, whether or not scopes say so."""
    assert [s.nodes for s in segments_of(flat())] == [("stem", "stem_relu"), ("one", "two", "sum"), ("last",)]
    found = segments_of(flat(relu_apart=True))
    assert [(s.name, s.nodes) for s in found] == [("a", ("stem", "stem_relu", "one", "two", "sum")), ("d", ("last",))]


def test_two_stretches_of_one_scope_have_names_of_their_own() -> None:
    builder = GraphBuilder((1, 4, 4, 4))
    x = 0
    for name, scope in (("one", "a"), ("two", "b"), ("three", "a")):
        x = builder.add(name, Conv2d(4, (3, 3)), x, scope=scope)
    assert [s.name for s in segments_of(builder.build(x))] == ["a", "b", "three"]


def test_it_is_a_decision_space() -> None:
    space: DecisionSpace = SPACE
    assert space.option_counts == (4, 4, 4, 4)
    assert space.graph(space.reference) is NETWORK
    assert space.network_name((0, 1, 2, 0)) == "small-0120"
    assert SPACE.decision_names == ("b00", "b01", "b02", "head")
    assert SPACE.plan((0, 1, 2, 0))["b01"] is Precision.INT8
    assert space.graph((0, 1, 0, 0), 4).inputs == ((4, 12, 12, 3),)


@pytest.mark.parametrize(
    "choices",
    [*itertools.product((0, 1), repeat=4), (2, 1, 2, 0), (1, 2, 1, 2), (2, 2, 2, 2), (3, 3, 3, 3), (3, 1, 2, 0)],
)
def test_each_plan_is_what_its_file_computes_in(choices: tuple[int, ...]) -> None:
    graph = SPACE.graph(choices)
    narrow = [choice == 1 for choice in choices]
    ends = [False, *narrow, False]
    changes = sum(a != b for a, b in itertools.pairwise(ends))
    assert conversions(graph) == (0 if all(narrow) else changes)
    assert unmixed(graph) == NETWORK
    content = write_tflite(graph)
    check_precisions(content, SPACE.segments, SPACE.plan(choices))
    assert sum(map(len, audited_segments(content, SPACE.segments).values())) > 12


def test_a_file_of_another_plan_is_found_out() -> None:
    content = write_tflite(SPACE.graph((0, 1, 2, 0)))
    for choices, message in [
        ((0, 0, 2, 0), r"segment 'b01' is to be float32, but its op 'b01/\S+' \(CONV_2D\) computes in int8"),
        ((0, 1, 1, 0), "segment 'b02' is to be int8, but its op .* computes in float32 with int8 weights"),
        ((0, 1, 0, 0), "segment 'b02' is to be float32, but its op .* computes in float32 with int8 weights"),
        ((0, 1, 2, 2), r"segment 'head' is to be int8-weights, .* \(FULLY_CONNECTED\) computes in float32$"),
    ]:
        with pytest.raises(CompressError, match=message):
            check_precisions(content, SPACE.segments, SPACE.plan(choices))


def test_a_file_of_another_network_is_found_out() -> None:
    with pytest.raises(CompressError, match=r"op 'last' \(CONV_2D\) is of no segment"):
        audited_segments(write_tflite(flat()), segments_of(flat())[:2])


def test_unknown_plans_are_refused_by_name() -> None:
    with pytest.raises(CompressError, match=r"no segment 'b09' .*; there are b00, b01, b02, head"):
        node_precisions(SPACE.segments, {"b09": "int8"})
    with pytest.raises(
        CompressError, match=r"segment 'b01': int4-weights is not written: LiteRT 2.3 refuses depthwise"
    ):
        node_precisions(SPACE.segments, {"b01": "int4-weights"})
    with pytest.raises(CompressError, match=r"segment 'b01': the precision must be one of .*, got 'bfloat16'"):
        node_precisions(SPACE.segments, {"b01": "bfloat16"})
    with pytest.raises(CompressError, match="precisions must be different ones, got int8, int8"):
        precision_space(NETWORK, precisions=("int8", "int8"))


def test_choices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpaceError, match="'small' has 4 decisions, got 2 choices"):
        SPACE.graph((0, 0))
    with pytest.raises(SpaceError, match="'b01' has 4 options, there is no number 4"):
        SPACE.plan((0, 4, 0, 0))
    alone = PrecisionSpace("alone", NETWORK, segments_of(NETWORK))
    with pytest.raises(SpaceError, match=r"'alone' is of batch 1; to have it at 2, read it so \(at_batch\)"):
        alone.graph((0, 0, 0, 0), 2)
