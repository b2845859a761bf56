"""Graphs cut into kernels: what a runtime starts as one, an op with what is fused behind it.

On a CPU that is the relu or relu6 which TFLite's and ONNX's ops apply themselves, and the padding before an unpadded
convolution, which XNNPACK and ONNX Runtime do inside of it; ONNX's pools take theirs in, too. TFLite's own kernels run
every PAD. Its GPU delegate also links activations, sums and products behind any op
(tensorflow/lite/delegates/gpu/common/gpu_model.cc, MergeNodes).
"""

from __future__ import annotations

from typing import Literal, get_args

from netlathe.archspace.forms.structure import clamped_nodes, padded_convolutions, padded_layers
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import Activation, Add, Mul
from netlathe.archspace.records import Setup
from netlathe.predictor.errors import PredictorError

Fusion = Literal["cpu", "gpu", "onnx", "tflite"]
"""What becomes one kernel: by XNNPACK and alike, by TFLite's GPU delegate, by ONNX Runtime, by TFLite's own kernels."""
_PAD_RUNS = ("none", "nnapi")
"""What executes a TFLite PAD as an op of its own."""


def fusion_of(setup: Setup) -> Fusion:
    """The rule of what runs there. PyTorch's symmetric padding is a convolution's own, and where it is not, it runs for
    what the graph calls SAME as well: either way it is part of what such a convolution was seen to take."""
    if "gpu" in setup.delegate.lower():
        return "gpu"
    if setup.runtime == "onnxruntime":
        return "onnx"
    return "tflite" if setup.runtime == "tflite" and setup.delegate in _PAD_RUNS else "cpu"


def kernels_of(graph: Graph, fusion: Fusion = "cpu") -> list[Graph]:
    """The kernels of a block or network in the order in which they start, each a graph with one result and without
    scopes; equal kernels have equal keys. A graph without nodes has none. Raises PredictorError for an unknown
    fusion."""
    groups: dict[int, list[int]] = {}
    for index, start in enumerate(kernel_starts(graph, fusion)):
        groups.setdefault(start, []).append(index)
    return [_extract(graph, members) for _, members in sorted(groups.items())]


def kernel_starts(graph: Graph, fusion: Fusion = "cpu") -> list[int]:
    """For each node the index of the node whose kernel it belongs to: its own, unless it is fused into another's."""
    if fusion not in get_args(Fusion):
        raise PredictorError(f"unknown fusion {fusion!r}; known: {', '.join(get_args(Fusion))}")
    starts = _linked_starts(graph) if fusion == "gpu" else _clamped_starts(graph)
    for layer, pad in paddings(graph, fusion).items():
        starts[pad] = layer
    return starts


def paddings(graph: Graph, fusion: Fusion = "cpu") -> dict[int, int]:
    """Index of each layer that does the padding before it itself -> index of that pad."""
    if fusion == "tflite":
        return {}
    return padded_layers(graph) if fusion == "onnx" else padded_convolutions(graph)


def is_kernel(graph: Graph, fusion: Fusion = "cpu") -> bool:
    """Whether the graph is one kernel."""
    return len(set(kernel_starts(graph, fusion))) == 1


def _clamped_starts(graph: Graph) -> list[int]:
    """Each op takes in the relu or relu6 behind it."""
    starts = list(range(len(graph.nodes)))
    for op, activation in clamped_nodes(graph).items():
        starts[activation] = op
    return starts


def _linked_starts(graph: Graph) -> list[int]:
    """Each kernel takes in the only user of its result for as long as that is element-wise and all else that it needs
    has been computed before."""
    first, starts, users = len(graph.inputs), list(range(len(graph.nodes))), _only_users(graph)
    for index in range(len(graph.nodes)):
        last = index
        while starts[index] == index and (user := users.get(last)) is not None:
            node = graph.nodes[user]
            ready = all(t < first or starts[t - first] <= index for t in node.inputs)
            if not ready or _continued(graph, node) != first + last:
                break
            starts[user], last = index, user
    return starts


def _only_users(graph: Graph) -> dict[int, int]:
    """Index of each node whose result one other node needs, once or twice -> index of that one."""
    users: dict[int, set[int]] = {}
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            users.setdefault(tensor - len(graph.inputs), set()).add(index)
    return {index: next(iter(found)) for index, found in users.items() if index >= 0 and len(found) == 1}


def _continued(graph: Graph, node: Node) -> int | None:
    """The input whose values an element-wise op can take over while they are being computed: of two of full size the
    one computed last, else the first. None for other ops, and where that input is not of the result's size."""
    if not isinstance(node.op, Activation | Add | Mul):
        return None
    shapes = [graph.shapes[t] for t in node.inputs]
    tensor = max(node.inputs) if len(set(shapes)) == 1 else node.inputs[0]
    return tensor if graph.shapes[tensor] == node.op.output_shape(*shapes) else None


def _extract(graph: Graph, members: list[int]) -> Graph:
    """Some nodes as a graph of their own; tensors from outside become its inputs, in the order of their first use."""
    first = len(graph.inputs)
    inside = {first + member for member in members}
    used = [t for member in members for t in graph.nodes[member].inputs if t not in inside]
    outside = list(dict.fromkeys(used))
    places = {t: place for place, t in enumerate([*outside, *sorted(inside)])}
    nodes = tuple(
        Node(f"{graph.nodes[m].op.kind}_{place}", graph.nodes[m].op, tuple(places[t] for t in graph.nodes[m].inputs))
        for place, m in enumerate(members)
    )
    return Graph(tuple(graph.shapes[t] for t in outside), nodes)
