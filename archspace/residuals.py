"""Residual blocks of a graph that can be left out: sums of a tensor and of a branch that is computed from it alone."""

from __future__ import annotations

from dataclasses import dataclass

from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Add


@dataclass(frozen=True)
class ResidualBlock:
    """A branch and the sum that adds it to its own input. Left out, the input takes the sum's place.

    `name` is that of the sum; `entry` and `result` are tensors, `nodes` the indices of all that goes: the branch and
    the sum.
    """

    name: str
    entry: int
    result: int
    nodes: frozenset[int]


def residual_blocks(graph: Graph) -> tuple[ResidualBlock, ...]:
    """The residual blocks whose branch nothing else uses, in the order of their sums; one may lie within another.

    The branch takes the block's input and stored values alone, and its shape is the input's.
    """
    users: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            users.setdefault(tensor, []).append(index)
    blocks = []
    for index, node in enumerate(graph.nodes):
        if not isinstance(node.op, Add) or len({*(graph.shapes[t] for t in node.inputs)}) > 1:
            continue
        (result,) = graph.results[index]
        for entry, end in (node.inputs, node.inputs[::-1]):
            branch = _branch(graph, users, entry, end, index)
            if branch and not (result in graph.outputs and (entry < len(graph.inputs) or entry in graph.outputs)):
                blocks.append(ResidualBlock(node.name, entry, result, branch | {index}))
                break
    return tuple(blocks)


def _branch(graph: Graph, users: dict[int, list[int]], entry: int, end: int, sum_: int) -> frozenset[int] | None:
    """The nodes between two tensors; None where `end` takes more than `entry`, or others use what is between."""
    start = graph.producers[entry]
    found: set[int] = set()
    left = [end]
    reached = False
    while left:
        tensor = left.pop()
        if tensor == entry:
            reached = True
            continue
        index = graph.producers[tensor]
        if index <= start:  # computed before the entry, or an input of the graph
            return None
        if index not in found:
            found.add(index)
            left += graph.nodes[index].inputs
    inside = found | {sum_}
    given = [t for index in found for t in graph.results[index]]
    if any(t in graph.outputs or any(user not in inside for user in users.get(t, ())) for t in given):
        return None
    return frozenset(found) if reached and found else None
