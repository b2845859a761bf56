"""Splits of blocks for cross-validation, each harder than the one before.

- random: rows at random; what a table's own duplicates make of it
- configuration: distinct graphs at random, under whatever names they were measured
- kernel: all blocks of one kernel size at a time
- stage: all blocks with the same channels and stride at a time
- larger: the half of the blocks with the larger inputs, from the others
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Activation, Conv2d, FullyConnected, Op, Pool2d, Shape
from netlathe.predictor.errors import PredictorError

Fold = NDArray[np.intp]
"""Indices of the rows that are predicted from all others."""
_MOST_FOR_10_FOLDS = 60
"""Most different items of which cross-validation leaves out a tenth at a time; of more, a fifth."""
BLOCK_SPLITS = ("configuration", "random", "kernel", "stage", "larger")
"""Names of the splits of blocks, the one to quote first."""


def configuration_folds(configurations: Sequence[Hashable], folds: int, seed: int) -> list[Fold]:
    """Indices of each test fold: distinct configurations are dealt at random into `folds` parts of nearly equal size,
    and all records of a configuration go with it. Fewer configurations than folds make fewer folds; a record whose
    configuration is None is in none of them."""
    distinct = [c for c in dict.fromkeys(configurations) if c is not None]
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[index]: position % folds for position, index in enumerate(order)}
    membership = np.array([-1 if c is None else fold_of[c] for c in configurations])
    return [np.flatnonzero(membership == fold) for fold in range(min(folds, len(distinct)))]


def near_folds(configurations: Sequence[Hashable], seed: int) -> list[Fold]:
    """Test folds of random configurations for a model's own cross-validation: 10 of a few, 5 of many."""
    return configuration_folds(configurations, 10 if len(set(configurations)) <= _MOST_FOR_10_FOLDS else 5, seed)


def block_folds(split: str, graphs: Sequence[Graph], folds: int, seed: int) -> list[Fold]:
    """The test folds of one of BLOCK_SPLITS over blocks; more kernel sizes or stages than `folds` are left out several
    at a time. Raises PredictorError, with the reason, for a split that these blocks do not admit."""
    if split == "configuration":
        return _several(configuration_folds([g.key for g in graphs], folds, seed), "the blocks are all the same")
    if split == "random":
        if len({g.key for g in graphs}) == len(graphs):
            raise PredictorError("no configuration was measured twice, so it is the split by configuration")
        return configuration_folds(range(len(graphs)), folds, seed)
    if split == "larger":
        sides = np.array([input_side(g) for g in graphs])
        larger = [sides > side for side in np.unique(sides)[:-1]]
        if not larger:
            raise PredictorError("the blocks have one input size, so nothing can be left out")
        return [np.flatnonzero(min(larger, key=lambda chosen: abs(float(chosen.mean()) - 0.5)))]
    group, reason = _GROUPS[split]
    return _several(configuration_folds([group(g) for g in graphs], folds, seed), reason)


def _several(folds: list[Fold], reason: str) -> list[Fold]:
    if len(folds) < 2:
        raise PredictorError(f"{reason}, so nothing can be left out")
    return folds


def kernel_size(graph: Graph) -> int | None:
    """Kernel size of a graph: of its largest depthwise convolution; without depthwise, the largest kernel of another
    convolution or of a pool. None where there is no window of more than one pixel."""
    depthwise, others = [0], [0]
    for node, inputs, _ in graph.steps():
        if isinstance(node.op, Conv2d | Pool2d):
            is_depthwise = isinstance(node.op, Conv2d) and node.op.is_depthwise(inputs[0])
            (depthwise if is_depthwise else others).append(max(node.op.kernel))
    size = max(depthwise) or max(others)
    return size if size > 1 else None


def stage(graph: Graph) -> Hashable:
    """Stage of a graph from image to image, (channels in, channels out, stride); None for any other."""
    x, y = graph.inputs[0], graph.output_shape
    if len(x) != 4 or len(y) != 4:
        return None
    return x[-1], y[-1], round(x[1] / y[1])


def input_side(graph: Graph) -> float:
    """Side of a graph's input in pixels, the square root of their number; 1 for a vector."""
    return math.sqrt(math.prod(graph.inputs[0][1:-1]))


_GROUPS: dict[str, tuple[Callable[[Graph], Hashable], str]] = {
    "kernel": (kernel_size, "the blocks have one kernel size"),
    "stage": (stage, "the blocks have one stage"),
}
"""Groups that are left out whole, and why there may be none, by split."""


def op_kind(graph: Graph) -> str:
    """Kind of a block, as tables of errors name it: "mbconv k5", "conv k3", "depthwise k3", "avg pool", "linear", ...

    The heaviest kind of op gives the name; a depthwise convolution beside others makes an mbconv, or a sepconv where
    an activation ends it.
    """
    weighty = [(n.op, i[0]) for n, i, _ in graph.steps() if isinstance(n.op, Conv2d | FullyConnected | Pool2d)]
    convs = [(op, x) for op, x in weighty if isinstance(op, Conv2d)]
    if any(op.is_depthwise(x) for op, x in convs) and len(convs) > 1:
        family = "sepconv" if isinstance(graph.nodes[-1].op, Activation) else "mbconv"
        return f"{family} k{kernel_size(graph) or 1}"
    if not weighty:
        return _plain_name(graph.nodes[0].op) if graph.nodes else "skip"
    return _op_name(*max(weighty, key=lambda pair: pair[0].macs(pair[1])))


def _plain_name(op: Op) -> str:
    return (op.function if isinstance(op, Activation) else op.kind).replace("_", " ")


def _op_name(op: Conv2d | FullyConnected | Pool2d, x: Shape) -> str:
    if isinstance(op, FullyConnected):
        return "linear"
    if isinstance(op, Pool2d):
        return f"{op.mode} pool"
    family = "depthwise" if op.is_depthwise(x) else "grouped conv" if op.groups > 1 else "conv"
    return f"{family} k{max(op.kernel)}"
