"""What one op asks of a device: work terms, which latency is nearly a non-negative sum of, and its size.

Everything here is read off the Graph. Bytes count 4 per value whatever the dtype: a predictor serves one setup, so that
factor ends up in the fitted rates.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from archspace.graph import Graph
from archspace.ops import Activation, ActivationKind, Conv2d, Op, Pool2d, Shape
from predictor.errors import UnknownOpError
from predictor.kernels import kernel_starts

FloatArray = NDArray[np.float64]
FlagArray = NDArray[np.bool_]
ITEMSIZE = 4
DEPTHWISE_KERNELS = (3, 5, 7)
"""Depthwise kernel sizes with a cost per MAC of their own: runtimes have hand-written kernels for some sizes and none
for others, so that one size can cost 80 times another (XNNPACK on x86 has none above 25 taps)."""
OTHER_KERNEL = 9
"""The size that all other depthwise kernels are filed under."""
VECTOR = 8
"""Channels that an inner loop takes at a time. "aligned" counts the MACs as if the channels were filled up to whole
vectors: like all quantities it never falls with the size, as a surcharge for channels left over would."""
CACHE_BYTES = 1 << 20
"""What an op moves beyond this much comes from a slower memory: the size of a large core's second-level cache. More
levels fit blocks no better and networks worse, whose ops find part of their data in the cache."""

# Op class -> quantities that it is charged for. A quantity that is proportional to another of its class has no term of
# its own: a depthwise convolution writes one value per MAC and tap, a fully connected layer reads one weight per MAC.
# patches: bytes of the windows that a convolution lays out side by side before it multiplies (im2col), for each group
# of channels; with few channels they cost more than the MACs.
# depth: steps that follow one another for one value of the result. A GPU computes all values at once, so that a kernel
# that is small, but deep, takes its depth.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "conv": ("macs", "aligned", "patches", "depth", "read", "written", "weights"),
    "grouped_conv": ("macs", "aligned", "patches", "depth", "read", "written", "weights"),
    "pointwise": ("macs", "aligned", "depth", "read", "written", "weights"),
    "depthwise": (*(f"macs_k{k}" for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)), "aligned", "read"),
    "fully_connected": ("macs", "depth"),
    "pool": ("taps", "depth", "moved"),
    "global_avg_pool": ("depth", "moved"),
    "add": ("moved",),
    "mul": ("moved",),
    "activation": ("moved",),
    "smooth_activation": ("moved",),
    "pad": ("moved",),
    "concat": ("depth", "moved"),
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
COLUMN = {term: index for index, term in enumerate(TERMS)}


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
    return {k: COLUMN[f"depthwise.macs_k{k}"] for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)}


OP_CLASSES = tuple(_QUANTITIES)
OP_SIZES: tuple[str, ...] = ("cin", "cout", "side", "kernel", "stride", "ragged_in", "ragged_out")
"""What tells two ops of a class apart, in octaves."""
SUMMED = (*TERMS, "all_macs", "all_moved", "all_weights", "depthwise_macs", "aligned_macs")
LARGEST = ("kernel", "channels", "gated", "residual")
"""What a row of an op says beside its work terms: quantities that add up, and ones of which the largest counts."""
_SUM = {name: index for index, name in enumerate(SUMMED)}


def _align(channels: int) -> float:
    """How much wider the channels get when filled up to whole vectors."""
    return math.ceil(channels / VECTOR) * VECTOR / channels


def _depth(op: Op, inputs: tuple[Shape, ...], out: Shape) -> int:
    """How many steps one thread of a GPU takes: MACs or taps of one value, pixels of a mean, channels that a concat
    copies at one pixel."""
    if isinstance(op, Pool2d):
        return math.prod(op.kernel)
    if op.kind == "concat":
        return out[-1]
    return op.macs(*inputs) // math.prod(out) if op.macs(*inputs) else math.prod(inputs[0][1:-1])


@lru_cache(maxsize=1 << 16)
def op_row(op: Op, inputs: tuple[Shape, ...]) -> FloatArray:
    """What one op adds to a graph's features: SUMMED, then LARGEST."""
    name = op_class(op, inputs[0])
    out = op.output_shape(*inputs)
    macs, weights = op.macs(*inputs), ITEMSIZE * op.constants(*inputs)
    read, written = ITEMSIZE * sum(map(math.prod, inputs)), ITEMSIZE * math.prod(out)
    kernel = max(op.kernel) if isinstance(op, (Conv2d, Pool2d)) else 1
    bucket = kernel if kernel in DEPTHWISE_KERNELS else OTHER_KERNEL
    aligned = macs * _align(inputs[0][-1]) * _align(out[-1])
    amounts = {
        "macs": macs,
        "aligned": aligned,
        f"macs_k{bucket}": macs,
        "patches": ITEMSIZE * macs * op.groups // out[-1] if isinstance(op, Conv2d) else 0,
        "depth": _depth(op, inputs, out),
        "read": read,
        "written": written,
        "moved": read + written,
        "weights": weights,
        "taps": math.prod(out) * math.prod(op.kernel) if isinstance(op, Pool2d) else 0,
    }
    summed: dict[str, float] = {f"{name}.{quantity}": amounts.get(quantity, 0) for quantity in _QUANTITIES[name]}
    summed |= {"launches": 1, "spilled": max(read + written - CACHE_BYTES, 0)}
    summed |= {"all_macs": macs, "all_moved": read + written, "all_weights": weights}
    summed |= {"depthwise_macs": macs if name == "depthwise" else 0}
    summed |= {"aligned_macs": aligned}
    row = np.zeros(len(SUMMED) + len(LARGEST))
    for quantity, amount in summed.items():
        row[_SUM[quantity]] = amount
    channels = max(shape[-1] for shape in (*inputs, out))
    row[len(SUMMED) :] = (kernel if macs else 1, channels, name == "mul", name == "add")
    return row


@lru_cache(maxsize=1 << 16)
def op_sizes(op: Op, inputs: tuple[Shape, ...]) -> FloatArray:
    """The op's class, as an index of OP_CLASSES, then its OP_SIZES."""
    x, out = inputs[0], op.output_shape(*inputs)
    pixels_in, pixels = math.prod(x[1:-1]), math.prod(out[1:-1])
    kernel = max(op.kernel) if isinstance(op, (Conv2d, Pool2d)) else 1
    sizes = (x[-1], out[-1], math.sqrt(pixels), kernel, math.sqrt(pixels_in / pixels), _align(x[-1]), _align(out[-1]))
    return np.array([OP_CLASSES.index(op_class(op, x)), *map(math.log2, sizes)])


def launched(graph: Graph) -> list[tuple[Op, tuple[Shape, ...]]]:
    """The ops that a CPU's runtime starts, one per kernel, with their input shapes."""
    starts = kernel_starts(graph)
    return [(node.op, inputs) for index, (node, inputs, _) in enumerate(graph.steps()) if starts[index] == index]
