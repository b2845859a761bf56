"""ONNX Runtime's blocks of channels: what our rules say is what its own optimizer makes of the same network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from netlathe.archspace.blocked_layout import blocked_run
from netlathe.archspace.forms.onnx import read_onnx, write_onnx
from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import Graph, GraphBuilder, Node
from netlathe.archspace.kernels import (
    BLOCKS,
    CHANNEL_BLOCK,
    channel_shuffles,
    fusion_of,
    kernels_of,
    paddings,
    reordered,
)
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    LeakyReLU,
    Mul,
    Op,
    Pad,
    Padding,
    Pool2d,
    Reshape,
    Resize,
    Split,
    Transpose,
    Unary,
    UnaryKind,
)
from netlathe.archspace.records import Setup
from netlathe.archspace.sampled_networks import sample_networks
from netlathe.profiler.devices.onnxruntime import OnnxRuntimeDevice

RULES = {size: fusion for fusion, size in BLOCKS.items()}


@pytest.fixture(scope="module")
def block() -> int:
    """Channels of a block on this computer."""
    with OnnxRuntimeDevice() as device:
        size = int(dict(device.setup.details).get(CHANNEL_BLOCK, "1"))
        assert fusion_of(device.setup) == RULES.get(size, "onnx")
    if size not in RULES:
        pytest.skip("ONNX Runtime has no such layout on this processor")
    return size


def sums(convs: int, *behind: Op, channels: int = 32) -> Graph:
    """A convolution beside that of its result, added, with ops behind the sum and a convolution at the end."""
    builder = GraphBuilder((1, 14, 14, channels))
    x = builder.add("first", Conv2d(channels, (3, 3)), 0)
    for number in range(convs):
        y = builder.add(f"conv{number}", Conv2d(channels, (3, 3)), x)
        x = builder.add(f"sum{number}", Add(), x, y)
    for number, op in enumerate(behind):
        x = builder.add(f"behind{number}", op, x)
    return builder.build(builder.add("last", Conv2d(32), x))


def chained(channels: int, *ops: Op) -> Graph:
    builder = GraphBuilder((1, 14, 14, channels))
    x = 0
    for number, op in enumerate(ops):
        x = builder.add(f"op{number}", op, x)
    return builder.build(x)


def gated(channels: int) -> Graph:
    builder = GraphBuilder((1, 14, 14, 32))
    x = builder.add("conv", Conv2d(channels, (3, 3)), 0)
    gate = builder.add("mean", GlobalAvgPool(keep_dims=True), x)
    gate = builder.add("squeeze", Conv2d(8, batch_norm=False), gate)
    gate = builder.add("relu", Activation(ActivationKind.RELU), gate)
    gate = builder.add("excite", Conv2d(channels, batch_norm=False), gate)
    gate = builder.add("sigmoid", Activation(ActivationKind.SIGMOID), gate)
    x = builder.add("scale", Mul(), x, gate)
    return builder.build(builder.add("project", Conv2d(32), x))


def joined(channels: int) -> Graph:
    builder = GraphBuilder((1, 14, 14, 32))
    parts = [builder.add(f"part{number}", Conv2d(channels, (1, 1)), 0) for number in (0, 1)]
    x = builder.add("join", Concat(), *parts)
    return builder.build(builder.add("last", Conv2d(32), x))


def split() -> Graph:
    builder = GraphBuilder((1, 14, 14, 32))
    x = builder.add("conv", Conv2d(64), 0)
    x = builder.add("split", Split((32, 32)), x)
    y = builder.add("branch", Conv2d(32, (3, 3)), x)
    return builder.build(builder.add("join", Concat(), y, x + 1))


SAME, DEPTHWISE = Conv2d(32, (3, 3)), Conv2d(24, (3, 3), groups=24)
GRAPHS = {
    **{f"{kind} behind a sum": sums(1, Activation(kind)) for kind in ActivationKind},
    **{f"{kind}": chained(32, SAME, Activation(kind), Conv2d(32)) for kind in ActivationKind},
    **{f"{kind}, plain": chained(18, Conv2d(18, (3, 3)), Activation(kind), Conv2d(18)) for kind in ActivationKind},
    **{f"{count} channels": chained(count, Conv2d(32, (3, 3))) for count in (3, 8, 15, 16, 18, 20, 24)},
    **{f"to {count} channels": chained(32, Conv2d(count, (3, 3)), Conv2d(32)) for count in (1, 8, 12, 20, 24)},
    **{f"a gate of {count}": gated(count) for count in (24, 32, 40)},
    **{f"joined {count}": joined(count) for count in (24, 32, 40)},
    "three sums": sums(3),
    "plain sums": sums(2, channels=18),
    "plain sum with a relu": sums(1, Activation(ActivationKind.RELU), channels=18),
    "tanh": chained(32, SAME, Unary(UnaryKind.TANH), Conv2d(32)),
    "exp": chained(32, SAME, Unary(UnaryKind.EXP), Conv2d(32)),
    "leaky relu": chained(32, SAME, LeakyReLU(0.1), Conv2d(32)),
    "elu": chained(32, SAME, ELU(), Conv2d(32)),
    "leaky relu behind a sum": sums(1, LeakyReLU(0.1)),
    "depthwise": chained(24, Conv2d(24), DEPTHWISE, Conv2d(24)),
    "groups": chained(64, Conv2d(64, (3, 3), groups=2), Conv2d(64, (3, 3), groups=8), Conv2d(32)),
    "pooled": chained(32, SAME, Pool2d("max", (2, 2), (2, 2)), Conv2d(32)),
    "pooled 24": chained(32, Conv2d(24), Pool2d("max", (2, 2), (2, 2)), Conv2d(32)),
    "enlarged": chained(32, SAME, Resize((28, 28)), Conv2d(32)),
    "enlarged by a half": chained(32, SAME, Resize((21, 21)), Conv2d(32)),
    "scaled": chained(32, SAME, Activation(ActivationKind.RELU), BatchNorm(), Conv2d(32)),
    "scaled, then a relu": chained(
        32, SAME, Activation(ActivationKind.RELU), BatchNorm(), Activation(ActivationKind.RELU), Conv2d(32)
    ),
    "padded": chained(32, SAME, Pad((1, 1), (1, 1)), Conv2d(32, (3, 3), padding=Padding.VALID)),
    "classified": chained(32, SAME, GlobalAvgPool(), FullyConnected(10), Activation(ActivationKind.RELU)),
    "plain, then its mean": chained(32, Activation(ActivationKind.RELU), GlobalAvgPool(), FullyConnected(10)),
    "split": split(),
    "mobilenet_v2": network("mobilenet_v2_0.35_96").graph(),
    **{one.name: one.graph(1) for one in sample_networks(4, 1)},
}


def told(graph: Graph, block: int) -> Counter[str]:
    """What is fused, what is left, and the changes of layout, by our rules."""
    run = blocked_run(graph, block, paddings(graph, RULES[block]))
    kernels = Counter(graph.nodes[start].op.kind for start in set(run.starts))
    fused = [node for at, node in enumerate(graph.nodes) if run.starts[at] != at]
    return Counter(
        reorders=len(run.reordered),
        convolutions=kernels["conv"] + kernels["batch_norm"],
        sums=sum(isinstance(node.op, Add) for node in fused),
        activations=sum(isinstance(node.op, Activation | LeakyReLU | Unary) for node in fused),
    )


def made(graph: Graph, folder: Path) -> Counter[str]:
    """The same by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(write_onnx(graph), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimized.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    return Counter(
        reorders=kinds["ReorderInput"] + kinds["ReorderOutput"],
        convolutions=kinds["Conv"] + kinds["FusedConv"] + kinds["BatchNormalization"],
        sums=sum("Conv" in node.op_type and len(node.input) > 3 and bool(node.input[3]) for node in nodes),
        activations=sum(attribute.name == "activation" for node in nodes for attribute in node.attribute),
    )


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_what_onnx_runtimes_optimizer_does(name: str, block: int, tmp_path: Path) -> None:
    assert told(GRAPHS[name], block) == made(GRAPHS[name], tmp_path)


def test_changes_of_layout_are_kernels_between_several_and_none_at_a_single_ones_ends() -> None:
    (kernel,) = kernels_of(chained(32, SAME), "onnx16")
    assert [node.op.kind for node in kernel.nodes] == ["conv"]
    graph = joined(24)
    *kernels, first, second, third, last, end = kernels_of(graph, "onnx16")
    assert [kernel.nodes[0].op.kind for kernel in kernels] == ["conv", "conv", "concat", "conv"]
    shapes = [kernel.inputs[0] for kernel in (first, second, third, last, end)]
    assert shapes == [(1, 14, 14, 32), (1, 14, 14, 24), (1, 14, 14, 24), (1, 14, 14, 48), (1, 14, 14, 32)]
    assert [graph.shapes[tensor] for tensor in reordered(graph, "onnx16")] == shapes
    assert reordered(graph, "onnx") == []
    assert len(kernels_of(joined(24), "onnx8")) == 6  # at the ends alone


def shuffle(perm: tuple[int, ...] = (0, 1, 2, 4, 3)) -> Graph:
    """Twelve channels between two convolutions, shuffled as three groups of four."""
    builder = GraphBuilder((1, 5, 6, 12))
    x = builder.add("first", Conv2d(12), 0)
    x = builder.add("groups", Reshape((5, 6, 3, 4)), x)
    x = builder.add("swapped", Transpose(perm), x)
    x = builder.add("joined", Reshape((5, 6, 12)), x)
    return builder.build(builder.add("second", Conv2d(8), x))


def test_a_shuffle_of_channels_is_one_kernel_and_one_transpose_in_the_file() -> None:
    graph = shuffle()
    assert channel_shuffles(graph) == {1: (2, 3)}
    kinds = [[node.op.kind for node in kernel.nodes] for kernel in kernels_of(graph, "onnx16")]
    assert ["reshape", "transpose", "reshape"] in kinds
    assert ["transpose"] in [[node.op.kind for node in kernel.nodes] for kernel in kernels_of(graph)]
    content = write_onnx(graph)
    ops = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert ops == ["Conv", "Reshape", "Transpose", "Reshape", "Conv"]
    assert read_onnx(content).key == graph.key
    foreign = onnx.load_from_string(content)
    del foreign.metadata_props[:]
    assert channel_shuffles(read_onnx(foreign.SerializeToString())) == {1: (2, 3)}


def test_a_shuffle_computes_the_same_in_every_form() -> None:
    graph = shuffle()
    weights = random_weights(graph)
    x = np.random.default_rng(0).standard_normal((1, 12, 5, 6), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(write_onnx(graph, weights)).run(None, {"input": x})
    first, second = (weights[name] for name in ("first", "second"))
    y = np.einsum("oi,nihw->nohw", first["kernel"][:, :, 0, 0], x) + first["bias"][:, None, None]
    y = y.reshape(1, 3, 4, 5, 6).swapaxes(1, 2).reshape(1, 12, 5, 6)
    y = np.einsum("oi,nihw->nohw", second["kernel"][:, :, 0, 0], y) + second["bias"][:, None, None]
    assert found == pytest.approx(y, abs=1e-5)


def test_a_shuffle_whose_parts_something_else_takes_too_stays_three_ops() -> None:
    assert not channel_shuffles(shuffle((0, 1, 2, 3, 4)))
    nodes = (
        Node("groups", Reshape((5, 6, 3, 4)), (0,)),
        Node("swapped", Transpose((0, 1, 2, 4, 3)), (1,)),
        Node("joined", Reshape((5, 6, 12)), (2,)),
    )
    assert channel_shuffles(Graph(((1, 5, 6, 12),), nodes)) == {0: (1, 2)}
    assert not channel_shuffles(Graph(((1, 5, 6, 12),), nodes, (2, 3)))


def test_a_setup_says_which_blocks_it_has() -> None:
    plain = Setup("d", "p", "o", "onnxruntime", "1", "CPUExecutionProvider")
    assert fusion_of(plain) == "onnx"
    for size, fusion in RULES.items():
        told = Setup("d", "p", "o", "onnxruntime", "1", "CPUExecutionProvider", details=((CHANNEL_BLOCK, str(size)),))
        assert fusion_of(told) == fusion
