"""How long writing a block as .tflite and .onnx takes, beside PyTorch's own ONNX export of the same block.

    python -m benchmarks.write_block [--rounds 7]

All writers run in turn in every round, on one thread, with random weights drawn before; the table gives the median
and the spread (25th to 75th percentile) over the rounds, and the median of the ratios to write_tflite within a round.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, SeparableConv
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import Graph, chain
from netlathe.archspace.ops import ActivationKind

BLOCKS: list[Block] = [
    MBConv(24, 24, 56, 56),
    MBConv(24, 40, 56, 56, 2, kernel=5),
    MBConv(80, 80, 14, 14, kernel=5, padding="symmetric"),
    MBConv(40, 40, 28, 28, kernel=5, se=0.25, activation=ActivationKind.HARD_SWISH),
    SeparableConv(64, 128, 28, 28),
]
STAGES = ((16, 1, 1), (24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
"""Stages of the network: channels, blocks and the first block's stride."""

Writer = Callable[[], object]


def network() -> Graph:
    """A ProxylessNAS-like network for 224 x 224 images: a stem, 22 MBConv blocks, a 1x1 convolution and a head."""
    blocks: list[Block] = [ConvBlock(3, 32, 224, 224, 2)]
    size, channels = 112, 32
    for wider, count, stride in STAGES:
        for index in range(count):
            step = stride if index == 0 else 1
            blocks.append(MBConv(channels, wider, size, size, step, expand=3 if size > 14 else 6))
            size, channels = size // step, wider
    blocks += [ConvBlock(channels, 1280, size, size, kernel=1), LinearHead(1280, 1000, size, size)]
    return chain((f"b{i:02d}", block.graph()) for i, block in enumerate(blocks))


def writers(graph: Graph) -> dict[str, Writer]:
    """Every way to write the graph, with weights and module at hand."""
    weights = random_weights(graph)
    module = TorchGraph(graph).eval()
    batch, height, width, channels = graph.input_shape
    x = torch.zeros(batch, channels, height, width)
    ways: dict[str, Writer] = {
        "write_tflite": partial(write_tflite, graph, weights),
        "write_onnx": partial(write_onnx, graph, weights),
        "torch.onnx.export, TorchScript": lambda: torch.onnx.export(
            module,
            (x,),
            io.BytesIO(),  # type: ignore[arg-type]  # the TorchScript exporter still takes a file
            dynamo=False,
        ),
    }
    if importlib.util.find_spec("onnxscript"):
        ways["torch.onnx.export, dynamo"] = lambda: torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    return ways


def time_in_turn(ways: dict[str, Writer], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each way in each round, after one round to warm up."""
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, write in ways.items():
            start = time.perf_counter()
            write()
            times_ms[name].append((time.perf_counter() - start) * 1e3)
    return {name: np.array(values[1:]) for name, values in times_ms.items()}


def add_rows(table: Table, title: str, times_ms: dict[str, np.ndarray]) -> None:
    base = times_ms["write_tflite"]
    for name, values in times_ms.items():
        low, median, high = np.percentile(values, (25, 50, 75))
        ratio = f"{np.median(values / base):.1f}x"
        table.add_row(title if name == "write_tflite" else "", name, f"{median:.2f}", f"{low:.2f} - {high:.2f}", ratio)
    table.add_section()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per block (default 7)")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # torch's exporters warn about themselves at every call
    torch.set_num_threads(1)
    table = Table("graph", "writer", "median (ms)", "quartiles (ms)", "to write_tflite", title="Writing a model file")
    graphs = {block.name: block.graph() for block in BLOCKS}
    all_times = {name: time_in_turn(writers(graph), rounds) for name, graph in graphs.items()}
    for name, times_ms in all_times.items():
        add_rows(table, name, times_ms)
    ways = next(iter(all_times.values()))
    add_rows(table, f"all {len(graphs)} blocks", {w: np.concatenate([t[w] for t in all_times.values()]) for w in ways})
    whole = network()
    title = f"network, {len(whole.segments())} blocks, {whole.parameters / 1e6:.1f} M parameters"
    add_rows(table, title, time_in_turn(writers(whole), rounds))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
