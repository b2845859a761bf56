import json
from pathlib import Path

import numpy as np
import pytest

from netlathe.archspace.blocks import ConvBlock, MBConv
from netlathe.archspace.errors import GraphError
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph, GraphBuilder, Node, chain
from netlathe.archspace.kernels import clamped_nodes, fusion_of, is_kernel, kernels_of
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Constant,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Opaque,
    Pad,
    Padding,
    Pool2d,
    Split,
)
from netlathe.archspace.records import Setup
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.features.item_features import work_terms
from netlathe.predictor.features.kernel_times import kernel_label
from netlathe.predictor.features.op_work import TERMS, launched
from netlathe.predictor.predictor import LatencyPredictor

RELU, RELU6, HARD_SWISH = ActivationKind.RELU, ActivationKind.RELU6, ActivationKind.HARD_SWISH


def names(graph: Graph, fusion="cpu") -> list[str]:
    """The ops of each kernel."""
    return ["+".join(node.op.kind for node in kernel.nodes) for kernel in kernels_of(graph, fusion)]


def test_relu6_is_fused_into_the_convolution_before_it():
    assert names(MBConv(16, 24, 28, 28, activation=RELU6).graph()) == ["conv+activation", "conv+activation", "conv"]


def test_on_a_cpu_hard_swish_and_the_gate_of_squeeze_excite_are_kernels_of_their_own():
    block = MBConv(16, 24, 28, 28, activation=HARD_SWISH, se=0.25)
    assert names(block.graph()) == [
        "conv", "activation", "conv", "activation", "global_avg_pool", "conv+activation", "conv", "activation", "mul",
        "conv",
    ]  # fmt: skip


def test_on_a_gpu_activations_are_linked_and_the_gate_waits_for_its_factors():
    block = MBConv(16, 24, 28, 28, activation=HARD_SWISH, se=0.25)
    assert names(block.graph(), "gpu") == [
        "conv+activation", "conv+activation", "global_avg_pool", "conv+activation", "conv+activation", "mul", "conv",
    ]  # fmt: skip


@pytest.mark.parametrize(("fusion", "last"), [("cpu", ["conv", "add"]), ("gpu", ["conv+add"])])
def test_a_gpu_links_the_residual_sum_to_the_convolution_that_ends_last(fusion, last):
    assert names(MBConv(16, 16, 28, 28).graph(), fusion)[2:] == last


def test_a_sum_is_not_linked_to_what_runs_before_its_other_side():
    builder = GraphBuilder((1, 8, 8, 4))
    left = builder.add("left", Conv2d(4), 0)
    right = builder.add("right", Pool2d("max", (3, 3)), 0)
    builder.add("sum", Add(), left, right)
    assert names(builder.build(), "gpu") == ["conv", "pool+add"]


def test_a_product_that_repeats_its_first_factor_is_not_linked():
    builder = GraphBuilder((1, 8, 8, 4))
    pooled = builder.add("pool", GlobalAvgPool(keep_dims=True), 0)
    builder.add("scale", Mul(), pooled, 0)
    assert names(builder.build(), "gpu") == ["global_avg_pool", "mul"]


@pytest.mark.parametrize("fusion", ["cpu", "gpu"])
def test_what_is_needed_elsewhere_is_not_fused_away(fusion):
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("conv", Conv2d(4), 0)
    builder.add("sum", Add(), builder.add("relu", Activation(RELU), x), x)
    assert names(builder.build(), fusion) == (
        ["conv", "activation", "add"] if fusion == "cpu" else ["conv", "activation+add"]
    )


def test_inputs_of_a_kernel_are_those_of_its_op_first():
    (*_, last) = kernels_of(MBConv(16, 16, 28, 28, expand=6).graph(), "gpu")
    assert last.inputs == ((1, 28, 28, 96), (1, 28, 28, 16))
    assert kernel_label(last) == "conv+add 28x28x96 -> 28x28x16"


def test_a_network_falls_into_the_kernels_of_its_blocks():
    blocks = [ConvBlock(3, 16, 32, 32, stride=2), MBConv(16, 16, 16, 16), MBConv(16, 16, 16, 16)]
    network = chain([(f"b{i}", block.graph()) for i, block in enumerate(blocks)])
    apart = [kernel.key for block in blocks for kernel in kernels_of(block.graph())]
    together = kernels_of(network)
    assert [kernel.key for kernel in together] == apart
    assert len(set(apart)) == len(apart) - 4  # the second MBConv is the first once more
    assert not any(kernel.is_network for kernel in together)


@pytest.mark.parametrize("activation", [RELU6, HARD_SWISH])
def test_kernels_do_the_work_of_the_whole(activation):
    graph = MBConv(16, 16, 28, 28, activation=activation, se=0.25).graph()
    per_call = TERMS.index("calls")
    parts, whole = work_terms(kernels_of(graph)), work_terms([graph])[0]
    whole[per_call] = len(parts)
    assert parts.sum(axis=0) == pytest.approx(whole)


def test_features_and_files_agree_on_what_is_fused():
    graph = MBConv(16, 16, 28, 28, activation=RELU6, se=0.25).graph()
    (row,) = work_terms([graph])
    assert row[TERMS.index("launches")] == len(kernels_of(graph)) == len(graph.nodes) - len(clamped_nodes(graph))


def test_an_identity_has_no_kernels_and_one_op_is_one():
    builder = GraphBuilder((1, 4))
    builder.add("linear", FullyConnected(2), 0)
    assert kernels_of(Graph(((1, 8, 8, 3),), ())) == []
    assert is_kernel(builder.build())
    assert not is_kernel(MBConv(16, 16, 28, 28).graph(), "gpu")


def test_an_unknown_fusion_is_refused():
    with pytest.raises(GraphError, match=r"unknown fusion 'npu'; known: cpu, gpu, onnx, onnx8, onnx16, tflite"):
        kernels_of(MBConv(16, 16, 28, 28).graph(), "npu")


def measured_kernels(fusion):
    """Kernels of several blocks, in ms: 0.01 to start and 1e-6 per MAC, the same on every such device."""
    blocks = [
        MBConv(cin, cout, size, size, kernel=kernel, activation=HARD_SWISH)
        for cin, cout, size in ((16, 16, 28), (16, 24, 14), (24, 32, 14), (32, 32, 7), (48, 48, 28), (64, 64, 14))
        for kernel in (3, 5)
    ]
    kernels = {kernel.key: kernel for block in blocks for kernel in kernels_of(block.graph(), fusion)}
    return list(kernels.values()), [0.01 + 1e-6 * kernel.macs for kernel in kernels.values()]


@pytest.mark.parametrize("fusion", ["cpu", "gpu"])
def test_a_network_is_predicted_from_its_kernels_alone(fusion):
    predictor = LatencyPredictor(residual="none").fit(*measured_kernels(fusion))
    blocks = [MBConv(16, 24, 28, 28, stride=2, activation=HARD_SWISH), MBConv(24, 24, 14, 14, activation=HARD_SWISH)]
    network = chain([(f"b{i}", block.graph()) for i, block in enumerate(blocks)])
    kernels = kernels_of(network, fusion)
    assert predictor.predict([network])[0] == pytest.approx(predictor.predict(kernels).sum())
    assert predictor.predict([network])[0] == pytest.approx(0.01 * len(kernels) + 1e-6 * network.macs, rel=0.05)
    assert predictor.predict(blocks).sum() == pytest.approx(predictor.predict([network])[0])
    assert predictor.predict([tuple(kernels)]) == pytest.approx(predictor.predict([network]))


def test_whole_networks_beside_the_kernels_give_slope_and_offset(tmp_path):
    kernels, latency_ms = measured_kernels("cpu")
    networks = [
        chain([(f"b{cin}", MBConv(cin, 24, side, side, kernel=kernel).graph()) for cin in (16, 24)])
        for side in (7, 14, 28)
        for kernel in (3, 5)
    ]
    whole_ms = [1 + 1.2 * (0.01 * len(kernels_of(network)) + 1e-6 * network.macs) for network in networks]
    predictor = LatencyPredictor(residual="none").fit([*kernels, *networks], [*latency_ms, *whole_ms])
    assert predictor.predict(networks) == pytest.approx(whole_ms, rel=0.02)
    predictor.save(tmp_path / "p.json")
    assert (LatencyPredictor.load(tmp_path / "p.json").predict(networks) == predictor.predict(networks)).all()


def test_an_op_that_no_kernel_had_is_refused():
    predictor = LatencyPredictor(residual="none").fit(*measured_kernels("cpu"))
    with pytest.raises(UnknownOpError, match="pool"):
        predictor.predict([MBConv(16, 16, 28, 28, se=0.25).graph()])


def padded(kernel=3, stride=2, border=(1, 1), side=16) -> Graph:
    """A depthwise convolution behind a pad, as torch's exports are read."""
    builder = GraphBuilder((1, side, side, 16))
    x = builder.add("pad", Pad(border, border), 0)
    x = builder.add("conv", Conv2d(16, (kernel, kernel), (stride, stride), 16, Padding.VALID), x)
    builder.add("act", Activation(RELU), x)
    return builder.build()


@pytest.mark.parametrize(
    ("fusion", "kernels"),
    [
        ("cpu", ["pad+conv+activation"]),
        ("onnx", ["pad+conv+activation"]),
        ("gpu", ["pad+conv+activation"]),
        ("tflite", ["pad", "conv+activation"]),
    ],
)
def test_a_pad_is_part_of_the_convolution_behind_it_but_for_tflites_own_kernels(fusion, kernels):
    assert names(padded(), fusion) == kernels
    assert is_kernel(padded(), fusion) == (len(kernels) == 1)


def test_only_onnxs_pools_do_the_padding_before_them():
    builder = GraphBuilder((1, 16, 16, 8))
    x = builder.add("relu", Activation(RELU), 0)
    x = builder.add("pad", Pad((1, 1), (1, 1)), x)
    x = builder.add("max", Pool2d("max", (3, 3), (2, 2), Padding.VALID), x)
    x = builder.add("pad_2", Pad((1, 1), (1, 1)), x)
    x = builder.add("avg", Pool2d("avg", (3, 3), (2, 2), Padding.VALID), x)
    x = builder.add("pad_3", Pad((1, 1), (1, 1)), x)
    builder.add("max_2", Pool2d("max", (3, 3), (2, 2), Padding.VALID), x)  # of values that may be negative
    assert names(builder.build(), "onnx") == ["activation", "pad+pool", "pad+pool", "pad", "pool"]
    assert names(builder.build(), "cpu") == ["activation", "pad", "pool", "pad", "pool", "pad", "pool"]


@pytest.mark.parametrize(
    ("runtime", "delegate", "fusion"),
    [
        ("onnxruntime", "cpu", "onnx"), ("litert", "xnnpack", "cpu"), ("tflite", "xnnpack", "cpu"),
        ("tflite", "none", "tflite"), ("tflite", "nnapi", "tflite"), ("tflite", "gpu", "gpu"),
        ("torch", "cudnn", "cpu"),
    ],
)  # fmt: skip
def test_the_setup_says_what_becomes_one_kernel(runtime, delegate, fusion):
    assert fusion_of(Setup("d", "p", "o", runtime, "1", delegate)) == fusion


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("side", [15, 16])
def test_torchs_padding_costs_what_tensorflows_does_where_the_convolution_pads(runtime, side, tmp_path):
    setup = Setup("d", "p", "o", runtime, "1", "xnnpack")
    predictor = LatencyPredictor("none").fit(*measured_kernels("cpu"), setup=setup)
    predictor.save(tmp_path / "p.json")
    for stride in (1, 2):
        same = ConvBlock(16, 16, side, side, stride, activation=RELU).graph()
        conv = Conv2d(16, (3, 3), (stride, stride), 16)
        same = Graph(same.inputs, (Node("conv", conv, (0,)), Node("act", Activation(RELU), (1,))))
        for one in (predictor, LatencyPredictor.load(tmp_path / "p.json")):
            expected_ms, found_ms = one.predict([same, padded(stride=stride, side=side)])
            assert found_ms == pytest.approx(expected_ms)


def test_a_pad_that_is_none_of_tensorflows_is_not_charged_either():
    setup = Setup("d", "p", "o", "onnxruntime", "1")
    predictor = LatencyPredictor("none").fit(*measured_kernels("cpu"), setup=setup)
    graph = padded(border=(4, 4))
    kernel = graph.subgraph(1, 3)  # the convolution on what is padded by then
    assert predictor.predict([graph]) == pytest.approx(predictor.predict([kernel]))


def test_tflites_own_kernels_are_charged_for_every_pad(tmp_path):
    setup = Setup("d", "p", "o", "tflite", "1", "none")
    predictor = LatencyPredictor("none").fit(*measured_kernels("tflite"), setup=setup)
    predictor.save(tmp_path / "p.json")
    for one in (predictor, LatencyPredictor.load(tmp_path / "p.json")):
        whole_ms, conv_ms = one.predict([padded(), padded().subgraph(1, 3)])
        assert whole_ms > conv_ms + 0.005


def test_onnx_runtime_starts_no_pad_where_none_is_charged(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = chain(
        (f"b{i}", block.graph())
        for i, block in enumerate(
            (ConvBlock(3, 16, 32, 32, 2, padding="symmetric"), MBConv(16, 24, 16, 16, 2, 5, padding="symmetric"))
        )
    )
    assert sum(isinstance(node.op, Pad) for node in graph.nodes) == 2
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "ran")
    session = onnxruntime.InferenceSession(write_onnx(graph), options, providers=["CPUExecutionProvider"])
    session.run(None, {"input": np.zeros((1, 3, 32, 32), np.float32)})
    ran = {event["args"]["op_name"] for event in json.loads(Path(session.end_profiling()).read_text())
           if event.get("cat") == "Node" and "op_name" in event["args"]}  # fmt: skip
    assert "Conv" in ran
    assert "Pad" not in ran
    assert not any(name == "pad" for name in names(graph, "onnx"))


def test_a_stored_value_belongs_to_the_kernel_that_takes_it_and_costs_what_that_reads():
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("conv", Conv2d(4), 0)
    offset = builder.add("offset", Constant((4,)))
    x = builder.add("sum", Add(), offset, x)
    builder.add("relu", Activation(ActivationKind.RELU), x)
    graph = builder.build()
    assert names(graph, "cpu") == ["conv", "constant+add+activation"]
    assert names(graph, "gpu") == ["conv+constant+add+activation"]
    (_, kernel) = kernels_of(graph)
    assert kernel.inputs == ((1, 8, 8, 4),)
    assert is_kernel(kernel)
    assert [op.kind for op, *_ in launched(graph)] == ["conv", "add"]
    assert work_terms([kernel])[0, TERMS.index("add.moved")] == 4 * (2 * 8 * 8 * 4 + 4)


def test_a_node_of_several_results_is_a_kernel_that_gives_them_all():
    builder = GraphBuilder((1, 8, 8, 4))
    first = builder.add("split", Split((1, 3)), 0)
    builder.add("joined", Concat(), first + 1, first)
    (split, joined) = kernels_of(builder.build(), "gpu")
    assert split.output_shapes == ((1, 8, 8, 1), (1, 8, 8, 3))
    assert joined.inputs == ((1, 8, 8, 3), (1, 8, 8, 1))


def test_what_takes_stored_values_alone_has_them_as_inputs():
    builder = GraphBuilder((1, 4, 4, 8))
    x = builder.add("conv", Conv2d(8), 0)
    stored = builder.add("stored", Constant((1, 4, 4, 8)))
    gate = builder.add("gate", Activation(ActivationKind.SIGMOID), stored)
    graph = builder.build(builder.add("mul", Mul(), x, gate))
    assert names(graph) == ["conv", "activation", "mul"]
    assert kernels_of(graph)[1].inputs == ((1, 4, 4, 8),)


def test_what_takes_no_input_belongs_to_what_takes_its_result():
    builder = GraphBuilder((1, 4, 4, 8))
    x = builder.add("conv", Conv2d(8), 0)
    noise = builder.add("noise", Opaque("RandomNormal", ((1, 4, 4, 8),)))
    graph = builder.build(builder.add("add", Add(), x, noise))
    assert names(graph) == ["conv", "opaque+add"]
    assert [op.kind for op, *_ in launched(graph)] == ["conv", "opaque", "add"]
    with pytest.raises(UnknownOpError, match="RandomNormal"):
        LatencyPredictor.load("pixel4-gpu").predict([graph])
