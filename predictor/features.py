"""Graphs to numbers: work terms, which latency is nearly a non-negative sum of, and log features for the residual.

Everything here is read off the Graph. Bytes count 4 per value whatever the dtype: a predictor serves one setup, so that
factor ends up in the fitted rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archspace.graph import Graph
from archspace.ops import Activation, ActivationKind, Conv2d, Op, Pool2d, Shape
from predictor.errors import UnknownOpError

FloatArray = NDArray[np.float64]
FlagArray = NDArray[np.bool_]

ITEMSIZE = 4
DEPTHWISE_KERNELS = (3, 5, 7)
"""Depthwise kernel sizes with a cost per MAC of their own: runtimes have hand-written kernels for some sizes and none
for others, so that one size can cost 80 times another (XNNPACK on x86 has none above 25 taps)."""
OTHER_KERNEL = 9
"""The size that all other depthwise kernels are filed under."""
CACHE_BYTES = 1 << 20
"""What an op moves beyond this much comes from a slower memory: the size of a large core's second-level cache. More
levels fit blocks no better and networks worse, whose ops find part of their data in the cache."""

# Op class -> quantities that it is charged for. A quantity that is proportional to another of its class has no term of
# its own: a depthwise convolution writes one value per MAC and tap, a fully connected layer reads one weight per MAC.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "conv": ("macs", "read", "written", "weights"),
    "grouped_conv": ("macs", "read", "written", "weights"),
    "pointwise": ("macs", "read", "written", "weights"),
    "depthwise": (*(f"macs_k{k}" for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)), "read"),
    "fully_connected": ("macs",),
    "pool": ("taps", "moved"),
    "global_avg_pool": ("moved",),
    "add": ("moved",),
    "mul": ("moved",),
    "activation": ("moved",),
    "smooth_activation": ("moved",),
    "pad": ("moved",),
    "concat": ("moved",),
    "softmax": ("moved",),
    "reshape": ("moved",),
    "zeros": ("moved",),
}
COMMON_TERMS = ("calls", "launches", "spilled")
"""Terms of no class. calls: 1 for every graph that does something; launches: ops that the runtime starts, so without
the relu and relu6 that it fuses; spilled: bytes that each op moves beyond CACHE_BYTES."""
TERMS: tuple[str, ...] = (*COMMON_TERMS, *(f"{c}.{quantity}" for c, qs in _QUANTITIES.items() for quantity in qs))
"""Columns of work_terms: the common terms; MACs, pool taps and bytes by op class."""
PLAIN_MOVES = ("add", "mul", "concat", "pad", "reshape", "zeros")
"""Classes that do little but move bytes, so that their cost can be guessed before it is measured."""
_COLUMN = {term: index for index, term in enumerate(TERMS)}

LOG_FEATURES: tuple[str, ...] = (
    "macs", "bytes", "weights", "launches", "side", "cin", "cout", "stride", "widest", "kernel",
    "depthwise_share", "gated", "residual", "ragged",
)  # fmt: skip
"""Columns of log_features: logarithms of sizes and ratios, and flags."""


def weight_megabytes(logs: FloatArray) -> FloatArray:
    """MB of weights and biases per graph, shape (n,), back from its log features (n, features)."""
    return np.asarray(np.expm1(logs[:, LOG_FEATURES.index("weights")]) / 1e6)


def op_class(op: Op, x: Shape) -> str:
    """The class whose rates apply to an op with first input x. Raises UnknownOpError for an op that has none."""
    name = op.kind
    if isinstance(op, Conv2d):
        if op.is_depthwise(x):
            name = "depthwise"
        elif op.groups > 1:
            name = "grouped_conv"
        elif op.kernel == (1, 1):  # on a single pixel it is the matrix-vector product of a fully connected layer
            name = "fully_connected" if x[1] == x[2] == 1 else "pointwise"
    elif isinstance(op, Activation) and op.function in (ActivationKind.SIGMOID, ActivationKind.SWISH):
        name = "smooth_activation"  # exp costs more than the clamps of the hard ones
    if name not in _QUANTITIES:
        raise UnknownOpError(f"the op {name!r} has no work terms; known: {', '.join(_QUANTITIES)}")
    return name


def op_classes_of(terms: FloatArray) -> set[str]:
    """The op classes that occur in work terms of shape (n, terms)."""
    present = {TERMS[column] for column in np.flatnonzero((terms > 0).any(axis=0))}
    return {term.partition(".")[0] for term in present if "." in term}


def depthwise_columns() -> dict[int, int]:
    """Kernel size -> column of its depthwise MACs."""
    return {k: _COLUMN[f"depthwise.macs_k{k}"] for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)}


class _NodeWork(NamedTuple):
    """What one op adds to a graph's features."""

    terms: tuple[tuple[int, float], ...]
    macs: int
    moved: int
    weights: int
    name: str
    kernel: int
    aligned_macs: float


@lru_cache(maxsize=1 << 16)
def _node_work(op: Op, inputs: tuple[Shape, ...]) -> _NodeWork:
    name = op_class(op, inputs[0])
    out = op.output_shape(*inputs)
    macs, weights = op.macs(*inputs), ITEMSIZE * op.constants(*inputs)
    read, written = ITEMSIZE * sum(map(math.prod, inputs)), ITEMSIZE * math.prod(out)
    kernel = max(op.kernel) if isinstance(op, (Conv2d, Pool2d)) else 1
    bucket = kernel if kernel in DEPTHWISE_KERNELS else OTHER_KERNEL
    amounts = {
        "macs": macs,
        f"macs_k{bucket}": macs,
        "read": read,
        "written": written,
        "moved": read + written,
        "weights": weights,
        "taps": math.prod(out) * math.prod(op.kernel) if isinstance(op, Pool2d) else 0,
    }
    charged = {f"{name}.{quantity}": amounts.get(quantity, 0) for quantity in _QUANTITIES[name]}
    charged |= {"launches": 1, "spilled": max(read + written - CACHE_BYTES, 0)}
    terms = tuple((_COLUMN[term], float(amount)) for term, amount in charged.items() if amount)
    aligned = macs * _align(inputs[0][-1]) * _align(out[-1]) if macs else 0.0
    return _NodeWork(terms, macs, read + written, weights, name, kernel, aligned)


def _align(channels: int) -> float:
    """How much wider the channels get when filled up to whole vectors of 8."""
    return math.ceil(channels / 8) * 8 / channels


def _works(graph: Graph) -> list[_NodeWork]:
    """One entry per op that the runtime starts: relu and relu6 right behind conv, fully connected or add are fused,
    provided that nothing else needs the value in between."""
    first = len(graph.inputs)
    uses: dict[int, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            uses[tensor] = uses.get(tensor, 0) + 1
    works = []
    for node, inputs, _ in graph.steps():
        source = node.inputs[0]
        if (
            isinstance(node.op, Activation)
            and node.op.function in (ActivationKind.RELU, ActivationKind.RELU6)
            and source >= first
            and graph.nodes[source - first].op.kind in ("conv", "fully_connected", "add")
            and uses[source] == 1
        ):
            continue
        works.append(_node_work(node.op, inputs))
    return works


def _log_row(graph: Graph, works: Sequence[_NodeWork]) -> list[float]:
    x, y = graph.inputs[0], graph.output_shape
    side_in = math.sqrt(math.prod(x[1:-1]))
    side_out = math.sqrt(math.prod(y[1:-1]))
    macs = sum(w.macs for w in works)
    names = [w.name for w in works]
    return [
        math.log1p(macs),
        math.log1p(sum(w.moved for w in works)),
        math.log1p(sum(w.weights for w in works)),
        math.log1p(len(works)),
        math.log(side_in),
        math.log(x[-1]),
        math.log(y[-1]),
        math.log(side_in / side_out),
        math.log(max(shape[-1] for shape in graph.shapes) / x[-1]),
        math.log(max((w.kernel for w in works if w.macs), default=1)),
        sum(w.macs for w in works if w.name == "depthwise") / max(macs, 1),
        float("mul" in names),
        float("add" in names),
        math.log(sum(w.aligned_macs for w in works) / macs) if macs else 0.0,
    ]


def work_terms(graphs: Sequence[Graph]) -> FloatArray:
    """Work of each graph, shape (n, len(TERMS)), non-negative. A graph without nodes is a row of zeros.

    Raises UnknownOpError for an op without work terms."""
    terms = np.zeros((len(graphs), len(TERMS)))
    for row, graph in zip(terms, graphs, strict=True):
        works = _works(graph)
        row[_COLUMN["calls"]] = bool(works)
        for work in works:
            for column, amount in work.terms:
                row[column] += amount
    return terms


def log_features(graphs: Sequence[Graph]) -> FloatArray:
    """Size and shape of each graph for the residual regressor, shape (n, len(LOG_FEATURES))."""
    return np.array([_log_row(graph, _works(graph)) for graph in graphs]).reshape(len(graphs), len(LOG_FEATURES))
