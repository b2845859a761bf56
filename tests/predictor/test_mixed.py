"""Networks of two precisions from a predictor of each: sums of the parts, borders included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_latency import SETUP

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.kernel_space import sample_kernels
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import Dequantize, DType, Quantize
from netlathe.archspace.precisions import mixed
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.predictor import LatencyPredictor, MixedPredictor, PredictorError

INT8 = dataclasses.replace(SETUP, dtype="int8")
NETWORK = chain(
    [
        ("b00", ConvBlock(3, 16, 48, 48, 2).graph()),
        ("b01", MBConv(16, 16, 24, 24).graph()),
        ("b02", MBConv(16, 24, 24, 24, 2).graph()),
        ("head", LinearHead(24, 10, 12, 12).graph()),
    ]
)
"""Without Dequantize beside one another, so that each border is one kernel."""


def kernel_ms(kernel: Graph, per_mac: float, per_byte: float) -> float:
    """A launch, MACs and the bytes that go in and out; int8 values count as float32 where there are no others."""
    sizes = {DType.FLOAT32: 4, DType.INT8: 4 if DType.FLOAT32 not in kernel.dtypes else 1}
    ends = (*range(len(kernel.inputs)), *kernel.outputs)
    moved = sum(np.prod(kernel.shapes[t]) * sizes[kernel.dtypes[t]] for t in ends)
    return float(0.002 + per_mac * kernel.macs + per_byte * moved)


LAWS = {SETUP: (6e-8, 2e-7), INT8: (2e-8, 5e-8)}


def fitted(setup: Setup) -> LatencyPredictor:
    kernels = [
        kernel.graph
        for kernel in sample_kernels(600, dtype=setup.dtype)
        if {*kernel.graph.dtypes} <= {DType.FLOAT32, DType.INT8}
    ]
    records = [
        LatencyRecord(str(n), "block", graph, setup, Status.OK, measured(kernel_ms(graph, *LAWS[setup])))
        for n, graph in enumerate(kernels)
    ]
    return LatencyPredictor("none").fit(records)


def measured(latency_ms: float) -> Measurement: ...
