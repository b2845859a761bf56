"""What one op asks of a device: work terms, which latency is nearly a non-negative sum of, and its size.

Everything here is read off the Graph. Bytes count 4 per value whatever the dtype: a predictor serves one setup, so that
factor ends up in the fitted rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Fusion, kernel_starts, paddings
from netlathe.archspace.ops import (
    BYTES,
    OPS,
    Activation,
    ActivationKind,
    Constant,
    Conv2d,
    DType,
    Op,
    Padding,
    Pool2d,
    Shape,
    TransposeConv2d,
)
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.numbers import FloatArray

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
WINDOW_BYTES = (48 << 10, 64 << 10)
"""What a depthwise kernel goes through for one pixel, inputs and weights of all channels, and reads again for the next.
From the first size on it begins to fall out of the first-level cache in between, from the second on nothing stays."""

# Op class -> quantities that it is charged for. A quantity that is proportional to another of its class has no term of
# its own: a depthwise convolution writes one value per MAC and tap, a fully connected layer reads one weight per MAC.
# patches: bytes of the windows that a convolution lays out side by side before it multiplies (im2col), for each group
# of channels; with few channels they cost more than the MACs.
# depth: steps that follow one another for one value of the result. A GPU computes all values at once, so that a kernel
# that is small, but deep, takes its depth.
# odd: MACs of a convolution to an odd number of channels, whose pixels begin at every address; others cost no more than
# "aligned" says. A surcharge, as nothing that grows with the channels could be that large.
# windows: input pixels that a depthwise kernel looks up, whatever the number of channels that it then takes from each.
# refetched: MACs on what has fallen out of the first-level cache since the pixel before.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "conv": ("macs", "aligned", "odd", "patches", "depth", "read", "written", "weights"),
    "grouped_conv": ("macs", "aligned", "odd", "patches", "depth", "read", "written", "weights"),
    "pointwise": ("macs", "aligned", "odd", "depth", "read", "written", "weights"),
    "depthwise": (
        *(f"macs_k{k}" for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)), "aligned", "odd", "windows", "refetched", "read",
    ),
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
}  # fmt: skip
FIRST_CLASSES = len(_QUANTITIES)
"""So many classes have the same numbers in all files."""
_QUANTITIES |= {  # ops of the table that have no terms of their own
    kind: ("macs", "depth", "read", "written", "weights") if op.has_macs() else ("moved", "weights")
    for kind, op in OPS.items()
    if kind not in (*_QUANTITIES, Constant.kind)  # what reads a stored value is charged for it
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


def has_macs(name: str) -> bool:
    """Whether ops of that class multiply and accumulate, rather than move values."""
    return any(quantity.startswith("macs") for quantity in _QUANTITIES[name])


def op_classes_of(terms: FloatArray) -> set[str]:
    """The op classes that occur in work terms of shape (n, terms)."""
    present = {TERMS[column] for column in np.flatnonzero((terms > 0).any(axis=0))}
    return {term.partition(".")[0] for term in present if "." in term}


def depthwise_columns() -> dict[int, int]:
    """Kernel size -> column of its depthwise MACs."""
    return {k: COLUMN[f"depthwise.macs_k{k}"] for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)}


OP_CLASSES = tuple(_QUANTITIES)
_CLASS_INDEX = {name: index for index, name in enumerate(OP_CLASSES)}
OP_SIZES: tuple[str, ...] = ("cin", "cout", "side", "kernel", "stride", "ragged_in", "ragged_out")
"""What tells two ops of a class apart, in octaves."""
SUMMED = (*TERMS, "all_macs", "all_moved", "all_weights", "depthwise_macs", "aligned_macs")
LARGEST = ("kernel", "channels", "gated", "residual")
"""What a row of an op says beside its work terms: quantities that add up, and ones of which the largest counts."""
_SUM = {name: index for index, name in enumerate(SUMMED)}


class OpFacts(NamedTuple):
    """What one op is and does, in whole numbers, from which op_rows and op_sizes are computed for many at once."""

    op_class: int
    """Index of OP_CLASSES."""
    macs: int
    constants: int
    read: int
    """Values of its inputs, as many float32 as take their bytes."""
    written: int
    kernel: int
    """Pixels along the longer side; 1 where there is no window."""
    taps: int
    """Of a pool's window, else 0."""
    groups: int
    """Of a convolution, else 0."""
    depth: int
    """Steps that one thread of a GPU takes."""
    cin: int
    cout: int
    widest: int
    """Most channels of any tensor."""
    pixels_in: int
    pixels_out: int


class Launched(NamedTuple):
    """An op that a runtime starts, with the shapes of its inputs and results, and their dtypes where not all of them
    are float32."""

    op: Op
    inputs: tuple[Shape, ...]
    results: tuple[Shape, ...]
    dtypes: tuple[DType, ...] = ()


def op_facts(op: Op, inputs: tuple[Shape, ...], results: tuple[Shape, ...], dtypes: tuple[DType, ...] = ()) -> OpFacts:
    """Raises UnknownOpError for an op without work terms."""
    x, out, depth = (inputs or results)[0], results[0], op.macs_per_value(*inputs)
    sizes = [math.prod(shape) for shape in (*inputs, *results)]
    macs, pixels_in = sum(sizes[len(inputs) :]) * depth, math.prod(x[1:-1])
    if type(op).macs is not Op.macs:  # not the same for each value
        macs = op.macs(*inputs)
    if dtypes:
        sizes = _in_float32(sizes, dtypes)
    depth = depth or pixels_in
    kernel, taps, groups = (1, 1), 0, 0
    if isinstance(op, Conv2d | TransposeConv2d):
        kernel, groups = op.kernel, op.groups
    elif isinstance(op, Pool2d):
        kernel = op.kernel
        depth = taps = math.prod(kernel)
    elif op.kind == "concat":  # copies so many channels at one pixel
        depth = out[-1]
    return OpFacts(
        _CLASS_INDEX[op_class(op, x)],
        macs,
        op.stored_values(*inputs),
        sum(sizes[: len(inputs)]),
        sum(sizes[len(inputs) :]),
        max(kernel),
        taps,
        groups,
        depth,
        x[-1],
        out[-1],
        max([shape[-1] for shape in (*results, *inputs)]),
        pixels_in,
        math.prod(out[1:-1]),
    )


NARROW = (DType.FLOAT16, DType.INT8, DType.UINT8, DType.INT16)
"""What stands for real values where no float32 is beside it."""


def computes_narrowly(dtypes: Sequence[DType]) -> bool:
    """Whether what has these dtypes computes in a narrower one throughout. It then counts as if it did in float32: the
    dtype is its predictor's setup's, whose rates are fitted to graphs of float32."""
    return DType.FLOAT32 not in dtypes and not set(NARROW).isdisjoint(dtypes)


def _in_float32(sizes: Sequence[int], dtypes: Sequence[DType]) -> list[int]:
    """As many float32 values as take so many bytes."""
    full = NARROW if computes_narrowly(dtypes) else ()
    bytes_of = [ITEMSIZE if dtype in full else BYTES[dtype] for dtype in dtypes]
    return [-(-size * itemsize // ITEMSIZE) for size, itemsize in zip(sizes, bytes_of, strict=True)]


def _align(channels: FloatArray) -> FloatArray:
    """How much wider the channels get when filled up to whole vectors."""
    return np.asarray(np.ceil(channels / VECTOR) * VECTOR / channels)


def op_rows(f: OpColumns) -> FloatArray:
    """What each of m ops adds to a graph's features: SUMMED, then LARGEST. Shape (m, both)."""
    aligned, moved = f.macs * _align(f.cin) * _align(f.cout), ITEMSIZE * (f.read + f.written)
    window = f.macs / f.written  # pixels, in a depthwise convolution
    amounts = {
        "macs": f.macs,
        "aligned": aligned,
        "odd": f.macs * (f.cout % 2),
        "windows": f.macs / f.cout,
        "refetched": f.macs * np.interp(2 * ITEMSIZE * window * f.cout, WINDOW_BYTES, (0, 1)),
        "patches": ITEMSIZE * f.macs * f.groups // f.cout,
        "depth": f.depth,
        "read": ITEMSIZE * f.read,
        "written": ITEMSIZE * f.written,
        "moved": moved,
        "weights": ITEMSIZE * f.constants,
        "taps": f.written * f.taps,
    }
    bucket = np.where(np.isin(f.kernel, DEPTHWISE_KERNELS), f.kernel, OTHER_KERNEL)
    amounts |= {f"macs_k{k}": np.where(bucket == k, f.macs, 0) for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)}
    rows = np.zeros((len(f.macs), len(SUMMED) + len(LARGEST)))
    for index in np.unique(f.op_class).astype(int):
        of_class = f.op_class == index
        for quantity in _QUANTITIES[OP_CLASSES[index]]:
            rows[of_class, _SUM[f"{OP_CLASSES[index]}.{quantity}"]] = amounts[quantity][of_class]
    depthwise = np.where(f.op_class == _CLASS_INDEX["depthwise"], f.macs, 0)
    plain = (np.ones(len(f.macs)), np.maximum(moved - CACHE_BYTES, 0))
    rows[:, [_SUM["launches"], _SUM["spilled"]]] = np.stack(plain, axis=1)
    rows[:, len(TERMS) : len(SUMMED)] = np.stack([f.macs, moved, amounts["weights"], depthwise, aligned], axis=1)
    flags = [f.op_class == _CLASS_INDEX[name] for name in ("mul", "add")]
    rows[:, len(SUMMED) :] = np.stack([np.where(f.macs > 0, f.kernel, 1), f.widest, *flags], axis=1)
    return rows


def op_sizes(f: OpColumns) -> FloatArray:
    """OP_SIZES of each of m ops, shape (m, sizes)."""
    sizes = (f.cin, f.cout, np.sqrt(f.pixels_out), f.kernel, np.sqrt(f.pixels_in / f.pixels_out))
    return np.asarray(np.log2(np.stack([*sizes, _align(f.cin), _align(f.cout)], axis=1)))


class OpColumns(NamedTuple):
    """The fields of OpFacts, each of shape (m,)."""

    op_class: FloatArray
    macs: FloatArray
    constants: FloatArray
    read: FloatArray
    written: FloatArray
    kernel: FloatArray
    taps: FloatArray
    groups: FloatArray
    depth: FloatArray
    cin: FloatArray
    cout: FloatArray
    widest: FloatArray
    pixels_in: FloatArray
    pixels_out: FloatArray


def op_columns(facts: Sequence[OpFacts]) -> OpColumns:
    """Of m ops."""
    values = np.fromiter(chain.from_iterable(facts), dtype=float, count=len(facts) * len(OpFacts._fields))
    return OpColumns(*values.reshape(-1, len(OpFacts._fields)).T)


def launched(graph: Graph, fusion: Fusion = "cpu") -> list[Launched]:
    """The ops that a CPU's runtime starts, one per kernel. Where an op does the padding before it itself, it reads what
    is not yet padded. Stored values start none."""
    pads = paddings(graph, fusion)
    starts = kernel_starts(graph, "cpu" if fusion == "gpu" else fusion)
    steps = list(graph.steps())
    mixed = graph.has_dtypes
    return [
        Launched(
            *(_unpadded(node.op, steps[pads[at]][1], inputs, results) if at in pads else (node.op, inputs, results)),
            tuple([graph.dtypes[t] for t in (*node.inputs, *graph.results[at])]) if mixed else (),
        )
        for at, (node, inputs, results) in enumerate(steps)
        if starts[at] == at and node.op.kind != Constant.kind
    ]


def _unpadded(
    op: Op, before: tuple[Shape, ...], inputs: tuple[Shape, ...], results: tuple[Shape, ...]
) -> tuple[Op, tuple[Shape, ...], tuple[Shape, ...]]:
    """A layer with its own padding, which is SAME where that gives as many pixels; else it counts as reading them."""
    if isinstance(op, Conv2d | Pool2d):
        same = replace(op, padding=Padding.SAME)
        if same.output_shapes(*before) == results:
            return same, before, results
    return op, inputs, results
