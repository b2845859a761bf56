"""Kernels on ONNX Runtime are timed in the layout that it keeps between convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from netlathe.archspace.blocks import ConvBlock, MBConv, Pool
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph, chain
from netlathe.profiler.devices.onnxruntime import OnnxRuntimeDevice, without_end_reorders

X, Y = ConvBlock(32, 48, 14, 14), ConvBlock(48, 32, 14, 14, kernel=1)


@pytest.fixture(scope="module")
def device() -> Iterator[OnnxRuntimeDevice]:
    with OnnxRuntimeDevice() as opened:
        if opened._block == 1:
            pytest.skip("this processor has no blocked layout")
        yield opened


def ops(session_model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(session_model).graph.node)


def optimized(device: OnnxRuntimeDevice, graph: Graph) -> bytes:
    return device._optimize(write_onnx(graph))[1]


@pytest.mark.parametrize("block", [X, Y, Pool("max", 32, 14, 14, stride=2)])
def test_a_kernel_is_timed_without_the_changes_of_layout_at_its_ends(
    device: OnnxRuntimeDevice, block: ConvBlock
) -> None:
    whole = optimized(device, block.graph())
    assert ops(whole)["ReorderInput"] == ops(whole)["ReorderOutput"] == 1
    inner = without_end_reorders(whole, device._block)
    assert inner is not None
    assert ops(inner) == ops(whole) - Counter(["ReorderInput", "ReorderOutput"])


def test_what_is_left_computes_what_the_whole_does(device: OnnxRuntimeDevice) -> None:
    session, whole = device._optimize(write_onnx(X.graph()))
    inner = without_end_reorders(whole, device._block)
    assert inner is not None
    options = device._options()
    options.graph_optimization_level = device._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    part = device._session_of(inner, options)
    x = np.random.default_rng(0).normal(size=(1, 32, 14, 14)).astype(np.float32)
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    (found,) = part.run(None, {part.get_inputs()[0].name: blocked(x, device._block)})
    np.testing.assert_allclose(found, blocked(expected, device._block), rtol=1e-4, atol=1e-4)


def blocked(x: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """NCHW with the channels cut into blocks, each of which holds all of its pixels, channels last."""
    n, c, h, w = x.shape
    cut = x.reshape(n, c // block, block, h, w).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(cut).reshape(n, c, h, w)


@pytest.mark.parametrize("graph", [chain([("b0", X.graph()), ("b1", Y.graph())]), MBConv(32, 48, 14, 14).graph()])
def test_blocks_and_networks_keep_the_changes_of_layout_at_their_ends(device: OnnxRuntimeDevice, graph: Graph) -> None:
    names = [value.name for value in device._session(graph).get_inputs()]
    assert names == [value.name for value in onnx.load_from_string(write_onnx(graph)).graph.input]
    (kernel,) = device._session(X.graph()).get_inputs()
    assert kernel.name not in [value.name for value in onnx.load_from_string(write_onnx(X.graph())).graph.input]


def test_a_graph_without_blocked_layout_is_timed_as_it_is(device: OnnxRuntimeDevice) -> None:
    assert without_end_reorders(optimized(device, MBConv(6, 6, 8, 8, expand=1).graph()), device._block) is None


def test_the_setup_tells_how_kernels_are_timed(device: OnnxRuntimeDevice) -> None:
    assert dict(device.setup.details)["kernels"] == "in the layout inside networks"
