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
from netlathe.predictor.numbers import FloatArray

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
LAWS = {"float32": (6e-8, 2e-7), "int8": (2e-8, 5e-8), "int8-weights": (2e-7, 2e-7)}
"""ms per MAC and per byte in each dtype."""


def kernel_ms(kernel: Graph, dtype: str) -> float:
    """A launch, the MACs, and the bytes that go in and out, where int8 values beside no others count as float32."""
    sizes = {DType.FLOAT32: 4, DType.INT8: 1 if DType.FLOAT32 in kernel.dtypes else 4}
    moved = sum(
        math.prod(kernel.shapes[t]) * sizes[kernel.dtypes[t]] for t in (*range(len(kernel.inputs)), *kernel.outputs)
    )
    per_mac, per_byte = LAWS[dtype]
    return 0.002 + per_mac * kernel.macs + per_byte * moved


def fitted(setup: Setup, groups: tuple[str, ...] = GROUPS, law: str = "") -> LatencyPredictor:
    kernels = [kernel for kernel in sample_kernels(500, dtype=setup.dtype) if kernel.group in groups]
    records = [record(k.name, k.graph, kernel_ms(k.graph, law or setup.dtype), setup=setup) for k in kernels]
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
    float32, int8 = predictor.of_dtype.values()
    wanted = [*float32.predict([NETWORK]), *int8.predict([NETWORK])]
    assert predictor.predict([NETWORK, whole]).tolist() == wanted
    assert predictor.predict([]).shape == (0,)


def with_offset(predictor: LatencyPredictor, offset_ms: float) -> LatencyPredictor:
    """The same, where each network takes so much more."""

    class Shifted(LatencyPredictor):
        network_offset_ms_ = offset_ms

        def predict(self, *given: Any) -> FloatArray:
            return super().predict(*given) + offset_ms

        def predict_with_interval(self, *given: Any) -> Predicted:
            return Predicted(*(values + offset_ms for values in super().predict_with_interval(*given)))

    shifted = Shifted()
    shifted.__dict__.update(predictor.__dict__)
    return shifted


def test_what_a_network_costs_beside_its_blocks_goes_by_the_shares_of_the_macs(predictor: MixedPredictor) -> None:
    float32, int8 = predictor.of_dtype.values()
    shifted = MixedPredictor(with_offset(float32, 0.3), with_offset(int8, 0.1))
    for scopes in ((), ("b01",), ("b00", "head"), ("b00", "b01", "b02", "head")):
        macs = sum(part.macs for scope, part in zip(SCOPES, NETWORK.segments(), strict=True) if scope in scopes)
        share = macs / NETWORK.macs
        graph = in_int8(*scopes)
        beside_ms = shifted.predict([graph]) - predictor.predict([graph])
        assert beside_ms == pytest.approx(0.3 * (1 - share) + 0.1 * share, abs=1e-9)


def test_predictors_that_are_not_of_one_device_are_refused(predictor: MixedPredictor) -> None:
    float32, int8 = predictor.of_dtype.values()
    for given, found in (((int8, float32), "int8"), ((float32, float32), "float32 and float32")):
        with pytest.raises(PredictorError, match=rf"float32 and others of int8 or int8-weights .*, got {found}$"):
            MixedPredictor(*given)
    other = fitted(dataclasses.replace(INT8, threads=4), GROUPS[:2])
    with pytest.raises(PredictorError, match="the predictors are of different setups"):
        MixedPredictor(float32, other)


def test_weights_in_int8_alone_are_refused_until_they_were_measured(predictor: MixedPredictor) -> None:
    """Then a layer with such weights is priced with its activation by the predictor of these, all else by float32's."""
    scopes = {node.name: "int8-weights" for node in NETWORK.nodes if node.scope == "b01"}
    graph = mixed(NETWORK, scopes)
    with pytest.raises(PredictorError, match=r"node 'b01/\S+' is in int8-weights, .* --dtype int8-weights"):
        predictor.predict([graph])
    with pytest.raises(PredictorError, match="nothing tells what int8-weights costs on"):
        predictor.check_prices(["float16", "int8-weights"])
    slow = fitted(dataclasses.replace(SETUP, dtype="int8-weights"), law="int8-weights")
    able = MixedPredictor(*predictor.of_dtype.values(), slow)
    able.check_prices(["float16", "int8-weights", "int8"])
    wanted = sum(
        kernel_ms(k, "int8-weights" if part.nodes[0].scope == "b01" and k.nodes[0].op.has_macs else "float32")
        for part in NETWORK.segments() for k in kernels_of(part)
    )  # fmt: skip
    assert able.predict([graph])[0] == pytest.approx(wanted, rel=0.05)
    kernels = able.kernels(graph)
    assert kernels.latency_ms.sum() + kernels.rest_ms == pytest.approx(able.predict([graph])[0])
    assert len(kernels.names) == len(kernels_of(NETWORK))


def test_weights_stored_in_float16_cost_what_float32_ones_do(predictor: MixedPredictor) -> None:
    narrow = {node.name: "float16" if node.scope in ("b01", "head") else "float32" for node in NETWORK.nodes}
    everything = dict.fromkeys((node.name for node in NETWORK.nodes), "float16")
    expected = predictor.predict([NETWORK])[0]
    found = predictor.predict([mixed(NETWORK, narrow), mixed(NETWORK, everything)])
    assert found.tolist() == pytest.approx([expected] * 2)


def test_it_stands_in_a_predictors_place(predictor: MixedPredictor) -> None:
    graph = in_int8("b01")
    low, high = predictor.predict_interval([graph])
    (latency_ms,) = predictor.predict([graph])
    assert low[0] <= latency_ms <= high[0]
    assert predictor.knows([graph, NETWORK]).all()
    assert predictor.unknown_ops([graph]) == [{}]
    assert predictor.known_shares([graph]) == [(pytest.approx(1.0), pytest.approx(1.0))]
    assert not predictor.assumes_
    assert predictor.assuming().assumes_
    with pytest.raises(PredictorError, match="made of predictors with a file each"):
        predictor.save("mixed.json")


def test_an_op_that_neither_measured_is_refused(predictor: MixedPredictor) -> None:
    lacking = MixedPredictor(predictor.of_dtype["float32"], fitted(INT8, tuple(g for g in GROUPS if g != "depthwise")))
    with pytest.raises(UnknownOpError, match="depthwise"):
        lacking.predict([in_int8("b01")])
