"""A network is predicted alike from its file, with netlathe's metadata and names or without."""

import dataclasses
import random

import onnx
import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, SeparableConv
from netlathe.archspace.forms.onnx import read_onnx, write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.graph import Graph, chain
from netlathe.archspace.networks import NETWORKS, network
from netlathe.archspace.ops import ActivationKind
from netlathe.archspace.presets import PRESETS
from netlathe.predictor import LatencyPredictor, Prior, shipped_names

HARD_SWISH = ActivationKind.HARD_SWISH
SAMPLES = {f"{name}-{seed}": space().sample(random.Random(seed)) for name, space in PRESETS.items() for seed in (0, 1)}
ARCHITECTURES = {**{name: network(name) for name in (*NETWORKS, "mobilenet_v2_0.5_160")}, **SAMPLES}
BLOCKS = {
    block.name: block
    for block in (
        MBConv(16, 24, 28, 28, 2, 5), MBConv(16, 24, 28, 28, 2, padding="symmetric"), MBConv(16, 16, 14, 14, 1, 7),
        MBConv(16, 24, 14, 14, expand=1), MBConv(16, 24, 28, 28, 2, activation=HARD_SWISH, se=0.25),
        MBConv(16, 16, 28, 28, activation=HARD_SWISH, se=0.25), MBConv(16, 16, 28, 28, residual=False, se=0.25),
        SeparableConv(16, 32, 28, 28, 2), SeparableConv(16, 32, 28, 28, 2, padding="symmetric"),
        ConvBlock(3, 16, 28, 28, 2, 5, padding="symmetric"), ConvBlock(16, 32, 14, 14, kernel=1),
        LinearHead(32, 10, 7, 7),
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def predictors() -> dict[str, LatencyPredictor]:
    """The shipped ones, and one that adapts what it knows of these very items."""
    found = {name: LatencyPredictor.load(name) for name in shipped_names()}
    items = list(BLOCKS.values())
    latency_ms = [0.1 + 1e-8 * block.graph().macs * (1 + index % 3) for index, block in enumerate(items)]
    known = Prior.learn({"one": (items, latency_ms), "other": (items, latency_ms[::-1])})
    return {**found, "few-shot": LatencyPredictor(prior=known).fit(items, [2 * ms for ms in latency_ms])}


def stripped_tflite(content: bytes) -> bytes:
    """Without metadata, and with other names."""
    model = unpack(content)
    tensors = tuple(dataclasses.replace(tensor, name=f"t{i}") for i, tensor in enumerate(model.tensors))
    return pack(dataclasses.replace(model, tensors=tensors, metadata={}), "another tool")


def stripped_onnx(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return bytes(model.SerializeToString())


def files_of(graph: Graph) -> list[Graph]:
    """What is read of the graph's files: as written, and of another tool that says nothing of blocks, in int8 too."""
    tflite, onnx_file, int8 = write_tflite(graph), write_onnx(graph), write_tflite(graph, dtype="int8")
    stripped = read_tflite(stripped_tflite(tflite)), read_onnx(stripped_onnx(onnx_file))
    return [read_tflite(tflite), read_onnx(onnx_file), *stripped, read_tflite(stripped_tflite(int8))]


@pytest.mark.parametrize("name", [*ARCHITECTURES, *BLOCKS])
def test_metadata_and_names_do_not_change_the_prediction(name, predictors):
    graph = (ARCHITECTURES | BLOCKS)[name].graph()
    graphs = [graph, *files_of(graph)]
    assert len({len(one.segments()) for one in graphs}) == 1
    priced = [predictor for predictor in predictors.values() if predictor.knows([graph])[0]]
    assert len(priced) >= 3
    for predictor in priced:
        expected_ms, *found_ms = predictor.predict(graphs)
        assert found_ms == pytest.approx([expected_ms] * len(found_ms), rel=1e-6)
        (low_ms, *lows_ms), (high_ms, *highs_ms) = predictor.predict_interval(graphs)
        assert lows_ms == pytest.approx([low_ms] * len(lows_ms), rel=1e-6)
        assert highs_ms == pytest.approx([high_ms] * len(highs_ms), rel=1e-6)


def test_a_chain_of_all_kinds_of_blocks_is_cut_back_into_them():
    blocks = [
        ConvBlock(3, 16, 32, 32, 2, padding="symmetric"), SeparableConv(16, 24, 16, 16), MBConv(24, 24, 16, 16),
        MBConv(24, 32, 16, 16, 2, 5, 4, HARD_SWISH, 0.25, padding="symmetric"),
        MBConv(32, 40, 8, 8, 1, 7, 1), MBConv(40, 40, 8, 8, residual=False), MBConv(40, 40, 8, 8, se=0.25),
        SeparableConv(40, 48, 8, 8, 2, padding="symmetric"), ConvBlock(48, 64, 4, 4, kernel=1),
        LinearHead(64, 10, 4, 4),
    ]  # fmt: skip
    graph = chain((f"b{i}", block.graph()) for i, block in enumerate(blocks))
    kinds = [[node.op.kind for node in block.graph().nodes] for block in blocks]
    for found in files_of(graph):
        assert [[node.op.kind for node in segment.nodes] for segment in found.segments()] == kinds
