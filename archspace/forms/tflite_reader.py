""".tflite -> Graph: netlathe's own files exactly, whether float32 or int8, foreign float32 files by their structure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.interface import TrainedModel
from netlathe.archspace.forms.structure import (
    BORDER_DTYPES,
    EMBEDDED_KEY,
    FileContent,
    embedded_graph,
    precision_of,
    read_source,
)
from netlathe.archspace.forms.tflite_file import Model, Tensor, unpack
from netlathe.archspace.forms.tflite_structure import read_structure, read_structure_with_weights
from netlathe.archspace.forms.tflite_values import has_open_batch
from netlathe.archspace.forms.weights import placeholder_weights, stored_count
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import is_mixed

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def read_tflite(
    data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, subgraph: str | None = None
) -> Graph:
    """The graph in a .tflite file: that of its first subgraph, or of the one of that name or signature.

    A file of netlathe's gives back the very graph that was written. In a foreign file, or where another tool has
    changed the ops since, convolutions come without BatchNorm (it is folded in), an op's name is that of its result,
    and segments are made by Graph.scoped. Ops that netlathe does not have (custom ones, control flow) become Opaque.
    `shapes` gives inputs, by name, other sizes than the file's; an open batch is 1 by default.

    Raises FormatError for what is no .tflite file or is corrupt, for other open sizes that are not given, and for ops
    that do not fit the shapes that the file states.
    """
    return read_source(data, lambda content: _read(content, shapes, subgraph).graph)


def read_tflite_file(
    data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> FileContent:
    """The graph as of read_tflite and the precision as of read_precision, in one reading; an open batch is `batch`.
    Raises FormatError as they do."""
    return read_source(data, lambda content: _read(content, shapes, None, batch))


def read_tflite_weights(
    data: bytes | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> TrainedModel:
    """The graph in a float32 .tflite file as of read_tflite, and its weights: write_tflite, write_onnx and a TorchGraph
    that they are loaded into compute what the file does. Weights stored in float16, or in integers that an op of their
    own makes real, are widened. Raises FormatError as read_tflite does, and for ops that netlathe does not have and
    layers that compute with weights that are no float32 ones."""
    return read_source(data, lambda content: _read_weights(content, shapes, batch))


def _read_weights(content: bytes, shapes: Mapping[str, Sequence[int]] | None, batch: int) -> TrainedModel:
    model = unpack(content)
    graph = None if shapes else _embedded(model, len(content))
    if graph is None:
        return TrainedModel(*read_structure_with_weights(model, shapes, batch), None)
    if any(t.quantization for t in model.tensors):
        raise FormatError(f"its weights are {_precision(model)}: quantized already; give the float32 model")
    from netlathe.archspace.forms.tflite_lowering import lower, stored_weights

    return TrainedModel(graph, stored_weights(graph, lower(graph, placeholder_weights(graph)), model), None)


def read_dtype(data: bytes) -> str:
    """Precision that a .tflite file computes in, by its input: float32, int8, ... Raises FormatError for what is
    none."""
    model = unpack(data)
    return model.tensors[model.inputs[0]].dtype.lower()


def read_precision(data: bytes | Path) -> str:
    """Precision that most layers of a .tflite file compute in: float32, int8, ..., or "float32 with int8 weights" where
    only their weights are quantized. Weights that are dequantized before they are used count as float32. Raises
    FormatError for what is no .tflite file."""
    return read_source(data, lambda content: _precision(unpack(content)))


def _precision(model: Model) -> str:
    layers = [op.inputs[:2] for op in model.operators if op.kind in _LAYERS and len(op.inputs) > 1]
    dtypes = [(model.tensors[x].dtype.lower(), model.tensors[weights].dtype.lower()) for x, weights in layers]
    if not dtypes:
        return model.tensors[model.inputs[0]].dtype.lower()
    return precision_of(*Counter(dtypes).most_common(1)[0][0])


def _read(
    content: bytes, shapes: Mapping[str, Sequence[int]] | None, subgraph: str | None, batch: int = 1
) -> FileContent:
    model = unpack(content, subgraph)
    graph = (None if shapes else _embedded(model, len(content))) or read_structure(model, shapes, batch)
    is_open = not shapes and any(has_open_batch(model.tensors[t]) for t in model.inputs)
    return FileContent(graph, _precision(model), is_open)


def _embedded(model: Model, size: int) -> Graph | None:
    """The graph that the file carries, provided that its ops are what that graph is lowered to."""
    graph = embedded_graph(model.metadata.get(EMBEDDED_KEY, b""))
    if graph is None or stored_count(graph) > size:
        return None  # a weight takes a byte at least
    from netlathe.archspace.forms.tflite_lowering import lower

    try:
        expected = lower(graph, placeholder_weights(graph))
    except (ValueError, OverflowError, MemoryError, FormatError):  # sizes or names that no file can have
        return None
    if is_mixed(graph):
        is_same = _same_computation(_as_float32(expected), _as_float32(model))
    else:
        has_integers = graph.has_dtypes and not {*graph.dtypes}.isdisjoint(BORDER_DTYPES)
        is_same = _same_computation(expected, model if has_integers else _as_float32(model))
    return graph if is_same else None


def _as_float32(model: Model) -> Model:
    """The model that a quantized one was made from, except that weights keep their integers."""
    return dataclasses.replace(model, tensors=tuple(t if t.quantization is None else _real(t) for t in model.tensors))


def _real(tensor: Tensor) -> Tensor:
    data, quantization = tensor.data, tensor.quantization
    # A factor, which steers the op.
    if data is not None and quantization and data.size == 1 and not tensor.shape and data.dtype.kind == "i":
        data = np.array((int(data.flat[0]) - quantization.zero_point) * quantization.scales[0])
    return dataclasses.replace(tensor, dtype="FLOAT32", data=data)


def _same_computation(a: Model, b: Model) -> bool:
    def ops(model: Model) -> list[object]:
        return [(op.kind, op.inputs, op.outputs, op.options) for op in model.operators]

    return (
        (a.inputs, a.outputs, len(a.tensors)) == (b.inputs, b.outputs, len(b.tensors))
        and ops(a) == ops(b)
        and all(map(_same_tensor, a.tensors, b.tensors))
    )


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.data is None) != (b.shape, b.dtype, b.data is None):
        return False
    if a.data is None or b.data is None or (a.dtype in ("FLOAT32", "FLOAT16") and a.shape):
        return True  # weights may be any; amounts, axes and factors steer the op
    rounding = b.quantization.scales[0] / 2 if b.quantization else 0
    return a.data.shape == b.data.shape and np.allclose(a.data, b.data, rtol=1e-6, atol=rounding * (1 + 1e-6))
