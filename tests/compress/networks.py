"""Networks to cut, and what a pruned one must equal: the whole one, reading zeros in place of what is cut."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Pool2d,
    Reshape,
    Slice,
    Split,
    Transpose,
)
from netlathe.compress import CoupledChannels
from netlathe.compress.coupling import FIXED

RELU = Activation(ActivationKind.RELU)
Keep = Mapping[str, Any]


def random_keep(coupled: CoupledChannels, seed: int) -> dict[str, Any]:
    """One unit or more of each group."""
    rng = np.random.default_rng(seed)
    return {g.name: np.sort(rng.choice(g.units, rng.integers(1, g.units + 1), replace=False)) for g in coupled.groups}


def masked(coupled: CoupledChannels, weights: Weights, keep: Keep, *, producers: bool = True) -> Weights:
    """The whole network's weights with zeros where layers read what is cut, and with `producers` where they give it."""
    is_kept = coupled.group_of == FIXED
    for index, group in enumerate(coupled.groups):
        is_kept |= (coupled.group_of == index) & np.isin(coupled.place_of, keep.get(group.name, np.arange(group.units)))
    found = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in weights.items()}
    for node, units in zip(coupled.graph.nodes, coupled.nodes, strict=True):
        for key in {"kernel", "bias"} & units.stored.keys():
            for axis, along in enumerate(units.stored[key]):
                if along is not None and (producers or (key, axis) == ("kernel", 1)):
                    found[node.name][key][(*[slice(None)] * axis, ~is_kept[along])] = 0
    return found


def run(graph: Graph, weights: Weights, seed: int = 0) -> list[Any]:
    """The network's results on random inputs, which go by their shapes alone."""
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=s[:1] + s[3:] + s[1:3] if len(s) == 4 else s).astype(np.float32) for s in graph.inputs]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(write_onnx(graph, weights), options, ["CPUExecutionProvider"])
    results: list[Any] = session.run(
        None, {x.name: image for x, image in zip(session.get_inputs(), images, strict=True)}
    )
    return results


class Drawn:
    """A network of random layers, each of which couples channels in a way of its own."""

    def __init__(self, seed: int, layers: int = 6) -> None:
        self.rng = random.Random(seed)
        self.builder = GraphBuilder((1, 8, 8, 3))
        self.count = 0
        x = self.conv(0, self.rng.choice([8, 16]))
        steps = [
            self.plain, self.residual, self.dense, self.halves, self.excited, self.grouped, self.shuffled,
            self.depthwise, self.cropped,
        ]  # fmt: skip
        for _ in range(layers):
            x = self.rng.choice(steps)(x)
        flat = self.rng.random() < 0.5
        x = self.add(Reshape((64 * self.channels(x),)), x) if flat else self.add(GlobalAvgPool(), x)
        self.graph = self.builder.build(self.add(FullyConnected(5), x))

    def add(self, op: Any, *inputs: int) -> int:
        self.count += 1
        return self.builder.add(f"{op.kind}{self.count}", op, *inputs)

    def channels(self, x: int) -> int:
        return self.builder.shape(x)[-1]

    def conv(self, x: int, channels: int, groups: int = 1) -> int:
        kernel = self.rng.choice([1, 3])
        return self.add(RELU, self.add(Conv2d(channels, (kernel, kernel), groups=groups, batch_norm=False), x))

    def plain(self, x: int) -> int:
        return self.conv(x, self.rng.choice([8, 12, 16]))

    def residual(self, x: int) -> int:
        return self.add(Add(), x, self.conv(self.conv(x, 12), self.channels(x)))

    def dense(self, x: int) -> int:
        return self.add(Concat(), x, self.conv(x, self.rng.choice([4, 8])))

    def halves(self, x: int) -> int:
        part = self.channels(x) // 2
        first = self.add(Split((part, self.channels(x) - part)), x)
        return self.add(Concat(), self.conv(first + 1, 8), first)

    def excited(self, x: int) -> int:
        y = self.add(FullyConnected(self.channels(x)), self.add(RELU, self.add(FullyConnected(4), self.pooled(x))))
        return self.add(Mul(), x, self.add(Activation(ActivationKind.SIGMOID), y))

    def pooled(self, x: int) -> int:
        return self.add(GlobalAvgPool(keep_dims=True), x)

    def grouped(self, x: int) -> int:
        groups = next(n for n in (4, 2, 1) if self.channels(x) % n == 0)
        return self.conv(x, groups * self.rng.choice([1, 3, 6]), groups)

    def depthwise(self, x: int) -> int:
        return self.conv(x, self.channels(x) * self.rng.choice([1, 1, 2]), self.channels(x))

    def shuffled(self, x: int) -> int:
        groups = next(n for n in (4, 2, 1) if self.channels(x) % n == 0)
        apart = self.add(Reshape((8, 8, groups, self.channels(x) // groups)), x)
        return self.add(Reshape((8, 8, self.channels(x))), self.add(Transpose((0, 1, 2, 4, 3)), apart))

    def cropped(self, x: int) -> int:
        channels = self.channels(x)
        middle = self.add(Slice((0, 0, 0, channels // 4), (1, 8, 8, channels // 2)), x)
        return self.add(Concat(), self.add(Pool2d("max", (3, 3)), middle), self.conv(x, 8))
