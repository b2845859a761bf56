"""NAS-Bench-201's cells as networks in kernels, with the latencies of data/latency."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from netlathe.archspace.configurations import graph_of
from netlathe.archspace.graph import Graph
from scripts.latency_tables import SHIPPED, Networks, Pieces, read

PRUNING = ("pixel3",)
"""Devices whose runtime drops what the output does not depend on: their disconnected cells take nothing."""


def networks(folder: Path = SHIPPED, pruned: bool = False) -> Networks:
    """NAS-Bench-201's cells as whole networks (CIFAR-10: 32 pixels, 16 / 32 / 64 channels, five cells a stage).

    PyTorch runs every op of a cell; `pruned`: a compiled runtime those alone that the output depends on. Counts of all
    ops order the cells of every device here better than counts of those that matter (Spearman .93-.999 against
    .82-.90), but for pixel3, where a cell without a way to its output takes nothing.
    """
    frame = read(folder, "nb201_latency")
    pieces = {text: pieces_of(text, pruned) for text in frame.arch_str}
    return Networks(pieces, frame.set_index("arch_str").drop(columns=["idx"]))


def pieces_of(cell: str, pruned: bool = False) -> Pieces:
    """All kernels of the network of one cell, such as "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"."""
    return tuple(piece for s in range(3) for piece in (*_stage(cell, s, pruned), *_fixed(s)))


@lru_cache(maxsize=1 << 17)
def _stage(cell: str, stage: int, pruned: bool) -> Pieces:
    ops = _edges(cell)
    live = _live_edges(ops)
    pieces: list[Graph] = []
    for target, edges in enumerate(ops, start=1):
        run = [op for op, _, source in edges if not pruned or (int(source), target) in live]
        # A node is the sum of its edges.
        kernels = [_kernel(op, stage) for op in (*run, *["add"] * (len(run) - 1))]
        pieces += [kernel for kernel in kernels if kernel]
    return tuple(pieces * 5)


def is_constant(cell: str) -> bool:
    """Whether there is no way from the cell's input to its output."""
    return not _live_edges(_edges(cell))


def _edges(cell: str) -> list[list[tuple[str, str, str]]]:
    """(op, "~", source) of each node's edges."""
    return [[edge.partition("~") for edge in node.strip("|").split("|")] for node in cell.split("+")]


def _live_edges(ops: Sequence[Sequence[tuple[str, str, str]]]) -> set[tuple[int, int]]:
    """Edges (source, target) on a way from the cell's input to its output."""
    edges = {(int(s), t) for t, node in enumerate(ops, start=1) for op, _, s in node if op != "none"}
    forward, backward = {0}, {3}
    for node in (1, 2, 3):
        forward |= {node} if any(t == node and s in forward for s, t in edges) else set()
    for node in (2, 1, 0):
        backward |= {node} if any(s == node and t in backward for s, t in edges) else set()
    return {(s, t) for s, t in edges if s in forward and t in backward}


@lru_cache
def _kernel(op: str, stage: int) -> Graph | None:
    size: dict[str, int] = {"height": 32 >> stage, "cin": 16 << stage, "cout": 16 << stage}
    if op == "skip_connect":
        return None
    if op == "avg_pool_3x3":
        return graph_of({**size, "op": "avg_pool", "kernel": 3})
    if op == "add":
        return graph_of({**size, "op": "add"})
    if op == "none":  # computed as 0 * x: as much work as any function of each element
        return graph_of({**size, "op": "relu"})
    return graph_of({**size, "op": "conv", "kernel": int(op[-1])})


@lru_cache
def _fixed(stage: int) -> Pieces:
    """Stem before the first stage, residual block of stride 2 behind the others, classifier behind the last."""
    if stage == 2:
        return (
            graph_of({"op": "global_pool", "height": 8, "cin": 64}),
            graph_of({"op": "fully_connected", "cin": 64, "cout": 10}),
        )
    stem = () if stage else (graph_of({"op": "conv", "height": 32, "cin": 3, "cout": 16, "kernel": 3}),)
    h, c = 32 >> stage, 16 << stage
    conv = {"op": "conv", "cout": 2 * c}
    return (
        *stem,
        graph_of({**conv, "height": h, "cin": c, "kernel": 3, "stride": 2, "activation": "relu"}),
        graph_of({**conv, "height": h // 2, "cin": 2 * c, "kernel": 3}),
        graph_of({"op": "avg_pool", "height": h, "cin": c, "kernel": 2, "stride": 2}),
        graph_of({**conv, "height": h // 2, "cin": c, "kernel": 1}),
        graph_of({"op": "add", "height": h // 2, "cin": 2 * c}),
    )
