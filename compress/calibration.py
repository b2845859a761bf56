"""Calibration of a network's int8 file on images: ranges of values, biases that undo what rounding shifts, and the
sizes of channels that a training with rounding goes by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver

from netlathe.archspace.forms.tflite_int8 import Range
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Conv2d, FullyConnected
from netlathe.archspace.precisions import unmixed
from netlathe.compress.int8_network import HIGH, LOW, GradientScales, Int8Network
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, spread_over_classes
from netlathe.training.norms import without_batch_norm
from netlathe.training.stream import chunks

BATCH = 64
MOST_BYTES = 1 << 29
"""Bytes of activations alive at once."""
LEAST_SIZE = 1e-3
"""Least size of a channel, in parts of the largest one beside it."""


class _Observed(Int8Network):
    """The network in float32, whose values are watched where the file rounds them."""

    def __init__(self, graph: Graph, weights: Weights, ranges: Mapping[str, Range]) -> None:
        super().__init__(graph, weights, ranges)
        self.observers: dict[int, Any] = {}

    def rounded(self, x: Tensor, scale: int) -> Tensor:
        if scale not in self.observers:
            self.observers[scale] = HistogramObserver(dtype=torch.qint8, quant_min=LOW, quant_max=HIGH)
        self.observers[scale](x.detach().float().cpu())
        return x

    def _rounded_weights(self, name: str) -> dict[str, Tensor]:
        return {}


@torch.no_grad()
def least_error_ranges(
    graph: Graph,
    weights: Weights,
    ranges: Mapping[str, Range],
    split: ImageSplit,
    *,
    compute: Compute | None = None,
) -> dict[str, Range]:
    """Ranges for write_tflite by which rounding all values on these images to int8 errs least, in squares: what lies
    outside of one is cut off, so that the rest has finer steps. They are found on a histogram of each tensor that the
    file has a scale of (torch's HistogramObserver).

    `graph` and `ranges` are those of Int8Network. Raises DataError for an image that cannot be read.
    """
    compute = compute or Compute()
    network = _Observed(graph, weights, ranges)
    with compute.visiting(network):
        for images, labels in chunks(split, BATCH, workers=compute.workers):
            network(compute.put(split.normalization(images), labels)[0])
    found = dict(ranges)
    for number, observer in network.observers.items():
        scale, zero_point = observer.calculate_qparams()
        found |= network.ranges_of(number, float(scale), int(zero_point))
    return found


@torch.no_grad()
def corrected_biases(
    graph: Graph,
    weights: Weights,
    ranges: Mapping[str, Range],
    split: ImageSplit,
    *,
    seed: int = 0,
    compute: Compute | None = None,
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The weights with biases by which each channel of each rounded layer has the mean that it has in float32.

    From the input on: what rounding shifts a channel's mean by, on images, is taken from its bias, before the layers
    behind it are looked at (Nagel et al., arXiv:1906.04721, section 4.2 and appendix D). `graph` and `ranges` are those
    of Int8Network; as many images are seen, every class alike, as have their activations in half a gigabyte. Raises
    DataError for an image that cannot be read.
    """
    compute = compute or Compute()
    plain = without_batch_norm(unmixed(graph))
    exact, network = _loaded(plain, weights), Int8Network(graph, weights, ranges)
    x = _images(plain, split, seed, compute)
    there: dict[int, Any] = {0: x}
    here: dict[int, Any] = {0: x}
    with compute.visiting(exact), compute.visiting(network):
        for number, node in enumerate(plain.nodes):
            exact.compute(number, there)
            if isinstance(node.op, Conv2d | FullyConnected):
                result = plain.results[number][0]
                apart = {tensor: here[tensor] for tensor in node.inputs}
                network.compute(number, apart)
                shift = _channel_means(apart[result]) - _channel_means(there[result])
                layer: Any = network.layers[node.name]
                layer.bias -= shift
            network.compute(number, here)
    return folded_weights(network)


@torch.no_grad()
def gradient_scales(
    graph: Graph, weights: Weights, split: ImageSplit, *, seed: int = 0, compute: Compute | None = None
) -> dict[str, GradientScales]:
    """Factors for the gradients of each convolution's and fully connected layer's weights, by which gradient descent
    does not depend on how large channels happen to be.

    A weight that a channel i with the root mean square x_i is multiplied by, for a result of the standard deviation
    y_o, is taken in the unit y_o / (x_i sqrt(k)), k the weights of a result; and a bias in the unit y_o. In other units
    the gradient goes with the square of the unit. BatchNorm does so for a training, until it is folded in: by plain
    gradient descent, weights that read a large channel then step so far that a network with channels of unlike sizes is
    destroyed within an epoch (docs/results.md). Sizes are those on images of `split`, as in corrected_biases.
    """
    compute = compute or Compute()
    plain = without_batch_norm(unmixed(graph))
    network = _loaded(plain, weights)
    tensors = {0: _images(plain, split, seed, compute)}
    found = {}
    with compute.visiting(network):
        for number, node in enumerate(plain.nodes):
            taken = None
            if isinstance(node.op, Conv2d | FullyConnected):
                taken = _sizes(tensors[node.inputs[0]], torch.zeros(()))
            network.compute(number, tensors)
            if taken is not None:
                result = tensors[plain.results[number][0]]
                made = _sizes(result, _channel_means(result))
                shape = plain.nodes[number].op.stored_shapes(plain.shapes[node.inputs[0]])["kernel"]
                groups = node.op.groups if isinstance(node.op, Conv2d) else 1
                read = taken.reshape(groups, shape[1]).repeat_interleave(shape[0] // groups, 0)
                units = (made[:, None] / read) ** 2 / math.prod(shape[1:])
                units = units.reshape(*units.shape, *(1,) * (len(shape) - 2))
                found[node.name] = GradientScales(units.float().cpu().numpy(), (made**2).float().cpu().numpy())
    return found


def _sizes(x: Tensor, mean: Tensor) -> Tensor:
    """Root mean square of each channel about `mean`, in float64; of one that hardly varies, a small part of the
    largest."""
    last = x.movedim(1, -1) if x.dim() == 4 else x
    found = (last.double() - mean.to(x.device)).square().flatten(0, -2).mean(0).sqrt()
    return found.clamp(min=max(LEAST_SIZE * float(found.max()), torch.finfo(torch.float32).tiny))


def _loaded(plain: Graph, weights: Weights) -> TorchGraph:
    network = TorchGraph(plain).eval()
    load_weights(network, weights)
    return network


def _images(plain: Graph, split: ImageSplit, seed: int, compute: Compute) -> Tensor:
    """As many images as have their activations in half a gigabyte, every class alike."""
    count = max(1, min(len(split), MOST_BYTES // plain.peak_activation_bytes(4)))
    index = torch.from_numpy(spread_over_classes(split.labels.numpy(), count, seed))
    return compute.put(split.normalization(split.load(index)), split.labels[index])[0]


def _channel_means(x: Tensor) -> Tensor:
    """(N, C, H, W) or (..., C) -> (C,)."""
    return x.double().mean((0, 2, 3) if x.dim() == 4 else tuple(range(x.dim() - 1))).float()
