"""Weights of foreign files: every form computes with them what the file does."""

from __future__ import annotations

import io
import struct
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tflite_files import FileBuilder
from torch import Tensor, nn

import netlathe as nl
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.onnx import read_onnx, read_onnx_weights, write_onnx
from netlathe.archspace.forms.structure import nchw
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_reader import read_tflite, read_tflite_weights
from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.forms.weights import Weights, check_weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Activation, Conv2d, FullyConnected, Opaque, Reshape, TransposeConv2d

N = helper.make_node
IMAGE = (1, 4, 6, 5)
Array = NDArray[Any]


def drawn(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def near_one(*shape: int) -> Array:
    return 1 + drawn(*shape) / 4


def model_of(
    nodes: list[NodeProto], shape: tuple[int, ...] = IMAGE, opset: int = 17, outputs: tuple[str, ...] = ("y",),
    **constants: Any,
) -> bytes:  # fmt: skip
    """A model of an input x with constants, float32 unless they are integers or halves."""
    given = [helper.make_empty_tensor_value_info(name) for name in outputs]
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    tensors = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
        for name, a in arrays.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    body = helper.make_graph(nodes, "foreign", [x], given, tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(body, opset_imports=imports, ir_version=8).SerializeToString())


def run_onnx(content: bytes, x: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: x}))


def run_tflite(content: bytes, x: Array) -> list[Array]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def by_torch(graph: Graph, weights: Weights, x: Array) -> list[Array]:
    """On the file's input, results as torch has them."""
    module = TorchGraph(graph)
    load_weights(module, weights)
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(x.reshape(nchw(graph.inputs[0]))))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def assert_same(found: list[Array], expected: list[Array]) -> None:
    assert len(found) == len(expected)
    for y, wanted in zip(found, expected, strict=True):
        wanted = wanted if y.shape == wanted.shape else first(wanted)  # of a file that gives its channels last
        assert y.size == wanted.size
        assert np.abs(y.ravel() - wanted.ravel()).max() <= 1e-5 * np.abs(wanted).max()


def last(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def first(x: Array) -> Array:
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def assert_read(graph: Graph, weights: Weights, x: Array, expected: list[Array], *, tflite: bool = True) -> None:
    """All forms give what the model gave, whose axes are torch's."""
    check_weights(graph, weights)
    assert_same(by_torch(graph, weights, x), expected)
    assert_same(run_onnx(write_onnx(graph, weights), x.reshape(nchw(graph.inputs[0]))), expected)
    if tflite:
        given = last(x.reshape(nchw(graph.inputs[0])))
        assert_same([first(y) for y in run_tflite(write_tflite(graph, weights), given)], expected)


def read_and_compare(content: bytes, shape: tuple[int, ...] = IMAGE, *, tflite: bool = True) -> Graph:
    graph, weights, _ = read_onnx_weights(content)
    assert graph == read_onnx(content)
    x = drawn(*shape)
    assert_read(graph, weights, x, run_onnx(content, x), tflite=tflite)
    return graph


NORM: dict[str, Any] = {"g": near_one(6), "b": drawn(6), "m": drawn(6), "v": near_one(6) ** 2}
"""BatchNorm's constants for six channels."""
CONV = N("Conv", ["x", "w"], ["z"], pads=[1, 1, 1, 1])
KERNEL = drawn(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([CONV, N("BatchNormalization", ["z", *"gbmv"], ["y"], epsilon=0.01)], {"w": KERNEL, **NORM}),
        (
            [N("Conv", ["x", "w", "c"], ["z"]), N("BatchNormalization", ["z", *"gbmv"], ["y"])],
            {"w": KERNEL, "c": drawn(6), **NORM},
        ),
        (
            [CONV, N("Mul", ["z", "s"], ["t"]), N("Add", ["o", "t"], ["y"])],
            {"w": KERNEL, "s": drawn(6, 1, 1), "o": drawn(1, 6, 1, 1)},
        ),
        ([N("Conv", ["x", "w"], ["y"], group=2, strides=[2, 1])], {"w": drawn(6, 2, 3, 3)}),
        ([N("Conv", ["x", "w"], ["y"], group=4, auto_pad="SAME_UPPER")], {"w": drawn(8, 1, 3, 3)}),
        (
            [
                N("ConvTranspose", ["x", "w", "c"], ["z"], strides=[2, 2]),
                N("BatchNormalization", ["z", *"gbmv"], ["y"]),
            ],
            {"w": drawn(4, 6, 3, 3), "c": drawn(6), **NORM},
        ),
        ([N("BatchNormalization", ["x", *"gbmv"], ["y"])], {key: value[:4] for key, value in NORM.items()}),
        ([N("PRelu", ["x", "s"], ["y"])], {"s": drawn(4, 1, 1)}),
        ([N("PRelu", ["x", "s"], ["y"])], {"s": drawn(1, 4, 6, 5)}),
        ([N("Mul", ["c", "x"], ["y"])], {"c": drawn(4, 1, 5)}),
        ([N("Sub", ["x", "c"], ["y"])], {"c": drawn(1, 4, 6, 5)}),
        ([N("Concat", ["x", "c"], ["y"], axis=1)], {"c": drawn(1, 3, 6, 5)}),
        ([N("Concat", ["c", "x"], ["y"], axis=3)], {"c": drawn(1, 4, 6, 2)}),
        (
            [N("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), N("LayerNormalization", ["t", "g", "b"], ["y"])],
            {"g": drawn(4), "b": drawn(4)},
        ),
        ([N("LayerNormalization", ["x", "g"], ["y"], axis=-2)], {"g": drawn(6, 5)}),
        ([N("InstanceNormalization", ["x", "g", "b"], ["y"])], {"g": drawn(4), "b": drawn(4)}),
    ],
    ids=lambda value: "-".join(node.op_type for node in value) if isinstance(value, list) else "",
)
def test_layers_of_images_bring_their_weights(nodes: list[NodeProto], constants: dict[str, Any]) -> None:
    read_and_compare(model_of(nodes, **constants))


def test_a_convolution_keeps_the_batch_norm_that_the_file_has() -> None:
    content = model_of([CONV, N("BatchNormalization", ["z", *"gbmv"], ["y"])], w=KERNEL, **NORM)
    graph, weights, _ = read_onnx_weights(content)
    assert [node.op.batch_norm for node in graph.nodes if isinstance(node.op, Conv2d)] == [True]
    (arrays,) = weights.values()
    scale = NORM["g"] / np.sqrt(NORM["v"] + 1e-5)
    np.testing.assert_allclose(arrays["kernel"], KERNEL * scale[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(arrays["bias"], NORM["b"] - NORM["m"] * scale, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([N("Gemm", ["x", "w", "c"], ["y"], transB=1)], {"w": drawn(3, 8), "c": drawn(3)}),
        ([N("Gemm", ["x", "w", "c"], ["y"], alpha=0.5, beta=2.0)], {"w": drawn(8, 3), "c": drawn(1, 3)}),
        ([N("Gemm", ["x", "w", "c"], ["y"])], {"w": drawn(8, 3), "c": np.float32(0.5)}),
        ([N("Gemm", ["x", "w"], ["y"])], {"w": drawn(8, 3)}),
        ([N("MatMul", ["x", "w"], ["z"]), N("Add", ["c", "z"], ["y"])], {"w": drawn(8, 3), "c": drawn(3)}),
        ([N("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", alpha=0.5)], {"w": drawn(8, 3)}),
        ([N("Transpose", ["w"], ["t"]), N("MatMul", ["x", "t"], ["y"])], {"w": drawn(3, 8)}),
        (
            [N("Cast", ["h"], ["w"], to=TensorProto.FLOAT), N("MatMul", ["x", "w"], ["y"])],
            {"h": drawn(8, 3).astype(np.float16)},
        ),
        ([N("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([2, 0, 5])}),
    ],
    ids=lambda value: "-".join(node.op_type for node in value) if isinstance(value, list) else "",
)
def test_products_bring_their_weights(nodes: list[NodeProto], constants: dict[str, Any]) -> None:
    read_and_compare(model_of(nodes, (2, 8), **constants), (2, 8))


def test_large_weights_that_the_file_computes_are_read() -> None:
    """Of more values than those that steer ops: reading without weights knows their shape alone."""
    nodes = [N("Transpose", ["w"], ["t"], perm=[1, 0]), N("MatMul", ["x", "t"], ["y"])]
    read_and_compare(model_of(nodes, (1, 300), w=drawn(300, 300)), (1, 300))


FLAT = N("Flatten", ["x"], ["f"])


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([FLAT, N("Gemm", ["f", "w"], ["y"])], {"w": drawn(120, 3)}),
        ([FLAT, N("Relu", ["f"], ["r"]), N("MatMul", ["r", "w"], ["y"])], {"w": drawn(120, 3)}),
        (
            [FLAT, N("BatchNormalization", ["f", *"gbmv"], ["n"]), N("Gemm", ["n", "w"], ["y"])],
            {"g": drawn(120), "b": drawn(120), "m": drawn(120), "v": near_one(120) ** 2, "w": drawn(120, 3)},
        ),
        (
            [FLAT, N("Mul", ["f", "s"], ["n"]), N("PRelu", ["n", "p"], ["o"]), N("Gemm", ["o", "w"], ["y"])],
            {"s": drawn(120), "p": drawn(120), "w": drawn(120, 3)},
        ),
        (
            [
                FLAT, N("Tanh", ["f"], ["t"]), N("Concat", ["f", "t"], ["c"], axis=1), N("Gemm", ["c", "w"], ["y"]),
            ],
            {"w": drawn(240, 3)},
        ),
        ([FLAT, N("ReduceMax", ["f"], ["y"], axes=[1])], {}),
        ([FLAT, N("Reshape", ["f", "s"], ["r"]), N("Conv", ["r", "w"], ["y"])],
         {"s": np.array([1, 120, 1, 1]), "w": drawn(3, 120, 1, 1)}),
        ([FLAT, N("Reshape", ["f", "s"], ["r"]), N("Conv", ["r", "w"], ["y"])],
         {"s": np.array([1, 4, 6, 5]), "w": drawn(3, 4, 1, 1)}),
    ],
    ids=lambda value: "-".join(node.op_type for node in value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_flattened_image_meets_weights_in_its_own_order(nodes: list[NodeProto], constants: dict[str, Any]) -> None:
    graph = read_and_compare(model_of(nodes, opset=13, **constants))
    assert all(node.op.kind != "transpose" for node in graph.nodes)


@pytest.mark.parametrize(
    "behind",
    [
        [N("Reshape", ["z", "s"], ["i"]), N("Conv", ["i", "k"], ["y"])],
        [N("Relu", ["z"], ["r"]), N("Reshape", ["r", "s"], ["i"]), N("Conv", ["i", "k"], ["y"])],
    ],
)
def test_a_layer_whose_result_becomes_an_image_gives_it_in_the_graphs_order(behind: list[NodeProto]) -> None:
    nodes = [N("Gemm", ["x", "w", "c"], ["z"]), *behind]
    constants: dict[str, Any] = {"w": drawn(8, 60), "c": drawn(60), "s": np.array([2, 3, 4, 5]), "k": drawn(2, 3, 3, 3)}
    read_and_compare(model_of(nodes, (2, 8), **constants), (2, 8))


@pytest.mark.parametrize(
    ("nodes", "constants", "why"),
    [
        (
            [FLAT, N("Slice", ["f", "a", "e", "i"], ["y"])],
            {"a": np.array([0]), "e": np.array([7]), "i": np.array([1])},
            r"node 1 \(Slice ''\): it takes a flattened image",
        ),
        ([FLAT], {}, "it gives a flattened image"),
        (
            [N("Gemm", ["x", "w"], ["y2"]), N("Reshape", ["y2", "s"], ["i"]), N("Conv", ["i", "k"], ["y"])],
            {"w": drawn(8, 60), "s": np.array([1, 3, 4, 5]), "k": drawn(2, 3, 3, 3)}, "it gives a flattened image",
        ),
        ([FLAT, N("MatMul", ["m", "f"], ["y"])], {"m": drawn(3, 1)}, "it takes a flattened image"),
        (
            [N("Gemm", ["x", "w"], ["z"]), N("Reshape", ["z", "s"], ["i"]), N("Relu", ["z"], ["y2"]),
             N("Conv", ["i", "k"], ["y"])],
            {"w": drawn(8, 60), "s": np.array([1, 3, 4, 5]), "k": drawn(2, 3, 3, 3)},
            "in which others need it",
        ),
        ([N("Det", ["x"], ["y"])], {}, r"Det ''\): netlathe has no such op, so that its weights cannot be read"),
        (
            [N("DequantizeLinear", ["q", "s"], ["w"]), N("Conv", ["x", "w"], ["y"])],
            {"q": np.ones((6, 4, 3, 3), np.int8), "s": 0.5},
            "int8: quantized already",
        ),
        (
            [N("BatchNormalization", ["x", *"gbmv"], ["y", "m2", "v2"], training_mode=1)],
            {key: value[:4] for key, value in NORM.items()}, "in training mode; export the model in eval mode",
        ),
        (
            [N("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), N("Conv", ["h", "w"], ["y"])],
            {"w": KERNEL.astype(np.float16)}, "its weights are float16.*give the float32 model",
        ),
        (
            [N("GlobalMaxPool", ["x"], ["p"]), N("Flatten", ["p"], ["c"], axis=3), N("Conv", ["x", "w", "c"], ["y"])],
            {"w": KERNEL}, "'c' is computed at run time, and no weight",
        ),
        (
            [N("Reshape", ["x", "s"], ["f"]), N("Gemm", ["f", "w"], ["y"])],
            {"s": np.array([2, 60]), "w": drawn(60, 3)}, "a reshape has mixed an image's channels and pixels",
        ),
        (
            [N("Resize", ["x", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
               nearest_mode="ceil")],
            {"s": np.array([1, 1, 1.5, 2])},
            "takes its pixels from other places",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_by_its_place(
    nodes: list[NodeProto], constants: dict[str, Any], why: str
) -> None:
    outputs = ("y", "y2") if any("y2" in node.output for node in nodes) else (nodes[-1].output[0],)
    shape = (1, 8) if nodes[0].op_type == "Gemm" else IMAGE
    with pytest.raises(FormatError, match=why):
        read_onnx_weights(model_of(nodes, shape, outputs=outputs, **constants))


def test_open_sizes_are_given_as_without_weights() -> None:
    model = onnx.load_model_from_string(model_of([CONV], w=KERNEL, outputs=("z",)))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[0].dim_param, sizes[2].dim_param = "n", "h"
    content, shape = bytes(model.SerializeToString()), (2, 4, 9, 5)
    with pytest.raises(FormatError, match="dynamic shape"):
        read_onnx_weights(content)
    graph, weights, _ = read_onnx_weights(content, shapes={"x": shape})
    assert graph == read_onnx(content, shapes={"x": shape})
    x = drawn(*shape)
    assert_read(graph, weights, x, run_onnx(content, x))


def test_sparse_weights_are_refused_by_name() -> None:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [8, 3])
    model = onnx.load_model_from_string(model_of([N("Gemm", ["x", "w"], ["y"])], (1, 8)))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(FormatError, match="'w' is sparse"):
        read_onnx_weights(bytes(model.SerializeToString()))


class TestWeightsInAnotherFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        model = onnx.load_model_from_string(model_of([CONV], w=KERNEL, outputs=("z",)))
        path = tmp_path / "model.onnx"
        onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        return path

    def test_they_are_read_beside_the_model(self, path: Path) -> None:
        graph, weights, _ = read_onnx_weights(path)
        assert graph == read_onnx(path)
        (arrays,) = weights.values()
        assert (arrays["kernel"] == KERNEL).all()

    def test_a_missing_or_short_file_is_named(self, path: Path) -> None:
        (path.parent / "weights.bin").write_bytes(b"short")
        with pytest.raises(FormatError, match="'w' cannot be read"):
            read_onnx_weights(path)
        (path.parent / "weights.bin").unlink()
        with pytest.raises(FormatError, match=r"weights\.bin.*missing beside it"):
            read_onnx_weights(path)

    def test_a_model_given_as_bytes_has_no_place_to_look(self, path: Path) -> None:
        with pytest.raises(FormatError, match="read the model by its path"):
            read_onnx_weights(path.read_bytes())


# What torch writes


class Images(nn.Module):
    """What people's networks of images are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Sequential(
            OrderedDict(
                flat=nn.Flatten(), wide=nn.Linear(8 * 4 * 5, 12), norm=nn.BatchNorm1d(12), last=nn.Linear(12, 5)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        x = x + y * torch.sigmoid(self.squeeze(y))
        x = self.grouped(torch.cat([x, y], 1))
        left, right = x.chunk(2, 1)
        x = torch.cat([nn.functional.avg_pool2d(self.up(left), 2), right], 1)
        x = nn.functional.gelu(self.norm(x)).view(-1, 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        found: Tensor = self.head(nn.functional.max_pool2d(x, 2))
        return found


class Sequences(nn.Module):
    """Convolutions of sequences, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, stride=2)
        self.places = nn.Parameter(torch.randn(1, 7, 8))
        self.norm = nn.LayerNorm(8)
        self.mixed = nn.Linear(8, 24)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).transpose(1, 2) + self.places
        q, k, v = self.mixed(self.norm(x)).view(-1, 7, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        found: Tensor = self.out((x + y.transpose(1, 2).flatten(2)).mean(1))
        return found


def varied(module: nn.Module) -> nn.Module:
    """In eval mode, no offset of which is 0 and no factor 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.dim() == 1 and value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if "var" in name else -0.5))
    return module.eval()


MODULES = [(Images, (2, 3, 16, 20)), (Sequences, (2, 3, 16))]


def result_of(module: nn.Module, x: Array) -> list[Array]:
    with torch.no_grad():
        return [module(torch.from_numpy(x)).numpy()]


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize(("kind", "shape"), MODULES)
def test_what_torch_exports_brings_its_weights(kind: type[nn.Module], shape: tuple[int, ...], opset: int) -> None:
    torch.manual_seed(0)
    module, x = varied(kind()), drawn(*shape)
    content: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have its newer exporter used
        torch.onnx.export(
            module, (torch.from_numpy(x),), content, dynamo=False, opset_version=opset, do_constant_folding=opset > 11
        )
    graph, weights, _ = read_onnx_weights(content.getvalue())
    assert graph == read_onnx(content.getvalue())
    assert_read(graph, weights, x, result_of(module, x), tflite=kind is not Images)  # TFLite's has no groups


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape"), MODULES)
def test_a_module_and_a_program_bring_their_weights(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, x = varied(kind()), drawn(*shape)
    module.train()
    found = nl.read_weights(module, torch.from_numpy(x))
    assert module.training
    program = torch.export.export(module.eval(), (torch.from_numpy(x),))
    for graph, weights in (found, nl.read_weights(program)):
        assert graph == nl.read(program)
        assert_read(graph, weights, x, result_of(module, x), tflite=kind is not Images)


def test_files_and_objects_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of([CONV], w=KERNEL, outputs=("z",)))
    graph, weights = nl.read_weights(path)
    assert graph == nl.read(path)
    assert [*weights] == [node.name for node in graph.nodes if isinstance(node.op, Conv2d)]
    with pytest.raises(FormatError, match="only a torch module takes example inputs"):
        nl.read_weights(path, torch.zeros(1))
    with pytest.raises(FormatError, match="needs example inputs"):
        nl.read_weights(nn.Linear(2, 2))
    with pytest.raises(FormatError, match=r"model\.json: weights are read of"):
        nl.read_weights(tmp_path / "model.json")
    with pytest.raises(FormatError, match="a model file, torch module or exported program is needed"):
        nl.read_weights(graph)  # type: ignore[arg-type]


# What TFLite's converters write


def compared_tflite(content: bytes, shape: tuple[int, ...]) -> tuple[Graph, Weights]:
    graph, weights, _ = read_tflite_weights(content)
    assert graph == read_tflite(content)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    expected = [first(y) for y in run_tflite(content, x)]
    assert_same(by_torch(graph, weights, np.ascontiguousarray(first(x))), expected)
    assert_same([first(y) for y in run_tflite(write_tflite(graph, weights), x)], expected)
    return graph, weights


def test_weights_that_a_file_unpacks_are_read() -> None:
    """Stored in float16, and in int8 with a scale per channel."""
    file = FileBuilder()
    x = file.input((1, 8, 8, 4))
    kernel = file.op("DEQUANTIZE", [file.weights(6, 3, 3, 4, dtype="float16")], (6, 3, 3, 4))
    bias = file.op("DEQUANTIZE", [file.weights(6, dtype="float16")], (6,))
    x = file.op("CONV_2D", (x, kernel, bias), (1, 8, 8, 6), strideH=1, strideW=1)
    scales = [n / 100 for n in range(1, 7)]
    stored = file.constant(np.arange(54).reshape(1, 3, 3, 6) - 27, "int8", scales=scales, axis=3)
    depthwise = file.op("DEQUANTIZE", [stored], (1, 3, 3, 6))
    bias = file.weights(6)
    y = file.op("DEPTHWISE_CONV_2D", (x, depthwise, bias), (1, 8, 8, 6), strideH=1, strideW=1, depthMultiplier=1)
    graph, weights = compared_tflite(file.finish(y), (1, 8, 8, 4))
    layer = weights[graph.nodes[-1].name]
    wanted = (np.arange(54).reshape(3, 3, 6) - 27) * np.array(scales)
    np.testing.assert_allclose(layer["kernel"][:, 0].transpose(1, 2, 0), wanted, rtol=1e-5)


def test_layers_of_a_tflite_file_bring_their_weights() -> None:
    """A depthwise one of two channels each, one behind what flattens an image and without bias."""
    file = FileBuilder()
    x = file.input((1, 6, 6, 3))
    x = file.op(
        "DEPTHWISE_CONV_2D", (x, file.weights(1, 3, 3, 6), file.weights(6)), (1, 6, 6, 6),
        strideH=1, strideW=1, depthMultiplier=2,
    )  # fmt: skip
    x = file.op("PRELU", (x, file.weights(1, 1, 6)), (1, 6, 6, 6))
    x = file.op("CONV_2D", (x, file.weights(4, 1, 1, 6), file.weights(4)), (1, 6, 6, 4), strideH=1, strideW=1)
    x = file.op("MUL", (x, file.weights(4)), (1, 6, 6, 4))
    y = file.op("FULLY_CONNECTED", (x, file.weights(5, 144), -1), (1, 5))
    graph, _ = compared_tflite(file.finish(y), (1, 6, 6, 3))
    assert {type(node.op) for node in graph.nodes} >= {Conv2d, Reshape, FullyConnected}


@pytest.mark.parametrize(("padding", "size"), [(1, (10, 12)), (2, (11, 12))])
def test_the_custom_transposed_convolution_that_litert_knows_is_one(padding: int, size: tuple[int, int]) -> None:
    file = FileBuilder()
    inputs = (file.input((1, 5, 4, 3)), file.weights(6, 3, 3, 3), file.weights(6))
    settings = struct.pack("<3i", padding, 3, 2)  # SAME or VALID, then the strides of columns and of rows
    y = file.custom("Convolution2DTransposeBias", inputs, (1, *size, 6), options=settings)
    graph, _ = compared_tflite(file.finish(file.op("RELU", (y,), (1, *size, 6))), (1, 5, 4, 3))
    assert [type(node.op) for node in graph.nodes] == [TransposeConv2d, Activation]


@pytest.mark.parametrize("settings", [b"", b"short", struct.pack("<3i", 7, 2, 2), struct.pack("<3i", 1, 0, 2)])
def test_such_an_op_without_its_options_stays_a_foreign_one(settings: bytes) -> None:
    file = FileBuilder()
    inputs = (file.input((1, 5, 4, 3)), file.weights(6, 3, 3, 3), file.weights(6))
    (node,) = read_tflite(
        file.finish(file.custom("Convolution2DTransposeBias", inputs, (1, 10, 8, 6), options=settings))
    ).nodes
    assert isinstance(node.op, Opaque)


def test_a_quantized_tflite_file_and_foreign_ops_are_refused() -> None:
    graph = read_onnx(model_of([CONV], w=KERNEL, outputs=("z",)))
    with pytest.raises(FormatError, match="quantized already; give the float32 model"):
        read_tflite_weights(write_tflite(graph, dtype="int8"))
    file = FileBuilder()
    x = file.input((1, 8, 8, 4))
    with pytest.raises(FormatError, match=r"op 0 \(Mine\): netlathe has no such op, so that its weights cannot"):
        read_tflite_weights(file.finish(file.custom("Mine", [x], (1, 8, 8, 4))))
    file = FileBuilder()
    kernel = file.constant(np.ones((6, 1, 1, 4)), "int8", scales=[0.5])
    x = file.op("CONV_2D", (file.input((1, 8, 8, 4)), kernel, file.weights(6)), (1, 8, 8, 6), strideH=1, strideW=1)
    with pytest.raises(FormatError, match=r"op 0 \(CONV_2D\): its weights are int8: quantized already"):
        read_tflite_weights(file.finish(x))
