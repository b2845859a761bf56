"""Graph ⇄ .onnx: float32, NCHW, explicit pads, plain ops of opset 17 that every runtime knows.

Every result is called after the node that computes it. The file carries the graph itself as metadata, so that
read_onnx restores it exactly.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.interface import Interface, TrainedModel
from netlathe.archspace.forms.onnx_light import read_without_weights
from netlathe.archspace.forms.onnx_limits import check_messages
from netlathe.archspace.forms.onnx_structure import read_structure, read_structure_with_weights
from netlathe.archspace.forms.onnx_values import has_open_batch
from netlathe.archspace.forms.structure import (
    EMBEDDED_KEY,
    INTERFACE_KEY,
    FileContent,
    check_writable,
    embedded_graph,
    precision_of,
    read_source,
)
from netlathe.archspace.forms.weights import Weights, check_weights, random_weights, stored_count
from netlathe.archspace.graph import Graph

_MAX_WEIGHTS = (2**31 - 2**24) // 4  # float32 values in the 2 GB of a protobuf, less 16 MB for the rest

_QUANTIZED = {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm"}
_QUANTIZED_WEIGHTS = {"DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}


def write_onnx(
    graph: Graph, weights: Weights | None = None, *, interface: Interface | None = None, seed: int = 0
) -> bytes:
    """The graph as a float32 .onnx file of fixed batch; without weights, with random_weights(graph, seed).

    Inputs and outputs are those of `interface`, of the model that the graph was read of. Otherwise the input is called
    `input` (`input_0`, ... if there are several), the output after the last node, and images are NCHW. Raises
    FormatError where check_weights does, when two values would have one name, and beyond 2 GB.
    """
    from netlathe.archspace.forms.onnx_lowering import lower, with_interface

    check_writable(graph, "an .onnx form")
    weights = random_weights(graph, seed) if weights is None else weights
    check_weights(graph, weights)
    if stored_count(graph) > _MAX_WEIGHTS:
        raise FormatError("the weights exceed 2 GB, the limit of an .onnx file; write a smaller network")
    model = lower(graph, weights)
    if interface is not None:
        with_interface(model, graph, interface)
    return bytes(model.SerializeToString())


def read_onnx(data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph in an .onnx file.

    A file of netlathe's gives back the very graph that was written. A foreign file is read by its structure: images
    are NHWC in the graph, a convolution has BatchNorm where the file still has it, and segments are made by
    Graph.scoped. `shapes` are those of inputs whose sizes the file leaves open, by name and as the file orders axes
    ({"input": (1, 3, 224, 224)}; the name "" is a single input's); an open batch alone is 1. Ops that netlathe does
    not have are Opaque. Raises FormatError for what is no .onnx file or is corrupt, for open sizes that nothing fixes,
    missing files of weights, and nodes whose results have no known shape.
    """
    return read_onnx_file(data, shapes=shapes).graph


def read_onnx_file(
    data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> FileContent:
    """The graph as of read_onnx and the precision as of read_onnx_precision, in one reading; an open batch is `batch`.
    Raises FormatError as they do."""
    folder = data.parent if isinstance(data, Path) else None
    return read_source(data, lambda content: _read(_parse(content), folder, shapes or {}, batch), read_without_weights)


def read_onnx_weights(
    data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> TrainedModel:
    """The graph in a float32 .onnx file as of read_onnx, its weights, and its interface: write_onnx, write_tflite and a
    TorchGraph that they are loaded into compute what the file does.

    BatchNorm is folded into the weights of the convolution before it. Inputs and outputs are laid out as the graph says
    (images NHWC). Weights in files beside the model are read where it is given by its path. Raises FormatError as
    read_onnx does, and naming all nodes whose weights cannot be read: ops that netlathe does not have, weights that are
    quantized already, flattened images that go where the order of their values matters.
    """
    folder = data.parent if isinstance(data, Path) else None
    return read_source(data, lambda content: _read_weights(_parse(content), folder, shapes or {}, batch))


def _read_weights(
    model: ModelProto, folder: Path | None, shapes: Mapping[str, Sequence[int]], batch: int
) -> TrainedModel:
    if folder is not None:
        _check_external(model, folder)
    embedded = _embedded(model)
    if embedded is None:
        return read_structure_with_weights(model, shapes, batch, folder)
    from netlathe.archspace.forms.onnx_lowering import stored_weights

    graph, interface = embedded
    return TrainedModel(graph, stored_weights(graph, model), interface)


def read_onnx_precision(data: bytes | Path) -> str:
    """Precision that an .onnx file computes in: float32, float16, int8, or "float32 with int8 weights" where only these
    are quantized. Raises FormatError for what is no .onnx file."""
    return read_source(data, lambda content: _precision(_parse(content)), read_without_weights)


def _precision(model: ModelProto) -> str:
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTIZED:
        return "int8"
    dtypes = Counter(tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1)
    halves = dtypes[TensorProto.FLOAT16] > dtypes[TensorProto.FLOAT]
    return precision_of("float16" if halves else "float32", "int8" if kinds & _QUANTIZED_WEIGHTS else "")


def _read(model: ModelProto, folder: Path | None, shapes: Mapping[str, Sequence[int]], batch: int) -> FileContent:
    if folder is not None:
        _check_external(model, folder)
    embedded = _embedded(model)
    graph = embedded[0] if embedded else read_structure(model, shapes, batch)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    is_open = any(has_open_batch(value) and not {value.name, ""} & shapes.keys() for value in inputs)
    return FileContent(graph, _precision(model), is_open)


def _check_external(model: ModelProto, folder: Path) -> None:
    """Raises FormatError for files of weights that are missing beside the model. None is opened."""
    places = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for place in sorted(places):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise FormatError(f"its weights lie in {place!r:.200}, outside of its folder")
        if not (folder / place).is_file():
            raise FormatError(f"its weights lie in {place!r:.200}, which is missing beside it; fetch that file, too")


def _parse(content: bytes) -> ModelProto:
    check_messages(content)
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise FormatError(
            f"not an .onnx file, or a truncated one ({error}); check the path and the download"
        ) from error
    if not model.ir_version or not model.opset_import or not model.graph.input:
        raise FormatError("not an .onnx file: version, opset or inputs are missing; check the path and the download")
    return model


def _embedded(model: ModelProto) -> tuple[Graph, Interface | None] | None:
    """The graph that the file carries, and the interface if it has another model's, provided that its ops are what
    these are lowered to."""
    texts = {entry.key: entry.value for entry in model.metadata_props}
    graph = embedded_graph(texts[EMBEDDED_KEY]) if EMBEDDED_KEY in texts else None
    if graph is None:
        return None
    from netlathe.archspace.forms.onnx_lowering import lower, with_interface

    try:
        lowered, interface = lower(graph, None), None
        if INTERFACE_KEY in texts:
            interface = Interface.from_json(json.loads(texts[INTERFACE_KEY]), graph)
            with_interface(lowered, graph, interface)
        return (graph, interface) if _same_computation(lowered, model) else None
    except (ValueError, FormatError, RecursionError):  # sizes or names that no file can have
        return None


def _same_computation(lowered: ModelProto, model: ModelProto) -> bool:
    """Whether a model is what the graph is lowered to, whose weights have no values."""

    def content(model: ModelProto) -> tuple[object, ...]:
        graph = model.graph
        layers = [(t.name, t.data_type, *t.dims) for t in graph.initializer]
        settings = [t.raw_data for t in graph.initializer if t.name in steering]
        return (*map(list, (model.opset_import, graph.node, graph.input, graph.output, layers, settings)),)

    steering = {tensor.name for tensor in lowered.graph.initializer if tensor.raw_data}
    return content(lowered) == content(model)
