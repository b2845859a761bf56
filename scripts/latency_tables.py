"""The public latency tables of data/latency as graphs and milliseconds.

A network comes as the sequence of its pieces: blocks or kernels, whose order and connections the tables do not tell.
Every function takes the folder, so that other tables with the same columns can be judged in place of the shipped ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.graph import Graph, GraphBuilder, Node
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, Mul, Pad, Padding, Pool2d

SHIPPED = Path(__file__).parents[1] / "data" / "latency"
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


def exists(folder: Path, stem: str) -> bool:
    """Whether read would find that table."""
    return any((folder / f"{stem}{suffix}").exists() for suffix in (".parquet", ".csv"))


def pixel1_pixel4_blocks(folder: Path = SHIPPED) -> Blocks:
    """MBConv blocks with `pixel1_ms` and `pixel4_ms`; a failed measurement is a row less."""
    frame = read(folder, "blocks_pixel1_pixel4").dropna(subset=["pixel1_ms", "pixel4_ms"]).reset_index(drop=True)
    return Blocks(graphs_of(frame.drop(columns=["pixel1_ms", "pixel4_ms"])), frame.assign(h=frame.hw_in))


def unnamed_phone_blocks(folder: Path = SHIPPED) -> Blocks:
    """MBConv blocks with `latency_ms`; `stage` numbers the distinct (cin, cout, stride)."""
    frame = read(folder, "blocks_unnamed_phone").query("op == 'mbconv'").reset_index(drop=True)
    stage = frame.groupby(["cin", "cout", "stride"]).ngroup()
    return Blocks(graphs_of(frame), frame.assign(stage=stage))


def sd855_kernels(folder: Path = SHIPPED) -> Blocks:
    """Convolution kernels with `latency_ms`."""
    frame = read(folder, "kernels_sd855").reset_index(drop=True)
    activation = (frame.flag_relu > 0).map({True: "relu", False: None})
    return Blocks(graphs_of(frame.assign(activation=activation).drop(columns=["h_out"])), frame)


def pixel4_gpu_kernels(folder: Path = SHIPPED) -> Blocks:
    """Kernels as the GPU delegate fused them, with `model` and `latency_ms`."""
    frame = read(folder, "pixel4_gpu_kernels").reset_index(drop=True)
    return Blocks(graphs_of(_fused(frame)), frame)


def pixel4_networks(folder: Path = SHIPPED) -> Networks:
    """Networks in kernels, with those that pixel4_gpu_kernels leaves out; the columns are "float 1large",
    "quant 1large", ..., "float gpu"."""
    kernels = pixel4_gpu_kernels(folder)
    before = _left_out(kernels)
    pieces = {
        str(model): tuple(piece for i in rows for piece in (*before[i], kernels.graphs[i]))
        for model, rows in kernels.frame.groupby("model").indices.items()
    }
    frame = read(folder, "pixel4_networks")
    frame["setup"] = frame.dtype + " " + frame.cores
    latency_ms = frame.pivot(index="model", columns="setup", values="latency_ms")
    return Networks(pieces, latency_ms.loc[[m for m in latency_ms.index if m in pieces]])


def _fused(frame: pd.DataFrame) -> pd.DataFrame:
    """Ops that the kernel's name says are linked behind it: "conv_0_linked_:_relu_1_linked_:_add_2" -> "relu+add"."""
    parts = frame.kernel_name.str.split("_linked_:_")
    fused = ["+".join(re.sub(r"_\d+$", "", part) for part in rest) for _, *rest in parts]
    # The minimum of a ReLU6 that was not recognised as one.
    table = frame.assign(fused=[name.replace("minimum+relu", "relu6") for name in fused])
    # A mean over an image has no output image, and its h_out repeats the channels.
    is_image = frame.op.isin(["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_GROUP", "MAX_POOL_2D", "AVERAGE_POOL_2D"])
    return table.assign(h_out=frame.h_out.where(is_image))


def _left_out(kernels: Blocks) -> list[list[Graph]]:
    """For each row the kernels before it that have no row: pads and element-wise ones.

    The names number all nodes of a network, so that a gap in the numbers tells how many nodes lead to the row's input.
    One of them is its pad, where its input is padded; the others are the products and sums of a normalisation, a gate
    or a residual, and relu."""
    last: dict[str, int] = {}
    found = []
    for name, model, graph in zip(kernels.frame.kernel_name, kernels.frame.model, kernels.graphs, strict=True):
        numbers = [int(number) for number in re.findall(r"_(\d+)(?=_linked|$)", name)]
        gap = numbers[0] - last.get(model, -1) - 1
        last[model] = max(numbers)
        found.append(_gap(graph, gap) if gap > 0 else [])
    return found


def _gap(graph: Graph, nodes: int) -> list[Graph]:
    """That many nodes that lead to the graph's input, in up to two kernels."""
    op, x, pads = graph.nodes[0].op, graph.inputs[0], []
    if isinstance(op, Conv2d | Pool2d) and op.padding is Padding.VALID and max(op.kernel) > 1:
        total = op.kernel[0] - 1
        border = (total // 2, total - total // 2)
        x = (x[0], x[1] - total, x[2] - total, x[3])
        pads = [Graph((x,), (Node("pad", Pad(border, border), (0,)),))]
    count = nodes - len(pads)
    if not count:
        return pads
    builder, y = GraphBuilder(x, (*(1 for _ in x[1:]), x[-1])), 0
    for index in range(count):
        if index == count - 1 and count % 2 and count > 1:
            y = builder.add("relu", Activation(ActivationKind.RELU), y)
        else:
            y = builder.add(f"{index}", Add() if index % 2 else Mul(), y, 1)
    return [builder.build(), *pads]


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
