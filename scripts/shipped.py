"""Which predictors ship: the tables they are fitted on, and what their cards say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.predictor.features.item_features import Item
from scripts import latency_tables as tables


class Table(NamedTuple):
    """n measured items."""

    kind: str
    """Kind of the items that are no networks: blocks or kernels."""
    items: list[Item]
    latency_ms: NDArray[np.float64]
    owners: list[str]
    """The network that each item is, or was measured in; '' for neither."""

    def take(self, rows: NDArray[np.intp]) -> Table:
        """Some of the items."""
        return Table(self.kind, [self.items[i] for i in rows], self.latency_ms[rows], [self.owners[i] for i in rows])


@dataclass(frozen=True)
class Recipe:
    """One shipped predictor."""

    name: str
    summary: str
    source: str
    license: str
    setup: Setup
    limits: tuple[str, ...]
    read: Callable[[], Table]


def _blocks(read: Callable[[], tables.Blocks], column: str = "latency_ms", kind: str = "blocks") -> Table:
    graphs, frame = read()
    return Table(kind, list(graphs), frame[column].to_numpy(dtype=float), [""] * len(graphs))


def _networks(column: str) -> Table:
    pieces, latency = tables.pixel4_networks()
    names = [str(name) for name in latency.index]
    return Table("blocks", [pieces[n] for n in names], latency[column].to_numpy(dtype=float), names)


def _gpu() -> Table:
    """Kernels, each with the network it was measured in, and the networks themselves."""
    (graphs, frame), whole = tables.pixel4_gpu_kernels(), _networks("float gpu")
    latency_ms = np.concatenate([frame.latency_ms.to_numpy(dtype=float), whole.latency_ms])
    return Table("kernels", [*graphs, *whole.items], latency_ms, [*frame.model.astype(str), *whole.owners])


def _unnamed_phone() -> Table:
    """MBConv blocks, and the stems and heads that the table holds beside them."""
    blocks = _blocks(tables.unnamed_phone_blocks)
    graphs, latency_ms = blocks.items, blocks.latency_ms.tolist()
    ends = tables.read(tables.SHIPPED, "blocks_unnamed_phone").query("op != 'mbconv'")
    for op, cin, cout, height, ms in ends[["op", "cin", "cout", "h", "latency_ms"]].to_numpy().tolist():
        graphs.append(_end(op, cin, cout, height))
        latency_ms.append(ms)
    return Table("blocks", graphs, np.array(latency_ms), [""] * len(graphs))


def _end(op: str, cin: int, cout: int, height: int) -> Graph:
    if op == "logits":
        return LinearHead(cin, cout, height, height).graph()
    kernel, stride = {"conv_stem": (3, 2), "conv1x1_head": (1, 1)}[op]
    return ConvBlock(cin, cout, height, height, stride, kernel).graph()


NN_METER = (
    "https://github.com/microsoft/nn-Meter, branch dev/hybrid-transformer, "
    "nn_meter/predictor/transformer_predictor/lut, version 3",
    "MIT",
)
MOBILE_ML = ("https://github.com/qed-usc/mobile-ml-benchmark, commit 40ba833", "MIT")
UNSTATED = "not stated by the source"
_MBCONV_ONLY = (
    "Only MBConv blocks were measured: a network with a stem, a head or other blocks cannot be predicted, which is an "
    "error rather than a guess."
)
_OTHER_SETUPS = (
    "Runtime version, threads and cores are not stated by the source. Another runtime on the same phone may differ by "
    "20 % or more, so time a few blocks of your own before you trust it in milliseconds."
)
_PIECES = (
    "Networks came as lists of kernels. How those are connected is not known, so what that does to memory is averaged."
)


def _pixel(device: str, processor: str, column: str) -> Recipe:
    setup = Setup(
        device, processor, "Android", "tflite", "version unstated", "cpu", details=(("threads, cores", UNSTATED),)
    )
    return Recipe(
        f"{device.lower().replace(' ', '')}-cpu",
        f"MBConv blocks with hard-swish, with and without squeeze-and-excite, timed one by one on a {device}'s CPU "
        "with TFLite's benchmark_model.",
        *NN_METER, setup,
        (
            "Kernels of 3 and 5, expansion 1 to 6, 16 to 48 channels, 16 to 128 pixels. More channels, as deep in a "
            "network, are extrapolation.",
            _MBCONV_ONLY, _OTHER_SETUPS,
        ),
        partial(_blocks, tables.pixel1_pixel4_blocks, column),
    )  # fmt: skip


def _pixel4_networks(name: str, dtype: str, column: str, about: str) -> Recipe:
    setup = Setup(
        "Pixel 4", "Snapdragon 855", "Android", "tflite", "2.10", "cpu", dtype=dtype, details=(("cores", "1 large"),)
    )
    return Recipe(
        name,
        f"Well-known convolutional networks, {about}, end to end on the one large core of a Pixel 4's CPU.",
        *MOBILE_ML, setup,
        (
            "Only whole networks were measured, so single blocks and kernels are what the fit makes of them: good for "
            "comparisons, weak as milliseconds.",
            _PIECES,
            "Image classifiers at 224 pixels or near; transformers and recurrent networks cannot be predicted.",
        ),
        partial(_networks, column),
    )  # fmt: skip


_GPU = Recipe(
    "pixel4-gpu",
    "Kernels as TFLite's GPU delegate fuses them (float16), and the well-known networks they come from, on a Pixel 4.",
    *MOBILE_ML,
    Setup("Pixel 4", "Snapdragon 855, Adreno 640", "Android", "tflite", "2.10", "gpu", dtype="float16"),
    (
        "Kernels that well-known networks have: convolutions of all kinds, pools, sums, concatenations. No others.",
        "How the delegate fuses and which kernel variant it selects depends on its version and driver.",
        _PIECES,
    ),
    _gpu,
)
_SD855 = Recipe(
    "sd855-cpu-kernels",
    "Convolution kernels (1x1, 3x3, depthwise 3x3) on a Snapdragon 855's CPU with Paddle-Lite.",
    "https://github.com/PaddlePaddle/PaddleDetection",
    "Apache-2.0",
    Setup(
        "Snapdragon 855", "Snapdragon 855", "Android", "paddle-lite", "version unstated", "cpu",
        details=(("threads, cores", UNSTATED),),
    ),
    (
        "Convolutions alone: a network's other ops cannot be predicted, nor what the kernels cost in sequence.",
        "Large images (up to 640 pixels), as detectors have; kernels of 1 and 3 only.",
        _OTHER_SETUPS,
    ),
    partial(_blocks, tables.sd855_kernels, kind="kernels"),
)  # fmt: skip
_UNNAMED = Recipe(
    "unnamed-phone-cpu",
    "MBConv blocks (ReLU6), stems and heads of Once-for-All networks at seven resolutions, means over about a thousand "
    "networks each, on one device like a phone's CPU.",
    "a fork of https://github.com/mit-han-lab/once-for-all",
    "MIT",
    Setup("unnamed phone", "unstated", "unstated", "runtime", "unstated", "cpu", details=(("threads", UNSTATED),)),
    (
        "The source does not name the device: good for comparing networks, not for the milliseconds of your phone.",
        "Times were taken inside of networks: what a network adds to its blocks is already in them.",
        "Expansion 4 to 6 and kernels 3, 5 and 7, without squeeze-and-excite.",
    ),
    _unnamed_phone,
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        _pixel("Pixel 1", "Snapdragon 821", "pixel1_ms"),
        _pixel("Pixel 4", "Snapdragon 855", "pixel4_ms"),
        _pixel4_networks("pixel4-cpu-networks", "float32", "float 1large", "in float32"),
        _pixel4_networks("pixel4-cpu-int8-networks", "int8", "quant 1large", "quantized to int8"),
        _GPU, _SD855, _UNNAMED,
    )
}  # fmt: skip
