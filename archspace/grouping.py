"""Which neighbouring parts of a network are one block: how a file that names no blocks is read.

A part is what a single tensor connects with the rest, so that blocks with a shortcut are whole already; the others are
chains, known by their layers: a padded convolution, an inverted bottleneck (MBConv), a separable convolution, a
classifier behind a global pool (archspace/blocks.py). Whatever fits none of them stays by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from netlathe.archspace.ops import Activation, Conv2d, FullyConnected, GlobalAvgPool, Mul, Op, Pad, Reshape

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph


def group_parts(parts: Sequence[Graph]) -> list[int]:
    """Number of parts, one after the other, that each block is made of."""
    counts: list[int] = []
    start = 0
    while start < len(parts):
        counts.append(next((n for pattern in _BLOCKS if (n := _matched(pattern, parts, start))), 1))
        start += counts[-1]
    return counts


def _ops(part: Graph) -> list[Op]:
    return [node.op for node in part.nodes]


def _is_pointwise(part: Graph, *, activated: bool) -> bool:
    """A 1x1 convolution that keeps the image's size, alone or with an activation."""
    ops = _ops(part)
    plain = isinstance(ops[0], Conv2d) and (ops[0].kernel, ops[0].stride, ops[0].groups) == ((1, 1), (1, 1), 1)
    return plain and len(ops) == 1 + activated and (not activated or isinstance(ops[1], Activation))


def _expands(part: Graph) -> bool:
    return _is_pointwise(part, activated=True)


def _projects(part: Graph) -> bool:
    return _is_pointwise(part, activated=False)


def _is_depthwise(part: Graph) -> bool:
    """A depthwise convolution with its activation."""
    ops = _ops(part)
    layer = ops[0]
    return (
        len(ops) == 2
        and isinstance(layer, Conv2d)
        and layer.is_depthwise(part.input_shape)
        and isinstance(ops[1], Activation)
    )


def _pads(part: Graph) -> bool:
    return isinstance(part.nodes[0].op, Pad) and len(part.nodes) == 1


def _is_convolution(part: Graph) -> bool:
    return isinstance(part.nodes[0].op, Conv2d)


def _gates(part: Graph) -> bool:
    """Squeeze-and-excite."""
    ops = _ops(part)
    return isinstance(ops[0], GlobalAvgPool) and isinstance(ops[-1], Mul)


def _pools(part: Graph) -> bool:
    return len(part.nodes) == 1 and isinstance(part.nodes[0].op, GlobalAvgPool)


def _flattens(part: Graph) -> bool:
    return len(part.nodes) == 1 and isinstance(part.nodes[0].op, Reshape)


def _classifies(part: Graph) -> bool:
    return isinstance(part.nodes[0].op, FullyConnected)


_Fits = Callable[["Graph"], bool]
_Pattern = Sequence[tuple[_Fits, bool]]
"""Condition on each part, and whether it may be missing."""
_MIDDLE: _Pattern = ((_pads, True), (_is_depthwise, False), (_gates, True))
_BLOCKS: tuple[_Pattern, ...] = (
    ((_expands, True), *_MIDDLE, (_projects, False)),
    ((_pads, True), (_is_depthwise, False), (_expands, False)),
    ((_pads, False), (_is_convolution, False)),
    ((_pools, False), (_flattens, True), (_classifies, False)),
)
"""MBConv, separable convolution, padded convolution, classifier; the first that fits counts."""


def _matched(pattern: _Pattern, parts: Sequence[Graph], start: int) -> int:
    """Number of parts from `start` on that the pattern takes; 0 where it does not fit. No part fits two neighbours of a
    pattern, so that there is nothing to try again."""
    at = start
    for fits, optional in pattern:
        if at < len(parts) and fits(parts[at]):
            at += 1
        elif not optional:
            return 0
    return at - start
