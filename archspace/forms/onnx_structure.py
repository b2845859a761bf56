"""ONNX's ops -> Graph, one node after the other: how files that do not carry their graph are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, inliner, numpy_helper

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.interface import TrainedModel
from netlathe.archspace.forms.onnx_constants import Stored
from netlathe.archspace.forms.onnx_layers import LAYERS, fused_conv
from netlathe.archspace.forms.onnx_patterns import Read, find_patterns
from netlathe.archspace.forms.onnx_pointwise import POINTWISE
from netlathe.archspace.forms.onnx_quantized import INTEGER_OPS, QUANTIZED, is_on_integers, read_integer_op
from netlathe.archspace.forms.onnx_shapes import SHAPES
from netlathe.archspace.forms.onnx_values import DOMAINS, NotReadError, Reader, attributes_of, names_taken
from netlathe.archspace.graph import MOST_NODES, Graph

_READERS: dict[str, Callable[[Reader, NodeProto], None]] = {**LAYERS, **POINTWISE, **SHAPES, **QUANTIZED}
_OF_RUNTIMES = ("com.microsoft", "com.ms.internal.nhwc")
_MICROSOFT = {
    "DequantizeLinear": QUANTIZED["DequantizeLinear"],
    "FastGelu": POINTWISE["FastGelu"],
    "FusedConv": fused_conv,
    "FusedMatMul": LAYERS["MatMul"],
    "Gelu": POINTWISE["Gelu"],
    "QuantizeLinear": QUANTIZED["QuantizeLinear"],
}
"""Ops that ONNX Runtime's own set adds to ONNX's."""
_MOST_TOLD = 12
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError)
"""Errors that making sense of a node may raise where its settings are missing or make no sense."""


def read_structure(model: ModelProto, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1) -> Graph:
    """The graph of a foreign file, grouped by Graph.scoped. `shapes` fixes open sizes of inputs, by their names,
    `batch` open batches.

    A flattened image counts as flattened in NHWC order: which value goes where is the weights' affair, which a graph
    does not have. What netlathe has no op for is Opaque, where its shapes are known. Raises FormatError naming all
    nodes that cannot be read even so, or do not hold together.
    """
    model = _inlined(model)
    return _Walk(Reader(model, shapes, batch)).result().graph


def read_structure_with_weights(
    model: ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    folder: Path | None = None,
) -> TrainedModel:
    """The same graph, its weights, and its inputs and outputs as the file has them; weights that lie in other files are
    looked for in `folder`.

    BatchNorm is folded into the weights of the convolution before it, and the columns of a layer behind a flattened
    image are in the graph's order. Raises FormatError naming all nodes whose weights cannot be read: ops that netlathe
    does not have, weights that are no float32 ones, flattened images that go where their order matters.
    """
    return _Walk(Reader(_inlined(model), shapes, batch, carries=True, folder=folder)).result()


def _inlined(model: ModelProto) -> ModelProto:
    """Without functions of its own."""
    if len(model.graph.node) > MOST_NODES:
        raise FormatError(f"the file has {len(model.graph.node)} nodes, more than the {MOST_NODES} that netlathe takes")
    return inliner.inline_local_functions(model) if model.functions else model


class _Walk:
    """Goes through a model's nodes, and collects what cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._patterns: dict[int, Read] = {}
        self._blockers: list[tuple[int, NodeProto, str]] = []

    def result(self) -> TrainedModel:
        """The graph, and its weights where the reader carries them."""
        nodes = self._reader.model.graph.node
        needed = self._reader.needed()
        numbered = [(index, node) for index, node in enumerate(nodes) if id(node) in needed]
        for index, node in numbered:
            if node.op_type == "Constant" and node.domain in DOMAINS:
                self._try(index, node, _constant)
            elif node.op_type not in QUANTIZED and _is_constant(
                self._reader, node
            ):  # what is behind them may be folded
                self._try(index, node, self._read)
                self._reader.mark_done(node)
        self._patterns = find_patterns(self._reader, [node for _, node in numbered])
        for index, node in numbered:
            if self._reader.is_done(node) or node.op_type == "Constant":
                continue
            if self._reader.is_unreadable(node):
                self._reader.give_up(node)
            else:
                self._try(index, node, self._read)
        if self._blockers:
            raise FormatError(_told(self._blockers))
        return self._reader.finish()

    def _try(self, index: int, node: NodeProto, read: Callable[[Reader, NodeProto], None]) -> None:
        try:
            read(self._reader, node)
        except (FormatError, GraphError) as error:
            self._block(index, node, str(error))
        except _DAMAGE as error:
            self._block(index, node, f"it is malformed: {error!r:.200}")

    def _block(self, index: int, node: NodeProto, why: str) -> None:
        self._blockers.append((index, node, why))
        self._reader.give_up(node)

    def _read(self, reader: Reader, node: NodeProto) -> None:
        if id(node) in self._patterns:
            return self._patterns[id(node)]()
        if node.domain in DOMAINS and node.op_type == "If" and (condition := reader.constant(node.input[0])):
            return self._read_branch(reader, node, bool(condition.array("condition").reshape(-1)[0]))
        read = _reader_of(node)
        if read is None:
            return self._fold_or_keep(reader, node, "netlathe has no such op")
        if _is_constant(reader, node) and node.op_type not in QUANTIZED:
            return self._fold_or_keep(reader, node, "it cannot be computed")
        try:
            if is_on_integers(reader, node):
                reader.run_on_integers(node, read)
            else:
                read(reader, node)
        except NotReadError as error:
            reader.opaque(node, str(error))
        return None

    def _fold_or_keep(self, reader: Reader, node: NodeProto, why: str) -> None:
        """A result of constants alone is one; any other node is kept as an opaque one."""
        if not _is_constant(reader, node) or node.op_type.startswith("Random"):
            return reader.opaque(node, why)
        inputs = {name: stored for name in node.input if name and (stored := reader.constant(name))}
        for name, stored in reader.inference.fold(node, inputs).items():
            reader.define(name, stored)
        return None

    def _read_branch(self, reader: Reader, node: NodeProto, condition: bool) -> None:
        """The branch that runs of an If whose condition is known."""
        wanted = "then_branch" if condition else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == wanted)
        for tensor in branch.initializer:
            reader.define(tensor.name, Stored.of(tensor))
        for index, inner in enumerate(branch.node):
            if inner.op_type == "Constant":
                _constant(reader, inner)
            elif not reader.is_done(inner):
                self._try(index, inner, self._read)
        for outside, inside in zip(node.output, branch.output, strict=True):
            reader.rename(inside.name, outside)


def _reader_of(node: NodeProto) -> Callable[[Reader, NodeProto], None] | None:
    if node.domain in _OF_RUNTIMES and node.op_type in _MICROSOFT:
        return _MICROSOFT[node.op_type]
    if node.op_type in INTEGER_OPS or node.op_type == "QLinearConcat":
        return lambda reader, node: read_integer_op(reader, node, _READERS)
    return _READERS.get(node.op_type) if node.domain in DOMAINS else None


def _is_constant(reader: Reader, node: NodeProto) -> bool:
    return (
        bool(node.input)
        and node.domain in DOMAINS
        and all(reader.constant(name) is not None for name in names_taken(node))
    )


def _constant(reader: Reader, node: NodeProto) -> None:
    ((kind, value),) = attributes_of(node).items()
    if kind == "sparse_value":
        reader.define(node.output[0], Stored(tuple(value.dims), value.values.data_type))
        return
    tensor = value if kind == "value" else numpy_helper.from_array(_array(kind, value))
    reader.define(node.output[0], Stored.of(tensor))


def _array(kind: str, value: object) -> NDArray[Any]:
    return np.array(value, np.float32 if "float" in kind else np.int64 if "int" in kind else None)


def _told(blockers: Sequence[tuple[int, NodeProto, str]]) -> str:
    """All that stands in the way, the most frequent first, each with the first place where it does."""
    places: dict[tuple[str, str], list[str]] = {}
    for index, node, why in blockers:
        places.setdefault((node.op_type, why), []).append(_title(index, node))
    ranked = sorted(places.items(), key=lambda item: -len(item[1]))
    told = [f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {why}" for (_, why), where in ranked]
    if len(told) == 1:
        return told[0]
    rest = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return f"{len(blockers)} nodes cannot be read: " + "; ".join(told[:_MOST_TOLD]) + rest


def _title(index: int, node: NodeProto) -> str:
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"node {index} ({kind:.60} {node.name!r:.80})"
