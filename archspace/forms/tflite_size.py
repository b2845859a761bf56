"""The size of a graph's .tflite file, without writing it: a search asks for thousands."""

from __future__ import annotations

import math

from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Conv2d, FullyConnected, TransposeConv2d
from netlathe.archspace.precisions import Precision, is_mixed, precisions_of

_FILE, _NODE = 2000, 290
"""Bytes beside the weights: of a file, and of each node with its tensors, names and place in the metadata."""
_SCALE = 12
"""Bytes of a scale and a zero point."""
_ALIGNED = 16
"""Bytes that each stored array begins at a multiple of."""


def tflite_bytes(graph: Graph, dtype: str = "float32") -> int:
    """About the bytes of the graph's .tflite file: weights in their precisions, a scale for each output channel of an
    int8 convolution's kernel and bias, and what describes ops and tensors. Within 2 % of the files of published
    networks. `dtype` is that of a graph without precisions of its own."""
    own = precisions_of(graph) if is_mixed(graph) else {}
    total = _FILE + _NODE * len(graph.nodes)
    for node, shapes, _ in graph.steps():
        stored = node.op.stored_shapes(*shapes)
        precision = own.get(node.name, Precision(dtype))
        for key, shape in stored.items():
            size = math.prod(shape) * _width(key, precision)
            total += -(-size // _ALIGNED) * _ALIGNED
        if precision in _SCALED and isinstance(node.op, _SCALED[precision][1]):
            total += _SCALE * stored["bias"][0] * _SCALED[precision][0]
    return total


_SCALED = {
    Precision.INT8: (2, (Conv2d, TransposeConv2d)), Precision.INT8_WEIGHTS: (1, (Conv2d, FullyConnected)),
}  # fmt: skip
"""Number of arrays, of kernel and bias, that have a scale per channel, and the layers of which."""


def _width(key: str, precision: Precision) -> int:
    """Bytes of a stored number."""
    if key == "kernel":
        return {Precision.FLOAT32: 4, Precision.FLOAT16: 2}.get(precision, 1)
    return 1 if precision is Precision.INT8 and key != "bias" else 4
