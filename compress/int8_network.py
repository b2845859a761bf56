"""A network that rounds in float32 as its int8 .tflite file does in integers, and learns with that rounding in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from netlathe.archspace.forms.tflite import tflite_scales
from netlathe.archspace.forms.tflite_int8 import Range
from netlathe.archspace.forms.torch import CroppedConvTranspose, Slopes, TorchGraph, load_weights
from netlathe.archspace.forms.weights import FloatArray, Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.ops import FullyConnected
from netlathe.archspace.precisions import Precision, is_mixed, precisions_of, unmixed
from netlathe.training.norms import without_batch_norm

LOW, HIGH = -128, 127
_MOST = 1 << 30
"""Most that a bias may be as an integer (forms/tflite_int8.py)."""
_BIAS_LOW, _BIAS_HIGH = -(1 << 31), (1 << 31) - 1
_LEAST_SCALE = 1e-30


@dataclass(frozen=True)
class GradientScales:
    """Factors of a layer's gradients: those of the kernel (out, in / groups, ...) and of the bias (out,)."""

    kernel: FloatArray
    bias: FloatArray


class Int8Network(TorchGraph):
    """A network whose weights, biases and values are rounded where its int8 file rounds them, by the same scales.

    Kernels have a symmetric scale per output channel (a fully connected layer: one), which follows the weights; biases
    that of the products; values a scale and a zero point each, shared where the file shares them. The logarithms of how
    much these scales grow, `log_gains`, are trained together with the weights, but for the inputs'; zero points stay.
    Gradients pass rounding as if it were not there, and end where a value is cut off (Jacob et al., arXiv:1712.05877);
    that of a scale is the one of Esser et al., arXiv:1902.08153. What the file computes inside of one op of the graph
    in several ops, as hard_sigmoid's product, is rounded at its end alone, and sums of products are not.

    `graph` is a float32 network, which stands for its file of dtype int8, or one of several precisions, as mixed()
    gives it: parts in float32 and float16 are not rounded, of parts with int8 weights, these are. BatchNorm is folded
    into `weights`. `ranges` are those of tflite_ranges. It is always in eval mode. Raises FormatError as write_tflite
    does.
    """

    def __init__(self, graph: Graph, weights: Weights, ranges: Mapping[str, Range]) -> None:
        plain = without_batch_norm(unmixed(graph))
        super().__init__(plain)
        load_weights(self, weights)
        found = tflite_scales(graph, weights, ranges)
        whole = dict.fromkeys((node.name for node in plain.nodes), Precision.INT8)
        self._precisions = precisions_of(graph) if is_mixed(graph) else whole
        self._shared = list({id(one): one for one in found.values()}.values())
        numbers = {id(one): number for number, one in enumerate(self._shared)}
        self._places = _places(graph, plain, {tensor: numbers[id(one)] for tensor, one in found.items()})
        self._kernel_axes = {name: _channel_axis(layer) for name, layer in self.layers.items()}
        self._whole = {node.name for node in plain.nodes if isinstance(node.op, FullyConnected)}
        self._inputs = {self._places.scales[t] for t in range(len(plain.inputs)) if t in self._places.scales}
        self.register_buffer("scales", torch.tensor([one.scale for one in self._shared]))
        self.register_buffer("zero_points", torch.tensor([float(one.zero_point) for one in self._shared]))
        self.log_gains = nn.Parameter(torch.zeros(len(self._shared)))
        self.eval()

    scales: Tensor
    zero_points: Tensor

    def train(self, mode: bool = True) -> Int8Network:
        """Stays in eval mode: normalisations have been folded in, or are those of the file."""
        return super().train(False)

    def train_layers(self, scales: Mapping[str, GradientScales]) -> None:
        """Has these layers and the scales of values trained, by gradients that are multiplied so, and nothing else."""
        for name, layer in self.layers.items():
            layer.requires_grad_(name in scales)
        for name, found in scales.items():
            _scale_gradient(self.layers[name].weight, found.kernel)
            _scale_gradient(self.layers[name].bias, found.bias)

    def ranges(self) -> dict[str, Range]:
        """The ranges that make write_tflite find the scales that have been trained, by the names of the file's
        tensors."""
        found: dict[str, Range] = {}
        for number, shared in enumerate(self._shared):
            found |= self.ranges_of(number, float(self._scale(number).detach()), shared.zero_point)
        return found

    def ranges_of(self, number: int, scale: float, zero_point: int) -> dict[str, Range]:
        """The ranges of the tensors that share the scale of that number, for another one; none where an op fixes it."""
        shared = self._shared[number]
        ends = ((LOW - zero_point) * scale, (HIGH - zero_point) * scale)
        return {} if shared.is_fixed else dict.fromkeys(shared.names, ends)

    def compute(self, index: int, tensors: dict[int, Any]) -> None:
        """The node's work, on values as the file has them there, and its results rounded."""
        read, made = self._places.read.get(index, {}), self._places.made.get(index, {})
        real = {tensor: tensors[tensor] for tensor in read}
        tensors.update({tensor: self.rounded(tensors[tensor], scale) for tensor, scale in read.items()})
        super().compute(index, tensors)
        tensors.update({tensor: value for tensor, value in real.items() if tensor in tensors})
        tensors.update({tensor: self.rounded(tensors[tensor], scale) for tensor, scale in made.items()})

    def rounded(self, x: Tensor, scale: int) -> Tensor:
        """Values as integers of the shared scale of that number have them."""
        by, zero_point = self._scale(scale), self.zero_points[scale : scale + 1]
        if scale in self._inputs:  # all pixels may lie half-way between two steps: as who runs the file rounds them
            return ((x / by).round() + zero_point).clamp(LOW, HIGH).sub(zero_point).mul(by)
        return torch._fake_quantize_learnable_per_tensor_affine(x, by, zero_point, LOW, HIGH, 1.0)

    def _scale(self, number: int) -> Tensor:
        """A shared scale (1,)."""
        start = self.scales[number : number + 1]
        is_trained = not self._shared[number].is_fixed and number not in self._inputs
        return start * self.log_gains[number : number + 1].exp() if is_trained else start

    def run_layer(self, name: str, value: Any) -> Any:
        """Result of the layer of that name, its weights rounded."""
        weights = self._rounded_weights(name)
        return functional_call(self.layers[name], weights, (value,)) if weights else super().run_layer(name, value)

    def _rounded_weights(self, name: str) -> dict[str, Tensor]:
        """The parameters of a layer that the file has in integers."""
        layer, precision, axis = self.layers[name], self._precisions[name], self._kernel_axes[name]
        if isinstance(layer, Slopes) and precision is Precision.INT8:
            return {"slopes": _rounded_slopes(layer.slopes)}
        if axis is None or precision not in (Precision.INT8, Precision.INT8_WEIGHTS):
            return {}
        kernel, bias = layer.weight, layer.bias
        assert isinstance(kernel, Tensor)
        assert isinstance(bias, Tensor)
        largest = kernel.detach().abs().amax([a for a in range(kernel.dim()) if a != axis])
        if precision is Precision.INT8_WEIGHTS:
            return {"weight": _rounded_channels(kernel, (largest / HIGH).clamp(min=_LEAST_SCALE), axis)}
        before, after = (self._scale(number).detach() for number in self._places.layers[name])
        scales = torch.maximum(largest / HIGH, torch.maximum(bias.detach().abs() / _MOST, after / _MOST) / before)
        if name in self._whole:
            scales = scales.max().expand(len(scales))
        of_bias = torch.fake_quantize_per_channel_affine(
            bias, scales * before, _zeros(scales), 0, _BIAS_LOW, _BIAS_HIGH
        )
        return {"weight": _rounded_channels(kernel, scales, axis), "bias": of_bias}


def _scale_gradient(parameter: Any, factors: FloatArray) -> None:
    by = torch.from_numpy(factors)
    parameter.register_hook(lambda gradient: gradient * by.to(gradient))


def _rounded_channels(kernel: Tensor, scales: Tensor, axis: int) -> Tensor:
    return torch.fake_quantize_per_channel_affine(kernel, scales, _zeros(scales), axis, LOW, HIGH)


def _zeros(scales: Tensor) -> Tensor:
    return torch.zeros_like(scales, dtype=torch.int32)


def _rounded_slopes(slopes: Tensor) -> Tensor:
    """Slopes in 256 steps over their range, widened to include 0."""
    low, high = slopes.detach().min().clamp(max=0), slopes.detach().max().clamp(min=0)
    scale = ((high - low) / (HIGH - LOW)).clamp(min=_LEAST_SCALE)
    zero_point = torch.round(LOW - low / scale).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(slopes, scale, zero_point, LOW, HIGH)


def _channel_axis(layer: nn.Module) -> int | None:
    """Axis of the output channels of a layer's kernel; None without one."""
    if isinstance(layer, CroppedConvTranspose):
        return 1
    return 0 if isinstance(layer, nn.Conv2d | nn.Linear) else None


@dataclass(frozen=True)
class _Places:
    """Where values are rounded, by node's index, tensor and number of a scale."""

    read: Mapping[int, Mapping[int, int]]
    """Real values that a node takes as integers."""
    made: Mapping[int, Mapping[int, int]]
    """Its results that are integers."""
    layers: Mapping[str, tuple[int, int]]
    """Scales of what a layer takes and gives, by name."""
    scales: Mapping[int, int]
    """The scale that a tensor has as integers."""


def _places(graph: Graph, plain: Graph, scales: Mapping[int, int]) -> _Places:
    """Where the float32 graph `plain` is rounded to do as `graph` does, whose tensors have these scales."""
    nodes = {node.name: place for place, node in enumerate(graph.nodes)}
    applying = clamped_nodes(plain).keys() | gated_layers(plain).keys()  # these hand on no values of their own
    read: dict[int, dict[int, int]] = {}
    made: dict[int, dict[int, int]] = {}
    layers: dict[str, tuple[int, int]] = {}
    integers: set[int] = set()
    numbers: dict[int, int] = {}
    for index, node in enumerate(plain.nodes):
        place = nodes[node.name]
        taken, results = graph.nodes[place].inputs, graph.results[place]
        own = {t: scales[there] for t, there in zip(plain.results[index], results, strict=True) if there in scales}
        if not own:
            continue
        pairs = zip(node.inputs, taken, strict=True)
        read[index] = {t: scales[there] for t, there in pairs if there in scales and t not in integers}
        made[index] = {} if index in applying else own
        integers.update(own)
        numbers |= own | read[index]
        if taken and taken[0] in scales:
            layers[node.name] = scales[taken[0]], next(iter(own.values()))
    return _Places(read, made, layers, numbers)
