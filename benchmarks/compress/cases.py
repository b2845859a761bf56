"""Cases to compress: a trained network, its space of widths, and how the result is trained and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import netlathe as nl
from benchmarks.compress.networks import example
from netlathe.archspace.files import write_whole
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.compress import WidthSpace, pruned, residual_blocks, width_space
from netlathe.compress.reconstruction import reconstructed
from netlathe.exporting import file_accuracy
from netlathe.training import Compute, ImageData, TrainConfig, restore_batch_norm, train, with_batch_norm
from netlathe.training.distillation import Teacher
from netlathe.training.images import ImageSplit, spread_over_classes

LEARNING_RATE, FROM_SCRATCH = 0.02, 0.1
REFIT_IMAGES, RESTORED_IMAGES = 512, 64


@dataclass(frozen=True)
class Case:
    """A trained network to be compressed."""

    name: str
    module: nn.Module
    data: ImageData
    """Few training images: what fine-tuning may see in an epoch; validation images for choices; all test images."""
    precision: str
    """Precision of its training: what is faster on this processor."""

    @cached_property
    def read(self) -> tuple[Graph, Weights]:
        """Its graph and weights, BatchNorm folded in."""
        return nl.read_weights(self.module, example())

    @cached_property
    def space(self) -> WidthSpace:
        """All widths in steps of 8 channels."""
        return width_space(self.read[0], self.name, leave_out=False)

    @cached_property
    def compute(self) -> Compute:
        """One thread: others use this machine as well."""
        return Compute(device="cpu", precision=self.precision, threads=1)  # type: ignore[arg-type]

    def refitted(self, keep: Mapping[str, Any], left_out: Sequence[int], seed: int) -> TorchGraph:
        """The network of the channels to keep, by the names of groups, without residual blocks of these numbers,
        refitted and ready to be trained as netlathe does."""
        graph, weights = self.read
        blocks = residual_blocks(graph)
        small, cut = pruned(self.space.coupled, weights, keep, [blocks[number] for number in left_out])
        images = few(self.data.train, REFIT_IMAGES, seed)
        found = reconstructed(
            self.space.coupled, weights, (small, cut), keep, images, images=len(images), seed=seed, compute=self.compute
        )
        network = TorchGraph(with_batch_norm(small, linear=True))
        load_weights(network, found)
        restore_batch_norm(network, few(images, RESTORED_IMAGES, seed), batch_size=32, compute=self.compute)
        return network

    def sliced(self, keep: Mapping[str, Any], seed: int) -> TorchGraph:
        """The network of the channels to keep, with their weights and statistics as they are."""
        graph, weights = self.read
        normed = TorchGraph(with_batch_norm(graph, linear=True))
        load_weights(normed, weights)
        restore_batch_norm(normed, few(self.data.train, RESTORED_IMAGES, seed), batch_size=32, compute=self.compute)
        small, cut = pruned(self.space.coupled, weights, keep)
        network = TorchGraph(with_batch_norm(small, linear=True))
        load_weights(network, cut)
        for field in ("weight", "bias", "running_mean", "running_var"):
            arrays: dict[str, Any] = {
                name: {"kernel": weights[name]["kernel"], "bias": getattr(norm, field).detach().numpy()}
                for name, norm in norms(normed)
            }
            kept = pruned(self.space.coupled, {**weights, **arrays}, keep)[1]
            for name, norm in norms(network):
                getattr(norm, field).data.copy_(torch.from_numpy(kept[name]["bias"]))
        return network

    def from_scratch(self, keep: Mapping[str, Any], seed: int) -> TorchGraph:
        """The network of so many channels with random weights."""
        small = self.space.coupled, self.read[1], keep
        return TorchGraph(
            with_batch_norm(pruned(*small)[0], linear=True), generator=torch.Generator().manual_seed(seed)
        )

    def trained(self, network: TorchGraph, epochs: int, seed: int, learning_rate: float = LEARNING_RATE) -> TorchGraph:
        """The network after the training that all methods get: the original is its teacher."""
        config = TrainConfig(epochs=epochs, learning_rate=learning_rate, label_smoothing=0.0, seed=seed)
        teacher = Teacher(self.module, 0.5, 4.0)
        with self.compute.threaded():
            train(network, self.data, config, compute=self.compute, split=self.data.train, teacher=teacher)
        return network.eval()

    def accuracy(self, network: TorchGraph, path: Path) -> float:
        """Share of the test images that the network's .tflite file classifies right; the file is written to `path`."""
        write_whole(path, write_tflite(network.graph, folded_weights(network)))
        return file_accuracy(path, self.data.test, threads=1)

    def accuracy_of_original(self, path: Path) -> float:
        """The same of the network as it is."""
        write_whole(path, write_tflite(*self.read))
        return file_accuracy(path, self.data.test, threads=1)


def norms(network: TorchGraph) -> list[tuple[str, Any]]:
    """The BatchNorm of each convolution, by the name of its node."""
    return [(name, layer[1]) for name, layer in network.layers.items() if isinstance(layer, nn.Sequential)]


def few(split: ImageSplit, count: int, seed: int) -> ImageSplit:
    """So many images of a split, every class alike."""
    return split.take(torch.from_numpy(spread_over_classes(split.labels.numpy(), count, seed)))
