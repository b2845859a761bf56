"""Common parts of all forms: graphs embedded in files, names and layouts, and the graph of a foreign file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.files import read_whole
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import ArgMax, Constant, Dequantize, DType, Quantize, Shape

T = TypeVar("T")

INTERFACE_KEY = "netlathe.interface"
"""That of its inputs and outputs, where they are those of another model."""
EMBEDDED_KEY = "netlathe_graph"
"""The metadata entry under which netlathe's own files carry their graph."""

_EMBEDDED_VERSION = 1
_MOST_EMBEDDED = 1 << 24
"""Characters of an embedded graph; the largest have a million."""
_LONGEST_NAME = 200
_MOST_BYTES = (1 << 31) - 1
"""Largest file of a model: both formats end there."""
_DAMAGE = (
    ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, MemoryError, AssertionError,
    GraphError,
)  # fmt: skip
"""Exceptions that making sense of any content may raise."""


class FileContent(NamedTuple):
    """A model file's content."""

    graph: Graph
    precision: str
    """Type that it computes in: float32, int8, "float32 with int8 weights", ..."""
    has_open_batch: bool
    """Whether the file leaves its batch open, so that the graph's is the caller's."""


def input_names(graph: Graph) -> list[str]:
    """Names of the graph's inputs in files."""
    return ["input"] if len(graph.inputs) == 1 else [f"input_{index}" for index in range(len(graph.inputs))]


def embed(graph: Graph) -> str:
    """The graph as the text that netlathe's own files carry."""
    return json.dumps({"version": _EMBEDDED_VERSION, **graph.to_json()}, separators=(",", ":"))


def embedded_graph(text: str | bytes) -> Graph | None:
    """The graph in that text; None where it cannot be read (edited by another tool, or newer)."""
    if len(text) > _MOST_EMBEDDED:
        return None
    try:
        data = json.loads(text)
        return Graph.from_json(data) if data["version"] == _EMBEDDED_VERSION else None
    # ValueError: no JSON, or no UTF-8.
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, GraphError):
        return None


class NodeNames:
    """Turns names found in foreign files into names that are unique and that torch accepts as module names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, wanted: str, fallback: str) -> str:
        base = wanted[:_LONGEST_NAME].replace(".", "_").strip("/ ") or fallback
        name, count = base, self._counts.get(base, 1)
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._counts[base] = count
        self._taken.add(name)
        return name


def nchw(shape: Shape) -> Shape:
    """The shape as ONNX and torch have it: images have their channels first."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def nchw_axis(axis: int, rank: int) -> int:
    """The axis in the layout of ONNX and torch, for a tensor of that rank."""
    axis %= rank
    return (0, 2, 3, 1)[axis] if rank == 4 else axis


def nchw_perm(perm: Shape) -> Shape:
    """The same order of axes for tensors that have ONNX's and torch's."""
    files = {1: (0,), 4: (0, 3, 1, 2)}.get(len(perm), tuple(range(len(perm))))
    return tuple(files.index(perm[axis]) for axis in files)


BORDER_SCALE = 1 / 16
"""Dtypes of the integers between a Quantize and a Dequantize, whose zero point is 0: graphs hold no scales."""
BORDER_DTYPES = (DType.INT8, DType.UINT8)
"""Dtypes that those integers may have."""


def check_writable(graph: Graph, form: str) -> None:
    """Raises FormatError naming the first tensor that is not float32: writers know no other so far, but for indices
    that are stored or given, and integers that a Quantize gives or a Dequantize takes."""
    if not graph.has_dtypes:
        return
    integers = {t for node in graph.nodes if not isinstance(node.op, Dequantize) for t in node.inputs}
    for tensor, dtype in enumerate(graph.dtypes):
        index = graph.producers[tensor]
        op = graph.nodes[index].op if index >= 0 else None
        is_index = isinstance(op, Constant | ArgMax) and dtype in (DType.INT32, DType.INT64)
        is_border = (op is None or isinstance(op, Quantize)) and dtype in BORDER_DTYPES and tensor not in integers
        if dtype == DType.FLOAT32 or is_index or is_border:
            continue
        what = f"node {graph.nodes[index].name!r} gives" if index >= 0 else f"input {tensor} is"
        raise FormatError(f"{what} {dtype}, and only float32 graphs have {form} so far")


def result_names(name: str, count: int) -> tuple[str, ...]:
    """Names of a node's results in files: the node's name, with a number behind it where there are several."""
    return (name,) if count == 1 else tuple(f"{name}.{index}" for index in range(count))


def finish_foreign(
    inputs: tuple[Shape, ...], nodes: list[Node], outputs: tuple[int, ...] = (), dtypes: tuple[DType, ...] = ()
) -> Graph:
    """The graph of a foreign file, grouped into blocks; a single one is a block and no network, as it would be without
    a file. Raises FormatError where the parts do not fit."""
    try:
        graph = Graph(inputs, tuple(nodes), tuple(dict.fromkeys(outputs)), dtypes)
        grouped = graph.scoped()
        return graph if len(grouped.segments()) == 1 else grouped
    except GraphError as error:
        raise FormatError(f"the file does not hold together: {error}") from error


def precision_of(values: str, weights: str) -> str:
    """A layer's precision in words."""
    return values if weights in (values, "") or values.startswith("int") else f"{values} with {weights} weights"


def read_source(data: bytes | Path, parse: Callable[[bytes], T], read: Callable[[Path, int], bytes] = read_whole) -> T:
    """The result of `parse` on those bytes, or on what `read` gives of that file, up to so many bytes; errors then
    begin with its path. Raises FormatError for anything that is amiss with them."""
    if isinstance(data, bytes):
        return _parsed(data, parse)
    try:
        content = read(data, _MOST_BYTES)
    except OSError as error:
        raise FormatError(f"cannot read {data}: {error.strerror}") from error
    try:
        return _parsed(content, parse)
    except FormatError as error:
        raise FormatError(f"{data}: {error}") from error


def _parsed(content: bytes, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(content)
    except _DAMAGE as error:
        raise FormatError(f"the file does not hold together ({error!r:.200}); write or fetch it again") from error
