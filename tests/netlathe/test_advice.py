"""Advice is the predictor's: by a law with a cliff it is told, with that law's numbers; by one without, nothing is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import netlathe as nl
from netlathe.advice import _with_smaller_kernels
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Pad,
    Padding,
    Reshape,
)
from netlathe.archspace.records import Setup


def chain_of(width: int, kernel: int = 3, *, pads: bool = False, side: int = 14, classes: int = 10) -> Graph:
    """Three blocks of a pointwise and a depthwise convolution with a residual, and a classifier."""
    builder = GraphBuilder((1, side, side, width))
    x = builder.add("stem/conv", Conv2d(width), 0, scope="stem")
    for index in range(3):
        scope = f"b{index}"
        y = builder.add(f"{scope}/expand", Conv2d(width), x, scope=scope)
        y = builder.add(f"{scope}/relu", Activation(ActivationKind.RELU6), y, scope=scope)
        if pads:
            half = kernel // 2
            y = builder.add(f"{scope}/pad", Pad((half, half), (half, half)), y, scope=scope)
        padding = Padding.VALID if pads else Padding.SAME
        y = builder.add(f"{scope}/dw", Conv2d(width, (kernel, kernel), groups=width, padding=padding), y, scope=scope)
        x = builder.add(f"{scope}/add", Add(), x, y, scope=scope)
    x = builder.add("head/pool", GlobalAvgPool(), x, scope="head")
    return builder.build(builder.add("head/fc", FullyConnected(classes), x, scope="head"))


class Law:
    """Milliseconds of each convolution by a function of it; other ops take next to nothing."""

    def __init__(self, cost: Any, setup: Setup | None = None) -> None:
        self.cost = cost
        if setup:
            self.setup_ = setup

    def predict(self, graphs: Sequence[Graph]) -> list[float]:
        return [1e-6 + sum(map(self._ms, graph.steps())) for graph in graphs]

    def _ms(self, step: Any) -> float:
        node, inputs, _ = step
        return 1e-6 * node.op.macs(*inputs) * self.cost(node.op) if isinstance(node.op, Conv2d) else 0.0


def filled(op: Conv2d, vector: int) -> float:
    """As if the channels were filled up to whole vectors."""
    return math.ceil(op.out_channels / vector) * vector / op.out_channels


def advice(graph: Graph, law: Law, kind: str | None = None) -> list[Any]:
    found = nl.breakdown(graph, law).advice
    return [one for one in found if kind in (None, one.kind)]


@pytest.mark.parametrize(("width", "vector", "better"), [(17, 16, 16), (36, 32, 32), (33, 8, 32), (65, 32, 64)])
def test_channels_above_a_cliff_are_told_with_the_price_below_it(width: int, vector: int, better: int) -> None:
    law, graph = Law(lambda op: filled(op, vector)), chain_of(width)
    (one,) = advice(graph, law, "channels")
    assert one.now_ms == law.predict([graph])[0]
    assert f"with {better}, " in one.text
    assert one.layers == ("stem/conv", *(f"b{i}/{name}" for i in range(3) for name in ("expand", "dw")))
    (instead,) = law.predict([_narrowed(graph, width, better)])
    assert one.instead_ms == pytest.approx(instead)
    assert f"{one.instead_ms:.3g} ms instead of {one.now_ms:.3g}" in one.text


def _narrowed(graph: Graph, width: int, less: int) -> Graph:
    """The same network written down anew, with an input that keeps its channels."""
    nodes = [
        replace(node, op=replace(node.op, out_channels=less, groups=less if node.op.groups > 1 else 1))
        if isinstance(node.op, Conv2d) else node
        for node in graph.nodes
    ]  # fmt: skip
    return replace(graph, nodes=tuple(nodes))


@pytest.mark.parametrize("width", [17, 33, 36, 65, 100, 32])
def test_where_time_is_proportional_to_the_work_nothing_is_told(width: int) -> None:
    assert advice(chain_of(width), Law(lambda op: 1.0)) == []


def test_channels_that_fit_are_left_alone_and_so_is_the_number_of_classes() -> None:
    steep = Law(lambda op: filled(op, 32))
    assert advice(chain_of(64), steep) == []
    assert all("33" not in one.text for one in advice(chain_of(64, classes=33), steep))


def test_a_gain_of_next_to_nothing_is_not_told() -> None:
    assert advice(chain_of(33), Law(lambda op: 1.0 + 0.001 * (op.out_channels % 2))) == []


def test_channels_that_something_else_fixes_are_left_alone() -> None:
    builder = GraphBuilder((1, 4, 4, 17))
    x = builder.add("a/conv", Conv2d(17), 0, scope="a")
    x = builder.add("b/flat", Reshape((4 * 4 * 17,)), x, scope="b")
    graph = builder.build(builder.add("b/fc", FullyConnected(5), x, scope="b"))
    assert advice(graph, Law(lambda op: filled(op, 16))) == []


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("size", [5, 7])
def test_a_kernel_size_off_a_cliff_is_told_with_the_price_of_the_next_smaller(size: int, *, pads: bool) -> None:
    law = Law(lambda op: 40.0 if op.kernel == (size, size) else 2.0)
    (one,) = advice(chain_of(32, size, pads=pads), law)
    assert one.kind == "depthwise"
    assert one.layers == ("b0/dw", "b1/dw", "b2/dw")
    assert one.instead_ms == pytest.approx(law.predict([chain_of(32, size - 2, pads=pads)])[0])
    assert f"20 times as much as with {size - 2}x{size - 2}" in one.text


def test_kernels_without_a_cliff_and_the_smallest_ones_are_not_told() -> None:
    assert advice(chain_of(32, 7), Law(lambda op: 2.0)) == []
    assert advice(chain_of(32, 3), Law(lambda op: 40.0 if op.kernel == (3, 3) else 2.0)) == []
    assert _with_smaller_kernels(chain_of(32, 3), 5) is None


def test_a_network_of_tiny_kernels_is_told_of_its_launches() -> None:
    found = nl.breakdown(chain_of(8, side=2), "pixel4-cpu-networks")
    (one,) = [one for one in found.advice if one.kind == "launches"]
    assert one.instead_ms is None
    assert found.bound_ms["launch"] > 0.5 * (found.predicted_ms or 0)
    assert f"{found.bound_ms['launch']:.3g} are of kernels" in one.text
    assert not [one for one in nl.breakdown("mobilenet_v2", "pixel4-cpu-networks").advice if one.kind == "launches"]


def test_int8_that_is_slower_than_float32_is_told_by_both_predictors() -> None:
    setup = replace(nl.LatencyPredictor.load("pixel4-cpu-networks").setup_, dtype="int8")
    float32_ms = nl.predict("mobilenet_v2", "pixel4-cpu-networks").latency_ms
    (one,) = advice("mobilenet_v2", Law(lambda op: 1.0, setup), "dtype")  # type: ignore[arg-type]
    assert one.instead_ms == pytest.approx(float32_ms)
    assert "pixel4-cpu-networks predicts" in one.text
    assert advice("mobilenet_v2", Law(lambda op: 1e-3, setup), "dtype") == []  # type: ignore[arg-type]
    elsewhere = replace(setup, device="another phone")
    assert advice("mobilenet_v2", Law(lambda op: 1.0, elsewhere), "dtype") == []  # type: ignore[arg-type]


def test_the_largest_gain_comes_first() -> None:
    law = Law(lambda op: (40.0 if op.kernel == (7, 7) else 1.0) * filled(op, 16))
    found = advice(chain_of(17, 7), law)
    assert [one.kind for one in found] == ["depthwise", "channels"]
    assert found[0].instead_ms < found[1].instead_ms
