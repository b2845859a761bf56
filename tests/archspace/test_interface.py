"""A model's inputs and outputs survive being read and written: names, order of axes, outputs that are one tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.interface import Interface, Port, TrainedModel
from netlathe.archspace.forms.onnx import read_onnx_weights, write_onnx
from netlathe.archspace.forms.structure import INTERFACE_KEY
from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.forms.torch_program import read_module_weights, save_program

ort = pytest.importorskip("onnxruntime")


class Heads(nn.Module):
    """Outputs of ranks 2 to 4, in the order of axes that torch has and in others, and one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 6, 3, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.head(self.stem(image).relu())
        line = y.flatten(2)
        return y, line, line.softmax(1), y.mean((2, 3)), y.permute(0, 2, 3, 1), line.permute(0, 2, 1), line + 0


class Sequence(nn.Module):
    """A convolution over time, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=1)

    def forward(self, sound: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return self.conv(sound).relu() * gain


MODULES: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "heads": (Heads(), (torch.randn(1, 3, 8, 10),)),
    "sequence": (Sequence(), (torch.randn(1, 4, 12), torch.randn(1, 8, 12))),
}


@pytest.fixture(params=MODULES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[TrainedModel, tuple[torch.Tensor, ...], list[torch.Tensor]]:
    """A model as it was read, its inputs, and the outputs of the module."""
    module, inputs = MODULES[request.param]
    with torch.no_grad():
        given = module.eval()(*inputs)
    return read_module_weights(module, inputs), inputs, list(given) if isinstance(given, tuple) else [given]


def same(found: Any, expected: list[torch.Tensor]) -> None:
    found = list(found) if isinstance(found, list | tuple) else [found]
    assert [tuple(one.shape) for one in found] == [tuple(one.shape) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other.numpy(), atol=1e-5)


def run(content: bytes, feeds: dict[str, np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(names, feeds)  # type: ignore[no-any-return]


def test_an_onnx_file_takes_and_gives_what_the_module_does(case: Any) -> None:
    (graph, weights, interface), inputs, expected = case
    content = write_onnx(graph, weights, interface=interface)
    names = [port.name for port in interface.inputs]
    same(run(content, {name: x.numpy() for name, x in zip(names, inputs, strict=True)}), expected)
    again = read_onnx_weights(content)
    assert (again.graph, again.interface) == (graph, interface)
    assert write_onnx(again.graph, again.weights, interface=again.interface) == content


def test_a_torch_program_takes_and_gives_what_the_module_does(case: Any, tmp_path: Path) -> None:
    (graph, weights, interface), inputs, expected = case
    network = TorchGraph(graph).eval()
    load_weights(network, weights)
    save_program(network, tmp_path / "network.pt2", interface)
    program = torch.export.load(tmp_path / "network.pt2")
    assert [tuple(one.shape) for one in program.example_inputs[0]] == [tuple(one.shape) for one in inputs]
    with torch.no_grad():
        same(program.module()(*inputs), expected)


def channels_last_model(result: str = "scores") -> bytes:
    """Images (N, H, W, C) that a transpose brings to a convolution, as converters from TensorFlow write them."""
    rng = np.random.default_rng(0)
    kernel = numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "kernel")
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["turned", "kernel"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["conv"], [result], perm=[0, 2, 3, 1]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("pixels", (1, 6, 5, 3)), (result, (1, 6, 5, 8)))
    ]
    body = helper.make_graph(nodes, "model", ends[:1], ends[1:], [kernel])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize("result", ["scores", "input", "input.0"])  # names that netlathe's own files have within
def test_a_file_of_images_with_their_channels_last_keeps_them(result: str) -> None:
    content = channels_last_model(result)
    graph, weights, interface = read_onnx_weights(content)
    assert interface == Interface((Port("pixels", 0, (0, 1, 2, 3)),), (Port(result, 0, (0, 1, 2, 3)),))
    pixels = {"pixels": np.random.default_rng(1).normal(size=(1, 6, 5, 3)).astype(np.float32)}
    written = write_onnx(graph, weights, interface=interface)
    np.testing.assert_allclose(run(written, pixels, [result])[0], run(content, pixels, [result])[0], atol=1e-5)


def test_two_ends_of_one_name_are_refused() -> None:
    graph, weights, interface = read_onnx_weights(channels_last_model())
    assert interface is not None
    twice = Interface(interface.inputs, interface.outputs * 2)
    with pytest.raises(FormatError, match="two inputs or outputs of the model have one name"):
        write_onnx(graph, weights, interface=twice)


@pytest.mark.parametrize(
    "wrong",
    [
        "no JSON", "[]", '{"inputs": []}', '{"inputs": [["pixels", 0, [0, 1]]], "outputs": []}',
        '{"inputs": [["pixels", 3, [0, 1, 2, 3]]], "outputs": []}', '{"inputs": [[1, 0, [0, 1, 2, 3]]], "outputs": []}',
        '{"inputs": [["pixels", 0, [0, 1, 2, 3]]], "outputs": [["scores", 0, [0, 3, 1, 2]]]}',
        '{"inputs": [["pixels", 0, [0, 1, 2, {}]]], "outputs": []}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_interface_leaves_the_file_to_be_read_by_its_nodes(wrong: str) -> None:
    graph, weights, interface = read_onnx_weights(channels_last_model())
    model = onnx.load_from_string(write_onnx(graph, weights, interface=interface))
    (entry,) = [one for one in model.metadata_props if one.key == INTERFACE_KEY]
    assert Interface.from_json(json.loads(entry.value), graph) == interface
    entry.value = wrong
    again = read_onnx_weights(model.SerializeToString())
    assert again.interface == interface
    assert again.graph.inputs == graph.inputs
