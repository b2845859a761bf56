"""Kernels to profile: what is drawn, and what is cut out of networks."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_audit import audit_tflite
from netlathe.archspace.kernel_space import (
    GROUPS,
    MOST_BYTES,
    MOST_MACS,
    kernel_group,
    kernel_shares,
    kernels_in,
    sample_kernels,
)
from netlathe.archspace.kernels import Fusion, is_kernel, kernels_of
from netlathe.archspace.networks import network
from netlathe.archspace.ops import OPS, DType
from netlathe.archspace.sampled_networks import sample_networks

SAMPLE = sample_kernels(600)
NOT_DRAWN = {"constant", "zeros", "opaque", "gather", "quantize", "dequantize"}
"""Ops that start no kernel of their own, or stand at the borders of quantized files."""


def test_every_op_of_the_table_is_drawn_but_those_that_are_named_here() -> None:
    drawn = {node.op.kind for kernel in SAMPLE for node in kernel.graph.nodes}
    assert drawn == set(OPS) - NOT_DRAWN


def test_what_converts_is_drawn_for_int8_and_changes_nothing_else() -> None:
    sample = sample_kernels(600, dtype="int8")
    drawn = {kernel.group for kernel in sample}
    assert drawn - {kernel.group for kernel in SAMPLE} == {"quantize", "dequantize"}
    borders = [kernel for kernel in sample if kernel.group.endswith("quantize")]
    assert len(borders) >= 6
    assert {(k.graph.dtypes, kernel_group(k.graph) == k.group, is_kernel(k.graph)) for k in borders} == {
        ((DType.FLOAT32, DType.INT8), True, True), ((DType.INT8, DType.FLOAT32), True, True),
    }  # fmt: skip
    for kernel in borders:
        content = write_tflite(kernel.graph, dtype="int8")
        assert content == write_tflite(kernel.graph)
        assert [op.converts for op in audit_tflite(content)] == [True]
    assert not any(kernel.group.endswith("quantize") for kernel in sample_kernels(100, dtype="int8", fusion="gpu"))


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_each_graph_is_a_single_kernel_of_its_runtime_and_of_its_group(fusion: Fusion) -> None:
    sample = sample_kernels(300, fusion=fusion)
    assert [k.name for k in sample if not is_kernel(k.graph, fusion)] == []
    assert [k.name for k in sample if kernel_group(k.graph) != k.group] == []


def test_all_but_casts_to_integers_have_an_onnx_form_under_the_names_that_they_are_drawn_with() -> None:
    refused = set()
    for kernel in sample_kernels(100, fusion="onnx"):
        try:
            write_onnx(kernel.graph)
        except FormatError:
            refused.add(kernel.group)
    assert refused == {"cast"}


def test_a_sample_is_the_same_for_a_seed_and_another_for_another() -> None:
    keys = [kernel.graph.key for kernel in SAMPLE]
    assert keys == [kernel.graph.key for kernel in sample_kernels(600)]
    assert len(set(keys)) == len(keys)
    assert len(set(keys) & {kernel.graph.key for kernel in sample_kernels(600, seed=1)}) < len(keys) / 4


def test_each_group_gets_its_share_and_a_few_at_least() -> None:
    counts = Counter(kernel.group for kernel in SAMPLE)
    shares = kernel_shares(GROUPS)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(counts[name] in (max(3, round(600 * share)), counts[name]) for name, share in shares.items())
    assert min(counts.values()) >= 3
    convolutions = ("conv", "pointwise", "depthwise", "grouped_conv")
    assert sum(counts[name] for name in convolutions) > sum(counts.values()) / 3


def test_a_run_of_a_kernel_is_short_and_sizes_are_those_of_networks() -> None:
    for kernel in SAMPLE:
        graph = kernel.graph
        assert graph.macs <= MOST_MACS
        assert graph.bytes_read() + graph.bytes_written() <= MOST_BYTES
        assert {shape[0] for shape in graph.inputs} == {1}
    sides = {kernel.graph.inputs[0][1] for kernel in SAMPLE if kernel.group == "conv"}
    assert min(sides) <= 7
    assert max(sides) >= 224


def test_a_batch_is_that_of_all_inputs() -> None:
    assert {shape[0] for kernel in sample_kernels(100, batch=4) for shape in kernel.graph.inputs} == {4}


def test_the_kernels_of_networks_are_those_that_their_runtime_starts_each_once() -> None:
    graphs = [network("mobilenet_v2").graph(), network("mobilenet_v2_0.5").graph()]
    found = kernels_in(graphs)
    assert [kernel.graph.key for kernel in found] == list(
        dict.fromkeys(kernel.key for graph in graphs for kernel in kernels_of(graph))
    )
    assert {kernel.group for kernel in found} == {
        "conv", "pointwise", "depthwise", "add", "global_avg_pool", "fully_connected",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("block", "groups"),
    [
        (MBConv(16, 16, 14, 14, se=0.25), ["pointwise", "depthwise", "global_avg_pool", "squeezed_conv",
                                           "squeezed_conv", "smooth_activation", "mul", "pointwise", "add"]),
        (ConvBlock(8, 16, 14, 14), ["conv"]),
        (LinearHead(16, 10, 7, 7), ["global_avg_pool", "fully_connected"]),
    ],
)  # fmt: skip
def test_kernels_are_grouped_by_what_they_do(block: MBConv, groups: list[str]) -> None:
    assert [kernel_group(kernel) for kernel in kernels_of(block.graph())] == groups


def test_sampled_networks_are_different_bounded_and_the_same_for_a_seed() -> None:
    networks = sample_networks(12)
    assert len({one.graph().key for one in networks}) == 12
    assert max(one.macs for one in networks) <= 1e9
    assert networks == sample_networks(12)
    assert networks[:3] == sample_networks(3)
    assert all(one.graph().is_network for one in networks)
