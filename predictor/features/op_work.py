"""The work and the size of single ops: latency is nearly a non-negative sum of work terms.

Everything here is read off the Graph. Bytes count 4 per value whatever the dtype: a predictor serves one setup, so that
factor ends up in the fitted rates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from netlathe.archspace.blocked_layout import is_in_blocks
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import BLOCKS, Fusion, channel_shuffles, kernel_starts, paddings
from netlathe.archspace.ops import (
    BYTES,
    OPS,
    Activation,
    ActivationKind,
    Constant,
    Conv2d,
    DType,
    FullyConnected,
    Op,
    Padding,
    Pool2d,
    Shape,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
)
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.numbers import FloatArray

ITEMSIZE = 4
"""Bytes of a value."""
DEPTHWISE_KERNELS = (3, 5, 7)
"""Depthwise kernel sizes with a cost per MAC of their own: runtimes have hand-written kernels for some sizes and none
for others, so that one size can cost 80 times another (XNNPACK on x86 has none above 25 taps)."""
OTHER_KERNEL = 9
"""The size that all other depthwise kernels are filed under."""
VECTOR = 8
"""Channels that an inner loop takes at a time. "aligned" counts the MACs as if the channels were filled up to whole
vectors: like all quantities it never falls with the size, as a surcharge for channels left over would."""
WIDEST = 32
"""Channels of the widest columns of results."""
CACHE_BYTES = 1 << 20
"""Bytes beyond which what an op moves comes from a slower memory: the size of a large core's second-level cache. More
levels fit blocks no better and networks worse, whose ops find part of their data in the cache."""
WINDOW_BYTES = (48 << 10, 64 << 10)
"""Bytes of inputs and weights of all channels that a depthwise kernel goes through for one pixel, and reads again for
the next. From the first size on it begins to fall out of the first-level cache in between, from the second on nothing
stays."""

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
# rows: runs of values that lie side by side, each of which is begun anew: with few channels, that is most of the time.
# wide, half: MACs as if each group's channels were filled up to whole columns of results, in which matrices are
# multiplied: of 32 channels, or, where a column of 32 would be half empty, of 16. AVX-512 takes such columns, and a
# group of one channel may cost as much as one of 16.
# tails: pixels that a depthwise kernel looks up, where the last of its vectors of 16 channels is not full.
# streamed: MACs with a column of weights that does not fit into the second-level cache, to be read anew for each few
# pixels.
# plain: MACs of a convolution that runs on plain images where others run in blocks of channels. A surcharge on what is
# charged for either; so are the next two.
# gathered: runs of values side by side of which such a convolution makes its patches: a line of the image, or a single
# value where it steps over pixels.
# groups: groups of channels of such a convolution, each a small product of matrices of its own.
# again: bytes of functions that go over their values twice, or take an exponential.
# outer, far: bytes of a matrix beyond what the second-level cache, and what any cache, holds until the next run.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "conv": (
        "macs", "aligned", "wide", "half", "streamed", "odd", "plain", "gathered", "patches", "depth", "read",
        "written", "weights",
    ),
    "grouped_conv": (
        "macs", "aligned", "wide", "half", "odd", "plain", "gathered", "groups", "patches", "depth", "read", "written",
        "weights",
    ),
    "pointwise": (
        "macs", "aligned", "wide", "half", "streamed", "odd", "plain", "gathered", "depth", "read", "written",
        "weights",
    ),
    "depthwise": (
        *(f"macs_k{k}" for k in (*DEPTHWISE_KERNELS, OTHER_KERNEL)), "aligned", "odd", "plain", "gathered", "groups",
        "windows", "tails", "refetched", "read",
    ),
    "fully_connected": ("macs", "wide", "half", "depth", "outer", "far"),
    "pool": ("taps", "depth", "moved", "rows"),
    "global_avg_pool": ("depth", "moved"),
    "add": ("moved", "rows"),
    "mul": ("moved", "rows"),
    "activation": ("moved", "again"),
    "smooth_activation": ("moved", "again"),
    "pad": ("moved", "rows"),
    "concat": ("depth", "moved", "rows"),
    "softmax": ("moved", "rows"),
    "reshape": ("moved",),
    "zeros": ("moved",),
}  # fmt: skip
REFINEMENTS = ("wide", "half", "streamed", "plain", "gathered", "groups", "tails", "rows", "again", "outer", "far")
"""Quantities by which measurements tell apart what the others of their class charge already."""
FIRST_CLASSES = len(_QUANTITIES)
"""So many classes have the same numbers in all files."""
_QUANTITIES |= {  # ops of the table that have no terms of their own
    kind: ("macs", "depth", "read", "written", "weights") if op.has_macs else ("moved", "weights", "rows", "again")
    for kind, op in OPS.items()
    if kind not in (*_QUANTITIES, Constant.kind)  # what reads a stored value is charged for it
}
COLUMN_BYTES = (CACHE_BYTES * 3 // 4, CACHE_BYTES)
"""Bytes of a column of weights from which on some, and all, of it falls out of the second-level cache."""
FAR_BYTES = 16 << 20
"""Bytes of one layer's weights beyond which they come from memory in each run: last-level caches hold 4 to 32 MiB."""
_FLAT = (
    "activation", "batch_norm", "cast", "clip", "dequantize", "elu", "gelu", "leaky_relu", "opaque", "quantize",
    "reshape", "unary", "zeros",
)  # fmt: skip
"""Kinds of ops that take all their values as one run."""
_TWICE = (ActivationKind.HARD_SIGMOID, ActivationKind.SWISH)
_COSTLY = (
    UnaryKind.COS, UnaryKind.ERF, UnaryKind.EXP, UnaryKind.LOG, UnaryKind.SIN, UnaryKind.SOFTPLUS, UnaryKind.TANH,
)  # fmt: skip
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
        if op.is_depthwise(x) and op.out_channels == op.groups:
            name = "depthwise"
        elif op.groups > 1:  # with several results per channel, too: runtimes multiply small matrices for these
            name = "grouped_conv"
        elif op.kernel == (1, 1):  # on a single pixel it is the matrix-vector product of a fully connected layer
            name = "fully_connected" if x[1] == x[2] == 1 else "pointwise"
    elif isinstance(op, FullyConnected) and math.prod(x[1:-1]) > 1:  # the same product as of an image's pixels
        name = "pointwise"
    elif isinstance(op, Activation) and op.function in (ActivationKind.SIGMOID, ActivationKind.SWISH):
        name = "smooth_activation"  # exp costs more than the clamps of the hard ones
    if name not in _QUANTITIES:
        raise UnknownOpError(f"the op {name!r} has no work terms; known: {', '.join(_QUANTITIES)}")
    return name


def has_macs(name: str) -> bool:
    """Whether ops of that class multiply and accumulate, rather than move values."""
    return any(quantity.startswith("macs") for quantity in _QUANTITIES[name])


def macs_of_classes(graph: Graph, classes: Collection[str]) -> int:
    """MACs of the graph's ops of those classes."""
    work = ((node.op, inputs) for node, inputs, _ in graph.steps() if node.op.has_macs)
    return sum(op.macs(*inputs) for op, inputs in work if op_class(op, inputs[0]) in classes)


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
"""Sizes that tell two ops of a class apart, in octaves."""
SUMMED = (*TERMS, "all_macs", "all_moved", "all_weights", "depthwise_macs", "aligned_macs")
LARGEST = ("kernel", "channels", "gated", "residual")
"""Quantities of an op's row: those that add up, beginning with the work terms, and those of which the largest
counts."""
_SUM = {name: index for index, name in enumerate(SUMMED)}


class OpFacts(NamedTuple):
    """Facts of one op in whole numbers, from which op_rows and op_sizes are computed for many at once."""

    op_class: int
    """Index of OP_CLASSES."""
    macs: int
    constants: int
    read: int
    """Number of values of its inputs: as many float32 as take their bytes."""
    written: int
    kernel: int
    """Pixels along the longer side; 1 where there is no window."""
    taps: int
    """Pixels of a pool's window, else 0."""
    groups: int
    """Groups of a convolution, else 0."""
    depth: int
    """Steps that one thread of a GPU takes."""
    cin: int
    cout: int
    widest: int
    """Most channels of any tensor."""
    pixels_in: int
    pixels_out: int
    rows: int
    """Runs of values that lie side by side."""
    again: int
    """Whether it goes over its values twice, or takes an exponential: 1 or 0."""
    plain: int
    """Whether it is a convolution of plain images where others run in blocks of channels: 1 or 0."""


Launched = tuple[Op, tuple[Shape, ...], tuple[Shape, ...], tuple[DType, ...]]
"""An op that a runtime starts, with the shapes of its inputs and results, and their dtypes where not all of them are
float32."""


def op_facts(
    op: Op, inputs: tuple[Shape, ...], results: tuple[Shape, ...], dtypes: tuple[DType, ...] = (), block: int = 0
) -> OpFacts:
    """Facts of an op with those shapes of inputs and results; `block` is that of ONNX Runtime's layout, 0 where images
    are plain. Raises UnknownOpError for an op without work terms."""
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
        _rows(op, inputs, results),
        _goes_again(op),
        bool(block) and isinstance(op, Conv2d) and not is_in_blocks(op, x, block),
    )


NARROW = (DType.FLOAT16, DType.INT8, DType.UINT8, DType.INT16)
"""Dtypes that stand for real values where no float32 is beside them."""


def computes_narrowly(dtypes: Sequence[DType]) -> bool:
    """Whether what has these dtypes computes in a narrower one throughout. It then counts as if it did in float32: the
    dtype is its predictor's setup's, whose rates are fitted to graphs of float32."""
    return DType.FLOAT32 not in dtypes and not set(NARROW).isdisjoint(dtypes)


def _in_float32(sizes: Sequence[int], dtypes: Sequence[DType]) -> list[int]:
    """As many float32 values as take so many bytes."""
    full = NARROW if computes_narrowly(dtypes) else ()
    bytes_of = [ITEMSIZE if dtype in full else BYTES[dtype] for dtype in dtypes]
    return [-(-size * itemsize // ITEMSIZE) for size, itemsize in zip(sizes, bytes_of, strict=True)]


def _goes_again(op: Op) -> bool:
    return (
        op.function in (_TWICE if isinstance(op, Activation) else _COSTLY)
        if isinstance(op, Activation | Unary)
        else False
    )


def _rows(op: Op, inputs: tuple[Shape, ...], results: tuple[Shape, ...]) -> int:
    """Runs of values that an op begins anew; 0 where it takes all of them as one."""
    if op.kind in _FLAT:
        return 0
    if op.kind == "transpose" and isinstance(op, Transpose) and op.perm[-1] != len(op.perm) - 1:
        return math.prod(results[0])
    if op.arity == 2:
        runs = math.prod(results[0]) // _run(*inputs)
        return runs if runs > 1 else 0
    return sum([math.prod(shape[:-1]) for shape in (inputs if op.kind == "concat" else results)])


def _run(a: Shape, b: Shape) -> int:
    """Values side by side for which two operands both go on, or one of them stays."""
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True))[::-1]
    sorts = [(m == 1) - (n == 1) for m, n in pairs]
    return math.prod(
        max(pair) for pair, _ in itertools.takewhile(lambda one: one[1] == sorts[0], zip(pairs, sorts, strict=True))
    )


def _align(channels: FloatArray, vector: int = VECTOR) -> FloatArray:
    """Ratio of the channels filled up to whole vectors over the channels, shape (m,)."""
    return np.asarray(np.ceil(channels / vector) * vector / channels)


def op_rows(f: OpColumns) -> FloatArray:
    """Row of each of m ops that adds to a graph's features: SUMMED, then LARGEST. Shape (m, both)."""
    aligned, moved = f.macs * _align(f.cin) * _align(f.cout), ITEMSIZE * (f.read + f.written)
    width = f.cout / np.maximum(f.groups, 1)
    width = np.where(f.plain, WIDEST, width)  # there the pixels are the columns
    is_half = (width < WIDEST) | ((width % WIDEST > 0) & (width % WIDEST <= WIDEST // 2))
    patches = ITEMSIZE * f.macs * f.groups // f.cout
    is_strided = f.pixels_in > f.pixels_out
    lines = patches / ITEMSIZE / np.where(is_strided, 1, np.sqrt(f.pixels_out))
    gathered = np.where((f.kernel > 1) | is_strided, lines, 0) * f.plain
    window = f.macs / f.written  # pixels, in a depthwise convolution
    amounts = {
        "macs": f.macs,
        "aligned": aligned,
        "wide": np.where(is_half, 0, f.macs * _align(width, WIDEST)),
        "half": np.where(is_half, f.macs * _align(width, WIDEST // 2), 0),
        "streamed": f.macs * np.interp(ITEMSIZE * WIDEST * f.macs / f.written, COLUMN_BYTES, (0, 1)),
        "odd": f.macs * (f.cout % 2),
        "plain": f.macs * f.plain,
        "gathered": gathered,
        "groups": f.groups * f.plain,
        "windows": f.macs / f.cout,
        "tails": np.where(f.cout % (WIDEST // 2) > 0, f.macs / f.cout, 0),
        "refetched": f.macs * np.interp(2 * ITEMSIZE * window * f.cout, WINDOW_BYTES, (0, 1)),
        "patches": patches,
        "depth": f.depth,
        "read": ITEMSIZE * f.read,
        "written": ITEMSIZE * f.written,
        "moved": moved,
        "weights": ITEMSIZE * f.constants,
        "taps": f.written * f.taps,
        "rows": f.rows,
        "again": moved * f.again,
        "outer": np.maximum(ITEMSIZE * f.constants - CACHE_BYTES, 0),
        "far": np.maximum(ITEMSIZE * f.constants - FAR_BYTES, 0),
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
    rows: FloatArray
    again: FloatArray
    plain: FloatArray


def op_columns(facts: Sequence[OpFacts]) -> OpColumns:
    """Columns of the facts of m ops."""
    values = np.fromiter(chain.from_iterable(facts), dtype=float, count=len(facts) * len(OpFacts._fields))
    return OpColumns(*values.reshape(-1, len(OpFacts._fields)).T)


def launched(graph: Graph, fusion: Fusion = "cpu") -> list[Launched]:
    """The ops that a CPU's runtime starts, one per kernel. Where an op does the padding before it itself, it reads what
    is not yet padded. Stored values start none."""
    pads = paddings(graph, fusion)
    starts = kernel_starts(graph, "cpu" if fusion == "gpu" else fusion)
    shuffles = channel_shuffles(graph) if fusion in BLOCKS else {}
    steps = list(graph.steps())
    dtypes = _dtypes(graph)
    found: list[Launched] = []
    for at, (node, inputs, results) in enumerate(steps):
        if starts[at] != at or isinstance(node.op, Constant):
            continue
        if at in pads:
            found.append((*_unpadded(node.op, steps[pads[at]][1], inputs, results), dtypes[at]))
        elif at in shuffles:
            found.append((*_shuffled(results[0]), dtypes[at]))
        else:
            found.append((node.op, inputs, results, dtypes[at]))
    return found


def _shuffled(split: Shape) -> tuple[Op, tuple[Shape, ...], tuple[Shape, ...]]:
    """A shuffle of channels where these come first; `split` is (N, H, W, groups, members)."""
    batch, height, width, groups, members = split
    pixels = height * width
    return Transpose((0, 2, 1, 3)), ((batch, groups, members, pixels),), ((batch, members, groups, pixels),)


def _dtypes(graph: Graph) -> Sequence[tuple[DType, ...]]:
    """For each node the dtypes of its inputs and results; nothing where all are float32."""
    if not graph.has_dtypes:
        return [()] * len(graph.nodes)
    pairs = zip(graph.nodes, graph.results, strict=True)
    return [tuple([graph.dtypes[t] for t in (*node.inputs, *results)]) for node, results in pairs]


def _unpadded(
    op: Op, before: tuple[Shape, ...], inputs: tuple[Shape, ...], results: tuple[Shape, ...]
) -> tuple[Op, tuple[Shape, ...], tuple[Shape, ...]]:
    """A layer with its own padding, which is SAME where that gives as many pixels; else it counts as reading them."""
    if isinstance(op, Conv2d | Pool2d):
        same = replace(op, padding=Padding.SAME)
        if same.output_shapes(*before) == results:
            return same, before, results
    return op, inputs, results
