"""Graphs cut into kernels: what a runtime starts as one, an op with what is fused behind it.

On a CPU that is the relu, relu6 or clip to -1..1 which TFLite's and ONNX's ops apply themselves, and the padding
before an unpadded convolution, which XNNPACK and ONNX Runtime do inside of it; ONNX's pools take theirs in, too.
XNNPACK also clamps in pools and transposed convolutions (src/subgraph.c, xnn_subgraph_fusion), up to 2024 in all
arithmetic. TFLite's own kernels run every PAD. Its GPU delegate also links activations, sums and products behind any
op (tensorflow/lite/delegates/gpu/common/gpu_model.cc, MergeNodes). ONNX Runtime's blocks of channels have their own
rules (blocked_layout.py). What writes a file asks here what becomes one op of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from netlathe.archspace.blocked_layout import blocked_run
from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import (
    HARD_SLOPE,
    Activation,
    ActivationKind,
    Add,
    Clip,
    Constant,
    Conv2d,
    Div,
    FullyConnected,
    Mul,
    Op,
    Pad,
    Padding,
    Pair,
    Pool2d,
    Reshape,
    Shape,
    Sub,
    Transpose,
    TransposeConv2d,
    Unary,
    same_padding,
)
from netlathe.archspace.records import Setup

Borders = tuple[Pair, Pair]
"""Pixels (before, after) along height, then along width."""

Fusion = Literal["cpu", "gpu", "onnx", "onnx8", "onnx16", "tflite"]
"""Rule of what becomes one kernel: that of XNNPACK and alike, TFLite's GPU delegate, ONNX Runtime on plain images or
blocks of 8 or 16 channels, TFLite's own."""
BLOCKS: dict[Fusion, int] = {"onnx8": 8, "onnx16": 16}
"""Channels of a block by the rule."""
CHANNEL_BLOCK = "channels of a block"
"""A setup's detail: how ONNX Runtime lays images out there."""
_PAD_RUNS = ("none", "nnapi")
"""Delegates that execute a TFLite PAD as an op of its own."""
_CLAMPS = (ActivationKind.RELU, ActivationKind.RELU6)
_NOT_NEGATIVE = (*_CLAMPS, ActivationKind.SIGMOID, ActivationKind.HARD_SIGMOID)
_LAYERS = (Conv2d, FullyConnected)
_CLAMPING_OPS = (*_LAYERS, TransposeConv2d, Pool2d, Add, Sub, Mul, Div)
_ONNX_CLAMPING_OPS = (*_LAYERS, Add, Mul)
_UNIT_CLAMP = Clip(-1.0, 1.0)


def fusion_of(setup: Setup) -> Fusion:
    """The rule of what runs there. PyTorch's symmetric padding is a convolution's own, and where it is not, it runs for
    what the graph calls SAME as well: either way it is part of what such a convolution was seen to take."""
    if "gpu" in setup.delegate.lower():
        return "gpu"
    if setup.runtime == "onnxruntime":
        block = dict(setup.details).get(CHANNEL_BLOCK)
        return next((fusion for fusion, size in BLOCKS.items() if str(size) == block), "onnx")
    return "tflite" if setup.runtime == "tflite" and setup.delegate in _PAD_RUNS else "cpu"


def kernels_of(graph: Graph, fusion: Fusion = "cpu") -> list[Graph]:
    """The kernels of a block or network in the order in which they start, each a graph with one result and without
    scopes; equal kernels have equal keys. Stored values start none, and a graph without nodes has none. Behind them are
    changes of layout between several kernels. Raises GraphError for an unknown fusion."""
    return [kernel for _, kernel in named_kernels(graph, fusion)]


def named_kernels(graph: Graph, fusion: Fusion = "cpu") -> list[tuple[tuple[str, ...], Graph]]:
    """The kernels of kernels_of, each with the names of its nodes in the graph; a change of layout has the name of the
    node whose result it changes. Stored values are the inputs of a kernel that has no others; what takes no input is
    one with what takes its result."""
    groups: dict[int, list[int]] = {}
    starts = kernel_starts(graph, fusion)
    if graph.has_dtypes:
        _join_takers(graph, starts, lambda node: not node.inputs)
    for index, start in enumerate(starts):
        if not isinstance(graph.nodes[start].op, Constant):
            groups.setdefault(start, []).append(index)
    found = [_with_inputs(graph, members) for _, members in sorted(groups.items())]
    kernels = [(tuple(graph.nodes[index].name for index in one), _extract(graph, one)) for one in found]
    if len(kernels) < 2:
        return kernels
    first = len(graph.inputs)
    makers = [graph.nodes[0].name] * first + [node.name for node, _, outputs in graph.steps() for _ in outputs]
    return kernels + [((makers[t],), _pass_over(graph.shapes[t])) for t in reordered(graph, fusion)]


def reordered(graph: Graph, fusion: Fusion) -> list[int]:
    """The tensors of a graph whose layout is changed between its kernels."""
    return blocked_run(graph, BLOCKS[fusion], paddings(graph, fusion)).reordered if fusion in BLOCKS else []


LAYOUT_CHANGE = "layout_change"
"""Name of the node of a kernel that changes a layout."""


def _pass_over(shape: Shape) -> Graph:
    """The kernel that a change of layout costs as much as: one that reads each value and writes it again. Of images of
    16x112x112 to 960x7x7, ONNX Runtime's took 0.7 to 1.3 times as long as the product of two by the bytes moved."""
    return Graph((shape,), (Node(LAYOUT_CHANGE, Activation(ActivationKind.RELU), (0,)),))


def _with_inputs(graph: Graph, members: list[int]) -> list[int]:
    """The members of a kernel, but for the stored values where it takes nothing else."""
    inside = {t for member in members for t in graph.results[member]}
    if any(t not in inside for member in members for t in graph.nodes[member].inputs):
        return members
    return [member for member in members if not isinstance(graph.nodes[member].op, Constant)]


def kernel_starts(graph: Graph, fusion: Fusion = "cpu") -> list[int]:
    """For each node the index of the node whose kernel it belongs to: its own, unless it is fused into another's."""
    if fusion not in get_args(Fusion):
        raise GraphError(f"unknown fusion {fusion!r}; known: {', '.join(get_args(Fusion))}")
    if fusion in BLOCKS:
        starts = _with_functions_apart(graph, blocked_run(graph, BLOCKS[fusion], paddings(graph, fusion)).starts)
    else:
        starts = _linked_starts(graph) if fusion == "gpu" else _clamped_starts(graph, fusion)
    for layer, pad in paddings(graph, fusion).items():
        starts[pad] = layer
    if fusion in BLOCKS:
        for first, others in channel_shuffles(graph).items():
            for index in others:
                starts[index] = first
    if graph.has_dtypes:  # as each graph with a stored value
        _join_takers(graph, starts, lambda node: isinstance(node.op, Constant))
    return starts


def paddings(graph: Graph, fusion: Fusion = "cpu") -> dict[int, int]:
    """Index of each layer that does the padding before it itself -> index of that pad."""
    if fusion == "tflite":
        return {}
    return padded_layers(graph) if fusion.startswith("onnx") else padded_convolutions(graph)


def channel_shuffles(graph: Graph) -> dict[int, tuple[int, int]]:
    """Index of each reshape that begins a shuffle of an image's channels (Zhang et al., ShuffleNet, 2018: as groups and
    members, swapped, as one axis again) -> indices of its transpose and of the reshape that ends it. Where channels
    come first that is one transpose of whole images."""
    found, users, nodes = {}, graph.sole_users, graph.nodes
    for first, node in enumerate(nodes):
        middle, _ = users.get(first, (-1, 0)) if isinstance(node.op, Reshape) else (-1, 0)
        last, _ = users.get(middle, (-1, 0))
        if min(middle, last) < 0 or not isinstance(nodes[last].op, Reshape):
            continue
        x, split = graph.shapes[node.inputs[0]], graph.shapes[graph.results[first][0]]
        is_split = len(x) == 4 and len(split) == 5 and split[:3] == x[:3]
        if is_split and nodes[middle].op == Transpose((0, 1, 2, 4, 3)) and graph.shapes[graph.results[last][0]] == x:
            found[first] = (middle, last)
    return found


def _join_takers(graph: Graph, starts: list[int], joins: Callable[[Node], bool]) -> None:
    """Lets each node that joins belong to the kernel of the first node that takes its result."""
    takers: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            takers.setdefault(graph.producers[tensor], index)
    for index, node in enumerate(graph.nodes):
        if index in takers and joins(node):
            starts[index] = starts[takers[index]]


def is_kernel(graph: Graph, fusion: Fusion = "cpu") -> bool:
    """Whether the graph is one kernel."""
    return len(set(kernel_starts(graph, fusion))) == 1


def _with_functions_apart(graph: Graph, starts: list[int]) -> list[int]:
    """Functions that take more than a clamp go over the result once more, also where the op before takes them in."""
    costly = (ActivationKind.SIGMOID, ActivationKind.HARD_SIGMOID, ActivationKind.HARD_SWISH)
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Unary) or _function(node.op) in costly:
            starts[index] = index
    return starts


def _clamped_starts(graph: Graph, fusion: Fusion) -> list[int]:
    """Each op takes in the clamp behind it, but for those that ONNX Runtime has no such form of."""
    starts, nodes = list(range(len(graph.nodes))), graph.nodes
    for op, activation in clamped_nodes(graph).items():
        if fusion != "onnx" or isinstance(nodes[op].op, _ONNX_CLAMPING_OPS):
            starts[activation] = op
    return starts


def _linked_starts(graph: Graph) -> list[int]:
    """Each kernel takes in the only user of its result for as long as that is element-wise and all else that it needs
    has been computed before."""
    starts, users, producers = list(range(len(graph.nodes))), graph.sole_users, graph.producers
    for index in range(len(graph.nodes)):
        last = index
        while starts[index] == index and last in users:
            user, _ = users[last]
            node = graph.nodes[user]
            ready = all(producers[t] < 0 or starts[producers[t]] <= index or _is_stored(graph, t) for t in node.inputs)
            continued = _continued(graph, node)
            if not ready or continued is None or producers[continued] != last:
                break
            starts[user], last = index, user
    return starts


def _continued(graph: Graph, node: Node) -> int | None:
    """The input whose values an element-wise op can take over while they are being computed: of two of full size the
    one computed last, else the first. None for other ops, and where that input is not of the result's size."""
    if not isinstance(node.op, Activation | Add | Mul):
        return None
    operands = [t for t in node.inputs if not _is_stored(graph, t)]
    if not operands:
        return None
    shapes = {graph.shapes[t] for t in operands}
    tensor = max(operands) if len(shapes) == 1 else operands[0]
    result = node.op.output_shape(*[graph.shapes[t] for t in node.inputs])
    return tensor if graph.shapes[tensor] == result else None


def _is_stored(graph: Graph, tensor: int) -> bool:
    """Whether it holds stored values, which are there from the start."""
    index = graph.producers[tensor]
    return index >= 0 and isinstance(graph.nodes[index].op, Constant)


def _extract(graph: Graph, members: list[int]) -> Graph:
    """A kernel's nodes as a graph of their own, which gives what the last one does; tensors from outside become its
    inputs, in the order of their first use."""
    inside = [t for member in members for t in graph.results[member]]
    given = set(inside)
    outside = list(dict.fromkeys(t for member in members for t in graph.nodes[member].inputs if t not in given))
    places = {t: place for place, t in enumerate([*outside, *inside])}
    nodes = tuple(
        Node(f"{graph.nodes[m].op.kind}_{place}", graph.nodes[m].op, tuple(places[t] for t in graph.nodes[m].inputs))
        for place, m in enumerate(members)
    )
    outputs = tuple(places[t] for t in graph.results[members[-1]])
    return Graph(tuple(graph.shapes[t] for t in outside), nodes, outputs, tuple(graph.dtypes[t] for t in outside))


def kernel_label(kernel: Graph) -> str:
    """Label of a kernel, such as "conv 56x56x24 -> 56x56x144"."""
    x, y = ("x".join(map(str, shape[1:])) for shape in (kernel.inputs[0], kernel.output_shape))
    return f"{'+'.join(node.op.kind for node in kernel.nodes)} {x} -> {y}"


def kernel_bytes(kernel: Graph, itemsize: int = 4) -> int:
    """Bytes that a kernel moves: its inputs, stored values and results, each once; what is fused into it hands its
    values on in registers. `itemsize` is what a float32 takes."""
    sizes = kernel.tensor_bytes(itemsize)
    stored = sum(node.op.stored_bytes(itemsize, *inputs) for node, inputs, _ in kernel.steps())
    return sum(sizes[: len(kernel.inputs)]) + stored + sum(sizes[tensor] for tensor in kernel.outputs)


def clamped_nodes(graph: Graph) -> dict[int, int]:
    """Index of each op that can apply the relu, relu6 or clip to -1..1 behind it itself -> index of that one's node."""

    def fits(op: Op, user: Op) -> bool:
        return (_function(user) in _CLAMPS or user == _UNIT_CLAMP) and isinstance(op, _CLAMPING_OPS)

    return _pairs(graph, fits)


def gated_layers(graph: Graph) -> dict[int, int]:
    """Index of each layer that can do the x + 3 of the hard sigmoid behind it in its bias -> that activation's."""
    hard_sigmoid = ActivationKind.HARD_SIGMOID

    def fits(op: Op, user: Op) -> bool:
        is_plain = isinstance(user, Activation) and user.slope == HARD_SLOPE
        return _function(user) is hard_sigmoid and is_plain and isinstance(op, _LAYERS)

    return _pairs(graph, fits)


def padded_convolutions(graph: Graph) -> dict[int, int]:
    """Index of each unpadded convolution that can do the padding before it itself -> index of that pad's node."""

    def fits(op: Op, user: Op) -> bool:
        return isinstance(op, Pad) and isinstance(user, Conv2d) and user.padding is Padding.VALID

    return {conv: pad for pad, conv in _pairs(graph, fits).items()}


def padded_layers(graph: Graph) -> dict[int, int]:
    """padded_convolutions for ONNX's layers, whose pools can pad, too: an average counts its zeros, a maximum ignores
    its border, which comes to the same where nothing is negative."""

    def fits(op: Op, user: Op) -> bool:
        padless = isinstance(user, Pool2d) and user.padding is Padding.VALID and not any(map(any, user.borders))
        return isinstance(op, Pad) and padless

    found = {pool: pad for pad, pool in _pairs(graph, fits).items()}
    return padded_convolutions(graph) | {pool: pad for pool, pad in found.items() if _pads_alike(graph, pool, pad)}


def _pads_alike(graph: Graph, pool: int, pad: int) -> bool:
    """Whether the pool's own padding gives what zeros around its input do; ONNX's own is smaller than its window."""
    op = graph.nodes[pool].op
    assert isinstance(op, Pool2d)
    borders = borders_of(graph, pad)
    if any(amount >= size for pair, size in zip(borders, op.kernel, strict=True) for amount in pair):
        return False
    return op.mode == "avg" or is_never_negative(graph.nodes, graph.producers[graph.nodes[pad].inputs[0]])


def is_never_negative(nodes: Sequence[Node], index: int) -> bool:
    """Whether the result of the node at that index comes straight from an activation that gives no negative numbers."""
    op = nodes[index].op if index >= 0 else None
    return isinstance(op, Activation) and op.function in _NOT_NEGATIVE


def _pairs(graph: Graph, fits: Callable[[Op, Op], bool]) -> dict[int, int]:
    nodes = graph.nodes
    found = graph.sole_users.items()
    return {index: user for index, (user, times) in found if times == 1 and fits(nodes[index].op, nodes[user].op)}


def _function(op: Op) -> ActivationKind | None:
    return op.function if isinstance(op, Activation) else None


def borders_of(graph: Graph, index: int) -> Borders:
    """Borders that the node at that index adds around its input."""
    op = graph.nodes[index].op
    if isinstance(op, Pad):
        return op.height, op.width
    if isinstance(op, Conv2d | Pool2d) and op.padding is Padding.SAME:
        window = op.span if isinstance(op, Conv2d) else op.kernel
        return same_borders(graph.shapes[graph.nodes[index].inputs[0]], window, op.stride)
    if isinstance(op, Pool2d):
        return op.borders
    return (0, 0), (0, 0)


def same_borders(x: Shape, kernel: Pair, stride: Pair) -> Borders:
    """Borders that SAME adds around an image of shape (N, H, W, C)."""
    height, width = (same_padding(x[axis + 1], kernel[axis], stride[axis]) for axis in (0, 1))
    return height, width


def is_symmetric(borders: Borders) -> bool:
    """Whether as much is added before as after, along both axes."""
    return all(before == after for before, after in borders)
