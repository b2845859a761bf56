"""Accuracy in int8 of networks that it hurts, step by step as `compress --max-drop` wins it back.

    python -m benchmarks.int8_recovery [--seeds 2] [--factors 1,64,1000]
    python -m benchmarks.int8_recovery --model FILE.onnx --data IMAGES --without-training [--factors 64]

Two networks are trained on scikit-learn's digits: a residual one with relu, and a mobile one with relu6, depthwise
convolutions and linear bottlenecks. Channels between linear layers are then multiplied by factors from 1 to so much,
and the weights that read them divided, so that float32 computes what it did (benchmarks.mixed_accuracy). Each step is
on top of the one before it, whether that was better or not; all of it is seen on training images, and judged in LiteRT
on the test images. Beside them: training with rounding alone, from the file as it is written; and that with plain
gradient descent, without the sizes of channels in it (gradient_scales). With `--model`, it is that trained network
instead, on images of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import netlathe as nl
from benchmarks.mixed_accuracy import unequal
from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.forms.tflite import tflite_ranges, write_tflite
from netlathe.archspace.forms.tflite_int8 import Range
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.archspace.spaces import Architecture
from netlathe.compress.calibration import corrected_biases, gradient_scales, least_error_ranges
from netlathe.compress.equalization import equalized
from netlathe.compress.int8_network import Int8Network
from netlathe.exporting import calibration
from netlathe.runs.compression.file_network import FileNetwork
from netlathe.runs.compression.recovered import CALIBRATED_IMAGES, EPOCHS, LEARNING_RATE
from netlathe.runs.compression.scored import few_of
from netlathe.training import Compute, ImageData, TrainConfig, evaluate, load_images, train
from netlathe.training.distillation import Teacher
from netlathe.training.norms import without_batch_norm

RELU = Activation(ActivationKind.RELU)
PLAIN = (1e-4, 1e-3)
"""Learning rates of plain gradient descent."""
COMPUTE = Compute("cpu", threads=1)


def residual() -> Graph:
    """Two residual blocks with linear convolutions inside and at their ends."""
    builder = GraphBuilder((1, 8, 8, 1))
    x = builder.add("stem", Conv2d(16, (3, 3), batch_norm=True), 0)
    x = builder.add("stem_relu", RELU, x)
    for index in range(2):
        inner = builder.add(f"inner{index}", Conv2d(16, (3, 3), batch_norm=True), x)
        outer = builder.add(f"outer{index}", Conv2d(16, (3, 3), batch_norm=True), inner)
        x = builder.add(f"relu{index}", RELU, builder.add(f"sum{index}", Add(), x, outer))
    x = builder.add("down_relu", RELU, builder.add("down", Conv2d(32, (3, 3), (2, 2), batch_norm=True), x))
    return builder.build(builder.add("head", FullyConnected(10), builder.add("mean", GlobalAvgPool(), x)))


def mobile() -> Graph:
    """A stem, four MBConv of relu6, a head."""
    blocks: list[Block] = [ConvBlock(1, 12, 8, 8, activation=ActivationKind.RELU6)]
    for cin, cout, size, stride in ((12, 12, 8, 1), (12, 16, 8, 2), (16, 16, 4, 1), (16, 24, 4, 1)):
        blocks.append(MBConv(cin, cout, size, size, stride, 3, 3, ActivationKind.RELU6))
    return Architecture("mobile", (*blocks, LinearHead(24, 10, 4, 4))).graph()


@dataclass(frozen=True)
class Case:
    """A network that int8 hurts, and the images that it is brought back with."""

    graph: Graph
    weights: Weights
    data: ImageData
    seed: int

    def ranges(self, weights: Weights) -> dict[str, Range]:
        return tflite_ranges(self.graph, weights, calibration(self.data.train))

    def accuracy(self, weights: Weights, ranges: Mapping[str, Range]) -> float:
        """Share of the test images that the file classifies right, in %."""
        file = FileNetwork(write_tflite(self.graph, weights, dtype="int8", ranges=ranges))
        return 100 * evaluate(file, self.data.test, compute=COMPUTE)

    def trained(self, weights: Weights, ranges: Mapping[str, Range], plain: float | None = None) -> float:
        """Accuracy of the file after training with its rounding; by `plain`, the learning rate of plain descent."""
        teacher = TorchGraph(self.graph).eval()
        load_weights(teacher, self.weights)
        network = Int8Network(self.graph, weights, ranges)
        if plain is None:
            few = few_of(self.data.train, CALIBRATED_IMAGES, self.seed)
            network.train_layers(gradient_scales(self.graph, weights, few, seed=self.seed, compute=COMPUTE))
        rate = LEARNING_RATE if plain is None else plain
        config = TrainConfig(epochs=EPOCHS, learning_rate=rate, weight_decay=0.0, seed=self.seed)
        train(network, self.data, config, split=self.data.train, teacher=Teacher(teacher, 1.0, 4.0), compute=COMPUTE)
        found = folded_weights(network)
        return self.accuracy(found, {**self.ranges(found), **network.ranges()})


def steps_of(case: Case, *, trains: bool) -> dict[str, float | None]:
    """Accuracy on the test images by step, in %; None where a training failed."""
    graph, data = case.graph, case.data
    few = few_of(data.train, CALIBRATED_IMAGES, case.seed)
    exact = TorchGraph(graph).eval()
    load_weights(exact, case.weights)
    found: dict[str, float | None] = {"float32": 100 * evaluate(exact, data.test, compute=COMPUTE)}
    start = case.ranges(case.weights)
    found["as written"] = case.accuracy(case.weights, start)
    weights = equalized(graph, case.weights)
    ranges = case.ranges(weights)
    found["equalized"] = case.accuracy(weights, ranges)
    ranges = least_error_ranges(graph, weights, ranges, few, compute=COMPUTE)
    found["+ ranges"] = case.accuracy(weights, ranges)
    weights = corrected_biases(graph, weights, ranges, few, seed=case.seed, compute=COMPUTE)
    found["+ biases"] = case.accuracy(weights, ranges)
    biases = corrected_biases(graph, case.weights, start, few, seed=case.seed, compute=COMPUTE)
    found["biases alone"] = case.accuracy(biases, start)
    if not trains:
        return found
    found["+ training"] = case.trained(weights, ranges)
    found["training alone"] = case.trained(case.weights, start)
    for rate in PLAIN:
        try:
            found[f"plain {rate:g}"] = case.trained(case.weights, start, rate)
        except NetlatheError:
            found[f"plain {rate:g}"] = None
    return found


def given(path: str, images: str, factors: Sequence[str], *, trains: bool) -> None:
    """Prints the steps of a trained network from a file."""
    graph, weights = nl.read_weights(path)
    _, height, width, channels = graph.input_shape
    data = load_images(images, (height, width), channels=channels)
    for factor in factors:
        changed = unequal(graph, weights, float(factor), 0) if float(factor) > 1 else weights
        tell(Path(path).stem, factor, [steps_of(Case(graph, changed, data, 0), trains=trains)])


def tell(name: str, factor: str, found: Sequence[Mapping[str, float | None]]) -> None:
    """Prints the mean accuracy of each step over seeds."""
    print(f"{name}, channels unequal by up to {factor}, {len(found)} seeds", flush=True)
    for step in found[0]:
        values = [one[step] for one in found]
        known = [value for value in values if value is not None]
        told = f"{np.mean(known):6.2f} %" if len(known) == len(values) else "failed"
        print(f"  {step:16} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--factors", default="1,64,1000", help="largest factors, with commas between")
    parser.add_argument("--model", help="trained network, in the place of two small ones")
    parser.add_argument("--data", help="its images")
    parser.add_argument("--without-training", action="store_true", help="the steps before it alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    factors = options.factors.split(",")
    if options.model:
        given(options.model, options.data, factors, trains=not options.without_training)
        return
    data = load_images("digits", (8, 8), channels=1)
    for name, made in (("residual", residual()), ("mobile", mobile())):
        rows: dict[str, list[dict[str, float | None]]] = {}
        for seed in range(options.seeds):
            network = TorchGraph(made, generator=torch.Generator().manual_seed(seed))
            config = TrainConfig(epochs=15, batch_size=32, learning_rate=0.1, seed=seed)
            train(network, data, config, split=data.train, compute=COMPUTE)
            graph, weights = without_batch_norm(made), folded_weights(network)
            for factor in factors:
                changed = unequal(graph, weights, float(factor), seed) if float(factor) > 1 else weights
                rows.setdefault(factor, []).append(
                    steps_of(Case(graph, changed, data, seed), trains=not options.without_training)
                )
        for factor, found in rows.items():
            tell(name, factor, found)


if __name__ == "__main__":
    main()
