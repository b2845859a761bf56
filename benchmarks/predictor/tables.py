"""The public latency tables of data/latency as graphs and milliseconds.

A network comes as the sequence of its pieces: blocks or kernels, whose order and connections the tables do not tell.
Every function takes the folder, so that other tables with the same columns can be judged in place of the shipped ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from archspace.configurations import graph_of, graphs_of
from archspace.graph import Graph

SHIPPED = Path(__file__).parents[2] / "data" / "latency"
Pieces = tuple[Graph, ...]


class Blocks(NamedTuple):
    """Blocks or kernels with their rows in the table."""

    graphs: list[Graph]
    frame: pd.DataFrame


class Networks(NamedTuple):
    """Networks in pieces, by name, and `latency_ms`: a row a network, a column a device or setup."""

    pieces: dict[str, Pieces]
    latency_ms: pd.DataFrame


def read(folder: Path, stem: str) -> pd.DataFrame:
    """The table of that name, whichever of the two formats it has."""
    parquet = folder / f"{stem}.parquet"
    return pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(folder / f"{stem}.csv")


def pixel1_pixel4_blocks(folder: Path = SHIPPED) -> Blocks:
    """MBConv blocks with `pixel1_ms` and `pixel4_ms`; a failed measurement is a row less."""
    frame = read(folder, "blocks_pixel1_pixel4").dropna(subset=["pixel1_ms", "pixel4_ms"]).reset_index(drop=True)
    table = frame.assign(op="mbconv", se=0.25 * frame.se, shortcut=np.where(frame.cin != frame.cout, "conv", None))
    return Blocks(graphs_of(table), frame.assign(h=frame.hw_in))


def unnamed_phone_blocks(folder: Path = SHIPPED) -> Blocks:
    """MBConv blocks with `latency_ms`; `stage` numbers the distinct (cin, cout, stride)."""
    frame = read(folder, "blocks_unnamed_phone").query("op == 'mbconv'").reset_index(drop=True)
    stage = frame.groupby(["cin", "cout", "stride"]).ngroup()
    return Blocks(graphs_of(frame), frame.assign(stage=stage))


def pixel1_spnas_blocks(folder: Path = SHIPPED) -> Blocks:
    """MBConv blocks with `latency_ms`, some of them measured several times."""
    frame = read(folder, "blocks_pixel1_spnas").query("op == 'mbconv' and latency_ms > 0").reset_index(drop=True)
    return Blocks(graphs_of(frame), frame)


def sd855_kernels(folder: Path = SHIPPED) -> Blocks:
    """Convolution kernels with `latency_ms`."""
    frame = read(folder, "kernels_sd855").reset_index(drop=True)
    activation = np.where(frame.flag_relu > 0, "relu", None)
    return Blocks(graphs_of(frame.assign(activation=activation).drop(columns=["h_out"])), frame)


def pixel4_gpu_kernels(folder: Path = SHIPPED) -> Blocks:
    """Kernels as the GPU delegate fused them, with `model` and `latency_ms`."""
    frame = read(folder, "pixel4_gpu_kernels").reset_index(drop=True)
    return Blocks(graphs_of(_fused(frame)), frame)


def pixel4_networks(folder: Path = SHIPPED) -> Networks:
    """Networks in kernels; the columns are "float 1large", "quant 1large", ..., "float gpu"."""
    kernels = pixel4_gpu_kernels(folder)
    pieces = {
        str(model): tuple(kernels.graphs[i] for i in rows) for model, rows in kernels.frame.groupby("model").indices.items()
    }
    frame = read(folder, "pixel4_networks")
    frame["setup"] = frame.dtype + " " + frame.cores
    latency_ms = frame.pivot(index="model", columns="setup", values="latency_ms")
    return Networks(pieces, latency_ms.loc[[m for m in latency_ms.index if m in pieces]])


def _fused(frame: pd.DataFrame) -> pd.DataFrame:
    """What the kernel's name says is linked behind it: "conv_0_linked_:_relu_1_linked_:_add_2" -> "relu+add"."""
    parts = frame.kernel_name.str.split("_linked_:_")
    fused = ["+".join(re.sub(r"_\d+$", "", part) for part in rest) for _, *rest in parts]
    # The minimum of a ReLU6 that was not recognised as one.
    table = frame.assign(fused=[name.replace("minimum+relu", "relu6") for name in fused])
    # A mean over an image has no output image, and its h_out repeats the channels.
    is_image = frame.op.isin(["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_GROUP", "MAX_POOL_2D", "AVERAGE_POOL_2D"])
    return table.assign(h_out=frame.h_out.where(is_image))


def phones49(folder: Path = SHIPPED) -> Networks:
    """Networks in blocks; the columns are the phones' names, numbered where there are several of a model."""
    frame = read(folder, "phones49_blocks").query("op != 'relu'")
    pools = np.where(frame.kernel > 0, "avg_pool", "global_pool")
    op = np.where(frame.op == "pool", pools, frame.op)
    mid = frame["mid"].where(frame.op == "mbconv")
    graphs = graphs_of(frame.assign(op=op, mid=mid, activation="relu").drop(columns=["h_out"]))
    pieces: dict[str, list[Graph]] = {}
    for net, graph in zip(frame.net, graphs, strict=True):
        pieces.setdefault(str(net), []).append(graph)
    latency = read(folder, "phones49_latency")
    table = latency.assign(net=latency.net.astype(str)).pivot(index="net", columns="device", values="median_ex1_ms")
    return Networks({name: tuple(graphs) for name, graphs in pieces.items()}, table.loc[list(pieces)])


def phone_model(device: str) -> str:
    """The model of a phone in phones49: its name without the number of the unit."""
    return re.sub(r"_\d+$", "", device)


def nb201(folder: Path = SHIPPED) -> Networks:
    """NAS-Bench-201's cells as whole networks (CIFAR-10: 32 pixels, 16 / 32 / 64 channels, five cells a stage)."""
    frame = read(folder, "nb201_latency")
    pieces = {text: nb201_pieces(text) for text in frame.arch_str}
    return Networks(pieces, frame.set_index("arch_str").drop(columns=["idx"]))


def nb201_pieces(cell: str) -> Pieces:
    """All kernels of the network of one cell, such as "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"."""
    return tuple(piece for stage in range(3) for piece in (*_nb201_stage(cell, stage), *_nb201_fixed(stage)))


@lru_cache(maxsize=1 << 16)
def _nb201_stage(cell: str, stage: int) -> Pieces:
    ops = [[edge.partition("~") for edge in node.strip("|").split("|")] for node in cell.split("+")]
    live = _live_edges(ops)
    pieces: list[Graph] = []
    for target, edges in enumerate(ops, start=1):
        inputs = 0
        for op, _, source in edges:
            if op == "none" or (int(source), target) not in live:
                continue
            inputs += 1
            pieces += [piece] if (piece := _nb201_kernel(op, stage)) else []
        pieces += [_nb201_kernel("add", stage)] * max(inputs - 1, 0)  # type: ignore[list-item]
    return tuple(pieces * 5)


def _live_edges(ops: Sequence[Sequence[tuple[str, str, str]]]) -> set[tuple[int, int]]:
    """Edges (source, target) on a way from the cell's input to its output; runtimes drop all others."""
    edges = {(int(s), t) for t, node in enumerate(ops, start=1) for op, _, s in node if op != "none"}
    forward, backward = {0}, {3}
    for node in (1, 2, 3):
        forward |= {node} if any(t == node and s in forward for s, t in edges) else set()
    for node in (2, 1, 0):
        backward |= {node} if any(s == node and t in backward for s, t in edges) else set()
    return {(s, t) for s, t in edges if s in forward and t in backward}


@lru_cache
def _nb201_kernel(op: str, stage: int) -> Graph | None:
    size: dict[str, int] = {"height": 32 >> stage, "cin": 16 << stage, "cout": 16 << stage}
    if op == "skip_connect":
        return None
    if op == "avg_pool_3x3":
        return graph_of({**size, "op": "avg_pool", "kernel": 3})
    if op == "add":
        return graph_of({**size, "op": "add"})
    return graph_of({**size, "op": "conv", "kernel": int(op[-1])})


@lru_cache
def _nb201_fixed(stage: int) -> Pieces:
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
        graph_of({**conv, "height": h // 2, "cin": c}),
        graph_of({"op": "add", "height": h // 2, "cin": 2 * c}),
    )
