"""Networks of two precisions from a predictor of each: sums of the parts, borders included."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from synthetic_latency import SETUP, record

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.graph import Graph, chain
from netlathe.archspace.kernel_space import sample_kernels
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import DType
from netlathe.archspace.precisions import mixed
from netlathe.archspace.records import Setup
from netlathe.predictor import LatencyPredictor, MixedPredictor, PredictorError
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.networks.latency_model import Predicted

INT8 = dataclasses.replace(SETUP, dtype="int8")
NETWORK = chain(
    [
        ("b00", ConvBlock(3, 16, 48, 48, 2).graph()),
        ("b01", MBConv(16, 16, 24, 24).graph()),
        ("b02", MBConv(16, 24, 24, 24, 2).graph()),
        ("head", LinearHead(24, 10, 12, 12).graph()),
    ]
)
SCOPES = ("b00", "b01", "b02", "head")
GROUPS = ("conv", "pointwise", "depthwise", "fully_connected", "global_avg_pool", "add", "quantize", "dequantize")
LAWS = {"float32": (6e-8, 2e-7), "int8": (2e-8, 5e-8)}
"""ms per MAC and per byte in each dtype."""


def kernel_ms(kernel: Graph, dtype: str) -> float:
    """A launch, the MACs, and the bytes that go in and out, where int8 values beside no others count as float32."""
    sizes = {DType.FLOAT32: 4, DType.INT8: 1 if DType.FLOAT32 in kernel.dtypes else 4}
    moved = sum(
        math.prod(kernel.shapes[t]) * sizes[kernel.dtypes[t]] for t in (*range(len(kernel.inputs)), *kernel.outputs)
    )
    per_mac, per_byte = LAWS[dtype]
    return 0.002 + per_mac * kernel.macs + per_byte * moved


def fitted(setup: Setup, groups: tuple[str, ...] = GROUPS) -> LatencyPredictor:
    kernels = [kernel for kernel in sample_kernels(500, dtype=setup.dtype) if kernel.group in groups]
    records = [record(k.name, k.graph, kernel_ms(k.graph, setup.dtype), setup=setup) for k in kernels]
    return LatencyPredictor("none").fit(records)


@pytest.fixture(scope="module")
def predictor() -> MixedPredictor:
    return MixedPredictor(fitted(SETUP), fitted(INT8))


def in_int8(*scopes: str) -> Graph:
    return mixed(NETWORK, {node.name: "int8" for node in NETWORK.nodes if node.scope in scopes})


def true_ms(graph: Graph) -> float:
    """Each kernel's latency by the law of its dtype; what converts is int8's."""
    return sum(kernel_ms(k, "int8" if DType.INT8 in k.dtypes else "float32") for k in kernels_of(graph))


@pytest.mark.parametrize("scopes", [("b01",), ("b00", "b01"), ("b00", "b02"), ("b01", "head"), ("head",)], ids="+".join)
def test_a_network_is_the_sum_of_its_parts_and_of_what_converts(
    predictor: MixedPredictor, scopes: tuple[str, ...]
) -> None:
    graph = in_int8(*scopes)
    (latency_ms,), (low_ms,), (high_ms,) = predictor.predict_with_interval([graph])
    assert latency_ms == pytest.approx(true_ms(graph), rel=0.05)
    assert low_ms <= latency_ms <= high_ms
    assert predictor.predict([graph]) == [latency_ms]


def test_what_converts_is_charged(predictor: MixedPredictor) -> None:
    """Both ways of taking turns cost more than float32 and int8 by just their borders."""
    turns, others = in_int8("b00", "b02"), in_int8("b01", "head")
    whole = in_int8("b00", "b01", "b02", "head")
    borders_ms = sum(
        kernel_ms(k, "int8") for g in (turns, others) for k in kernels_of(g) if k.nodes[0].op.kind.endswith("quantize")
    )
    first, second, plain, narrow = predictor.predict([turns, others, NETWORK, whole])
    assert first + second - plain - narrow == pytest.approx(borders_ms, rel=0.15)


def test_networks_of_one_precision_are_its_predictors(predictor: MixedPredictor) -> None:
    whole = in_int8("b00", "b01", "b02", "head")
    wanted = [*predictor.float32.predict([NETWORK]), *predictor.int8.predict([NETWORK])]
    assert predictor.predict([NETWORK, whole]).tolist() == wanted
    assert predictor.predict([]).shape == (0,)


def with_offset(predictor: LatencyPredictor, offset_ms: float) -> LatencyPredictor:
    """The same, where each network takes so much more."""

    class Shifted(LatencyPredictor):
        network_offset_ms_ = offset_ms

        def predict_with_interval(self, *given: Any) -> Predicted:
            return Predicted(*(values + offset_ms for values in super().predict_with_interval(*given)))

    shifted = Shifted()
    shifted.__dict__.update(predictor.__dict__)
    return shifted


def test_what_a_network_costs_beside_its_blocks_goes_by_the_shares_of_the_macs(predictor: MixedPredictor) -> None:
    shifted = MixedPredictor(with_offset(predictor.float32, 0.3), with_offset(predictor.int8, 0.1))
    for scopes in ((), ("b01",), ("b00", "head"), ("b00", "b01", "b02", "head")):
        macs = sum(part.macs for scope, part in zip(SCOPES, NETWORK.segments(), strict=True) if scope in scopes)
        share = macs / NETWORK.macs
        graph = in_int8(*scopes)
        beside_ms = shifted.predict([graph]) - predictor.predict([graph])
        assert beside_ms == pytest.approx(0.3 * (1 - share) + 0.1 * share, abs=1e-9)


def test_predictors_that_are_not_of_one_device_are_refused(predictor: MixedPredictor) -> None:
    with pytest.raises(PredictorError, match="a predictor of float32 and one of int8 are needed, got int8 and float32"):
        MixedPredictor(predictor.int8, predictor.float32)
    other = fitted(dataclasses.replace(INT8, threads=4), GROUPS[:2])
    with pytest.raises(PredictorError, match="the predictors are of different setups"):
        MixedPredictor(predictor.float32, other)


def test_weights_in_int8_alone_are_refused_by_name(predictor: MixedPredictor) -> None:
    graph = mixed(NETWORK, {"b01/expand": "int8-weights"})
    with pytest.raises(
        PredictorError, match=r"node 'b01/expand' has int8 weights and float32 values, of which nothing"
    ):
        predictor.predict([graph])


def test_an_op_that_neither_measured_is_refused(predictor: MixedPredictor) -> None:
    lacking = MixedPredictor(predictor.float32, fitted(INT8, tuple(g for g in GROUPS if g != "depthwise")))
    with pytest.raises(UnknownOpError, match="depthwise"):
        lacking.predict([in_int8("b01")])
