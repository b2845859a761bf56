"""Graph -> torch module: NCHW inside, trainable, the same arithmetic as the exported files."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlathe.archspace import ops
from netlathe.archspace.errors import GraphError
from netlathe.archspace.forms.structure import BORDER_SCALE, check_writable, nchw, nchw_axis, nchw_perm
from netlathe.archspace.forms.weights import FloatArray, StoredArrays, Weights, check_weights, transposed, untransposed
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Borders, borders_of, clamped_nodes, is_symmetric, padded_convolutions
from netlathe.archspace.ops import (
    HARD_SLOPE,
    ActivationKind,
    Interpolation,
    PadMode,
    Pair,
    ReduceKind,
    Shape,
    UnaryKind,
)

_ACTIVATIONS: dict[ActivationKind, Callable[..., Tensor]] = {
    ActivationKind.RELU: F.relu,
    ActivationKind.RELU6: F.relu6,
    ActivationKind.HARD_SWISH: F.hardswish,
    ActivationKind.HARD_SIGMOID: F.hardsigmoid,
    ActivationKind.SIGMOID: torch.sigmoid,
    ActivationKind.SWISH: F.silu,
}


@dataclass(frozen=True)
class _Step:
    """The work of one node: `function` on its inputs, then its layer. `frees` are the tensors no later step needs.

    Layers go by name, and functions hold no module, so that a copied or converted module runs its own layers.
    """

    inputs: tuple[int, ...]
    results: range
    frees: tuple[int, ...]
    function: Callable[..., Any] | None
    layer: str | None


class TorchGraph(nn.Module):
    """A graph as a module: images (N, C, H, W) -> (N, C, H, W), or (N, C) after the head. The batch is free.

    `layers` holds the trainable layers by node name: a convolution with BatchNorm is a Sequential of `conv` and
    `bn`. Padding follows the graph, TensorFlow's rule where it says SAME. New weights are drawn from `generator`
    (torch's global one by default): convolutions from N(0, 2 / fan-out), BatchNorm 1 and 0, linear N(0, 0.01²).
    """

    def __init__(self, graph: Graph, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_writable(graph, "a torch form")
        self.graph = graph
        self._shapes = tuple(nchw(shape)[1:] for shape in graph.inputs)
        self._steps, layers = _plan(graph)
        self.layers = nn.ModuleDict(layers)
        for layer in self.layers.values():
            _initialize(layer, generator)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's result on its inputs, usually one; several outputs as a tuple. Raises GraphError where
        the shapes are not the graph's."""
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if not tracing and tuple(tuple(x.shape[1:]) for x in inputs) != self._shapes:
            found = ", ".join(str(tuple(x.shape)) for x in inputs)
            raise GraphError(f"the module is built for {self._shapes} after the batch, got {found} with it")
        tensors: dict[int, Tensor] = dict(enumerate(inputs))
        for index in range(len(self._steps)):
            self.compute(index, tensors)
        outputs = tuple([tensors[t] for t in self.graph.outputs])
        return outputs if len(outputs) > 1 else outputs[0]

    def compute(self, index: int, tensors: dict[int, Any]) -> None:
        """Adds the results of the graph's node of that index to its `tensors` by number, which hold all that it takes,
        and drops those that no later node takes. An activation may overwrite what it takes."""
        step = self._steps[index]
        taken = [tensors[t] for t in step.inputs]
        for tensor in step.frees:
            del tensors[tensor]
        value: Any = step.function(*taken) if step.function else taken[0] if taken else None
        del taken
        if step.layer:
            value = self.run_layer(step.layer, value)
        tensors.update(zip(step.results, value if len(step.results) > 1 else (value,), strict=True))

    def run_layer(self, name: str, value: Any) -> Any:
        """Result of the layer of that name."""
        return self.layers[name](value)

    def layer_input(self, index: int, tensors: Mapping[int, Any]) -> Any:
        """Input of the layer of the node of that index, padded where the graph pads and the layer does not."""
        step = self._steps[index]
        taken = [tensors[t] for t in step.inputs]
        return step.function(*taken) if step.function else taken[0]


class StoredTensor(nn.Module):
    """Values of a model that are no layer's weights, (N, C, H, W) where they are an image's; trainable where real."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        values = torch.zeros(nchw(shape), dtype=dtype)
        self.values = nn.Parameter(values, requires_grad=dtype.is_floating_point)

    def forward(self, _: None = None) -> Tensor:
        """The values, whatever is given."""
        return self.values


class PlainLinear(nn.Linear):
    """A fully connected layer over an image's channels."""

    def forward(self, input: Tensor) -> Tensor:
        """The result for each pixel."""
        return _native(super().forward(_plain(input)))


class ChannelNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of a tensor of any rank, whose channels are last but in an image."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The normalised tensor."""
        axis = channel_axis(self, x)
        return super().forward(x.movedim(axis, 1)).movedim(1, axis)


def channel_axis(norm: nn.Module, x: Tensor) -> int:
    """The axis of the channels of what a BatchNorm normalises."""
    return -1 if isinstance(norm, ChannelNorm) and x.dim() not in (2, 4) else 1


class PlainLayerNorm(nn.LayerNorm):
    """LayerNorm over the last axes that a tensor has in the graph."""

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor."""
        return _native(super().forward(_plain(input)))


class PlainGroupNorm(nn.GroupNorm):
    """GroupNorm of a tensor of any rank, whose channels are last but in an image."""

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor."""
        if input.dim() == 4:
            return super().forward(input)
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class CroppedConvTranspose(nn.ConvTranspose2d):
    """A transposed convolution of which (before, after) pixels along height and width are cut off; negative ones are
    added, with the bias alone in them."""

    def __init__(self, op: ops.TransposeConv2d, channels: int) -> None:
        super().__init__(channels, op.out_channels, op.kernel, op.stride, groups=op.groups)
        self.cuts = (-op.width[0], -op.width[1], -op.height[0], -op.height[1])

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The result of its own size."""
        y = F.conv_transpose2d(input, self.weight, None, self.stride, groups=self.groups)
        assert self.bias is not None
        return F.pad(y, self.cuts) + self.bias.reshape(-1, 1, 1)


class Slopes(nn.Module):
    """PReLU with slopes of any shape that the input's broadcasts, in the graph's order of axes."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.full(shape, 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """The rectified tensor."""
        x = _plain(x)
        return _native(torch.where(x < 0, x * self.slopes, x))


def folded_weights(module: TorchGraph) -> dict[str, dict[str, FloatArray]]:
    """The layers' weights with BatchNorm's running statistics folded in (in float64, then float32), by node name."""
    return {name: _stored(layer) for name, layer in module.layers.items()}


@singledispatch
def _stored(layer: nn.Module) -> dict[str, FloatArray]:
    """Arrays that a layer stores, by the names that its op gives."""
    raise GraphError(f"the weights of {type(layer).__name__} cannot be read")


@_stored.register
def _stored_layer(layer: nn.Conv2d | nn.Linear) -> dict[str, FloatArray]:
    kernel, bias = _kernel_and_bias(layer)
    return {"kernel": kernel.float().numpy(), "bias": bias.float().numpy()}


@_stored.register
def _stored_transposed(layer: CroppedConvTranspose) -> dict[str, FloatArray]:
    assert layer.bias is not None
    kernel = untransposed(layer.weight.detach().cpu().numpy(), layer.groups)
    return {"kernel": kernel, "bias": layer.bias.detach().cpu().numpy()}


@_stored.register
def _stored_slopes(layer: Slopes) -> dict[str, FloatArray]:
    return {"slopes": layer.slopes.detach().cpu().numpy()}


@_stored.register
def _stored_with_norm(layer: nn.Sequential) -> dict[str, FloatArray]:
    kernel, bias = _kernel_and_bias(layer[0])
    mean, variance, gamma, beta = _statistics(layer[1])
    scale = gamma / torch.sqrt(variance + layer[1].eps)  # type: ignore[operator]
    kernel, bias = kernel * scale.reshape(-1, 1, 1, 1), beta + (bias - mean) * scale
    return {"kernel": kernel.float().numpy(), "bias": bias.float().numpy()}


def _kernel_and_bias(layer: Any) -> tuple[Tensor, Tensor]:
    """In float64, on the CPU."""
    kernel = layer.weight.detach().double().cpu()
    bias = torch.zeros(len(kernel), dtype=torch.float64) if layer.bias is None else layer.bias.detach().double().cpu()
    return kernel, bias


@_stored.register
def _stored_channel_norm(layer: ChannelNorm) -> dict[str, FloatArray]:
    mean, variance, gamma, beta = _statistics(layer)
    scale = gamma / torch.sqrt(variance + layer.eps)
    return {"scale": scale.float().numpy(), "bias": (beta - mean * scale).float().numpy()}


def _statistics(norm: Any) -> tuple[Tensor, ...]:
    """A BatchNorm's mean, variance, scale and offset, in float64 on the CPU."""
    found = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return tuple(t.detach().double().cpu() for t in found)


@_stored.register
def _stored_norm(layer: nn.LayerNorm | nn.GroupNorm) -> dict[str, FloatArray]:
    if layer.weight is None:
        return {}
    return {"scale": layer.weight.detach().cpu().numpy(), "bias": layer.bias.detach().cpu().numpy()}


@_stored.register
def _stored_tensor(layer: StoredTensor) -> dict[str, FloatArray]:
    values = layer.values.detach().cpu()
    return {"values": (values.permute(0, 2, 3, 1) if values.dim() == 4 else values).contiguous().numpy()}


@torch.no_grad()
def load_weights(module: TorchGraph, weights: Weights) -> None:
    """Fills the layers with weights as folded_weights gives them: in eval mode the module computes what a file of them
    does. A BatchNorm then scales by 1 and adds the bias, with statistics that say nothing of images;
    training.restore_batch_norm finds those. Raises FormatError where check_weights does."""
    check_weights(module.graph, weights)
    for name, layer in module.layers.items():
        if name in weights:  # a normalisation may store nothing
            _load(layer, weights[name])


def _put(parameter: Tensor | None, values: Any) -> None:
    assert parameter is not None
    parameter.copy_(torch.from_numpy(np.array(values)))  # a copy: arrays may be read-only


@singledispatch
def _load(layer: nn.Module, arrays: StoredArrays) -> None:
    """Fills a layer with arrays by the names that its op gives them."""
    raise GraphError(f"the weights of {type(layer).__name__} cannot be set")


@_load.register
def _load_layer(layer: nn.Conv2d | nn.Linear, arrays: StoredArrays) -> None:
    _put(layer.weight, arrays["kernel"])
    _put(layer.bias, arrays["bias"])


@_load.register
def _load_transposed(layer: CroppedConvTranspose, arrays: StoredArrays) -> None:
    _put(layer.weight, transposed(arrays["kernel"], layer.groups))
    _put(layer.bias, arrays["bias"])


@_load.register
def _load_slopes(layer: Slopes, arrays: StoredArrays) -> None:
    _put(layer.slopes, arrays["slopes"])


@_load.register
def _load_with_norm(layer: nn.Sequential, arrays: StoredArrays) -> None:
    conv: Any = layer[0]
    _put(conv.weight, arrays["kernel"])
    _load_affine(layer[1], np.ones(len(arrays["bias"])), arrays["bias"])


@_load.register
def _load_channel_norm(layer: ChannelNorm, arrays: StoredArrays) -> None:
    _load_affine(layer, arrays["scale"], arrays["bias"])


def _load_affine(norm: Any, scale: Any, bias: Any) -> None:
    """Has a BatchNorm multiply by a scale and add a bias in eval mode, with statistics that change nothing."""
    norm.reset_running_stats()
    _put(norm.weight, np.asarray(scale, np.float64) * math.sqrt(1 + norm.eps))
    _put(norm.bias, bias)


@_load.register
def _load_norm(layer: nn.LayerNorm | nn.GroupNorm, arrays: StoredArrays) -> None:
    _put(layer.weight, arrays["scale"])
    _put(layer.bias, arrays["bias"])


@_load.register
def _load_tensor(layer: StoredTensor, arrays: StoredArrays) -> None:
    values = arrays["values"]
    _put(layer.values, values.transpose(0, 3, 1, 2) if values.ndim == 4 else values)


def _initialize(layer: nn.Module, generator: torch.Generator | None) -> None:
    for module in layer.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, StoredTensor) and module.values.requires_grad:
            nn.init.normal_(module.values, generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _plan(graph: Graph) -> tuple[tuple[_Step, ...], dict[str, nn.Module]]:
    """The steps that compute the graph, one per node, and the layers that they need."""
    pads = {conv: pad for conv, pad in padded_convolutions(graph).items() if is_symmetric(borders_of(graph, pad))}
    padded, clamps = set(pads.values()), set(clamped_nodes(graph).values())
    last_use = {tensor: index for index, node in enumerate(graph.nodes) for tensor in node.inputs}
    last_use |= dict.fromkeys(graph.outputs, len(graph.nodes))
    steps: list[_Step] = []
    layers: dict[str, nn.Module] = {}
    for index, (node, shapes, results) in enumerate(graph.steps()):
        frees = tuple(t for t in dict.fromkeys(node.inputs) if last_use[t] == index)
        function, layer = None, None
        if index not in padded:  # those are done by the convolution behind
            borders = borders_of(graph, pads.get(index, index))
            function, layer = _build(node.op, _Place(shapes, results, borders, index in clamps))
        if layer is not None:
            layers[node.name] = layer
        steps.append(
            _Step(node.inputs, graph.results[index], frees, function, node.name if layer is not None else None)
        )
    return tuple(steps), layers


@dataclass(frozen=True)
class _Place:
    """Surroundings of an op: its shapes (NHWC), its borders, and whether it may overwrite its input, which spares
    training one tensor in three."""

    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]
    borders: Borders
    in_place: bool

    @property
    def shape(self) -> Shape:
        """Shape of the first result."""
        return self.results[0]

    @property
    def channel_axis(self) -> int:
        """Channel axis of the result in torch's layout."""
        return nchw_axis(-1, len(self.shape))


def _pad(x: Tensor, borders: Borders, value: float = 0.0) -> Tensor:
    (top, bottom), (left, right) = borders
    return F.pad(x, (left, right, top, bottom), value=value)


_Built = tuple[Callable[..., Any] | None, nn.Module | None]


@singledispatch
def _build(op: ops.Op, place: _Place) -> _Built:
    """The function and the layer that compute an op, in this order; either may be missing."""
    raise GraphError(f"the op {op.name!r} has no torch form")


@_build.register
def _build_conv(op: ops.Conv2d, place: _Place) -> _Built:
    symmetric = is_symmetric(place.borders)
    conv = nn.Conv2d(
        place.shapes[0][3], op.out_channels, op.kernel, op.stride, groups=op.groups, bias=not op.batch_norm,
        padding=(place.borders[0][0], place.borders[1][0]) if symmetric else 0, dilation=op.dilation,
    )  # fmt: skip
    function = None if symmetric else partial(_pad, borders=place.borders)
    if not op.batch_norm:
        return function, conv
    return function, nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(op.out_channels)))


@_build.register
def _build_fully_connected(op: ops.FullyConnected, place: _Place) -> _Built:
    features, rank = place.shapes[0][-1], len(place.shape)
    return None, (PlainLinear if rank == 4 else nn.Linear)(features, op.out_features)


@_build.register
def _build_pool(op: ops.Pool2d, place: _Place) -> _Built:
    pool = _average_pool if op.mode == "avg" else _max_pool
    return partial(pool, kernel=op.kernel, stride=op.stride, borders=place.borders), None


def _average_pool(x: Tensor, kernel: Pair, stride: Pair, borders: Borders) -> Tensor:
    if is_symmetric(borders):
        return F.avg_pool2d(x, kernel, stride, (borders[0][0], borders[1][0]), count_include_pad=False)
    exists = _pad(x.new_ones((1, 1, *x.shape[2:])), borders)
    return F.avg_pool2d(_pad(x, borders), kernel, stride) / F.avg_pool2d(exists, kernel, stride)


def _max_pool(x: Tensor, kernel: Pair, stride: Pair, borders: Borders) -> Tensor:
    if is_symmetric(borders):
        return F.max_pool2d(x, kernel, stride, (borders[0][0], borders[1][0]))
    return F.max_pool2d(_pad(x, borders, -math.inf), kernel, stride)


@_build.register
def _build_global_avg_pool(op: ops.GlobalAvgPool, place: _Place) -> _Built:
    return partial(torch.mean, dim=(2, 3), keepdim=op.keep_dims), None


@_build.register
def _build_pad(op: ops.Pad, place: _Place) -> _Built:
    return partial(_pad, borders=place.borders), None


@_build.register
def _build_activation(op: ops.Activation, place: _Place) -> _Built:
    if op.slope != HARD_SLOPE:
        return partial(_hard_sigmoid, slope=op.slope), None
    function = _ACTIVATIONS[op.function]
    return (partial(function, inplace=True) if place.in_place else function), None


def _hard_sigmoid(x: Tensor, slope: float) -> Tensor:
    return torch.clamp(x * slope + 0.5, 0, 1)


@_build.register
def _build_add(op: ops.Add, place: _Place) -> _Built:
    return _broadcasting(torch.add, place), None


@_build.register
def _build_mul(op: ops.Mul, place: _Place) -> _Built:
    return _broadcasting(torch.mul, place), None


def _broadcasting(function: Callable[[Tensor, Tensor], Tensor], place: _Place) -> Callable[[Tensor, Tensor], Tensor]:
    """The element-wise function, behind what gives its operands as many axes as its result has."""
    rank = len(place.shape)
    if all(len(shape) == rank for shape in place.shapes):
        return function
    return partial(_broadcast, function=function, rank=rank)


def _broadcast(a: Tensor, b: Tensor, function: Callable[[Tensor, Tensor], Tensor], rank: int) -> Tensor:
    return function(_widened(a, rank), _widened(b, rank))


def _widened(x: Tensor, rank: int) -> Tensor:
    """With axes of 1 in front, which in NCHW is in between."""
    if x.dim() == rank:
        return x
    x = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
    x = x.reshape((1,) * (rank - x.dim()) + tuple(x.shape))
    return x.permute(0, 3, 1, 2) if rank == 4 else x


@_build.register
def _build_concat(op: ops.Concat, place: _Place) -> _Built:
    return partial(_concat, axis=nchw_axis(op.axis, len(place.shape))), None


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


_BINARIES: dict[type[ops.Op], Callable[[Tensor, Tensor], Tensor]] = {
    ops.Sub: torch.sub, ops.Div: torch.div, ops.Minimum: torch.minimum, ops.Maximum: torch.maximum, ops.Pow: torch.pow,
}  # fmt: skip


@_build.register
def _build_binary(op: ops.Sub | ops.Div | ops.Minimum | ops.Maximum | ops.Pow, place: _Place) -> _Built:
    return _broadcasting(_BINARIES[type(op)], place), None


@_build.register
def _build_unary(op: ops.Unary, place: _Place) -> _Built:
    return F.softplus if op.function is UnaryKind.SOFTPLUS else getattr(torch, op.function), None


@_build.register
def _build_gelu(op: ops.Gelu, place: _Place) -> _Built:
    return partial(F.gelu, approximate="tanh" if op.approximate else "none"), None


@_build.register
def _build_clip(op: ops.Clip, place: _Place) -> _Built:
    return partial(torch.clamp, min=op.low, max=op.high), None


@_build.register
def _build_cast(op: ops.Cast, place: _Place) -> _Built:
    return partial(torch.Tensor.to, dtype=getattr(torch, op.dtype)), None


def _plain(x: Tensor) -> Tensor:
    """In the graph's order of axes."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _native(x: Tensor) -> Tensor:
    """In torch's order of axes, from the graph's."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def _in_plain(*tensors: Tensor, function: Callable[..., Tensor]) -> Tensor:
    return _native(function(*map(_plain, tensors)))


@_build.register
def _build_slice(op: ops.Slice, place: _Place) -> _Built:
    return partial(_in_plain, function=partial(_slice, op=op)), None


def _slice(x: Tensor, op: ops.Slice) -> Tensor:
    for axis, (begin, size) in enumerate(zip(op.begins, op.sizes, strict=True)):
        by = op.steps[axis] if op.steps else 1
        places = torch.arange(begin, begin + size * by, by, device=x.device)
        x = x.index_select(axis, places) if by != 1 else x.narrow(axis, begin, size)
    return x


@_build.register
def _build_transpose(op: ops.Transpose, place: _Place) -> _Built:
    return partial(torch.permute, dims=nchw_perm(op.perm)), None


@_build.register
def _build_gather(op: ops.Gather, place: _Place) -> _Built:
    return partial(_in_plain, function=partial(_gather, axis=op.axis % len(place.shapes[0]))), None


def _gather(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    taken = x.index_select(axis, indices.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@_build.register
def _build_tile(op: ops.Tile, place: _Place) -> _Built:
    return partial(torch.tile, dims=nchw(op.multiples)), None


@_build.register
def _build_depth_to_space(op: ops.DepthToSpace, place: _Place) -> _Built:
    if op.pixel_shuffle:
        return partial(F.pixel_shuffle, upscale_factor=op.block), None
    return partial(_depth_to_space, block=op.block), None


def _depth_to_space(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@_build.register
def _build_space_to_depth(op: ops.SpaceToDepth, place: _Place) -> _Built:
    return partial(_space_to_depth, block=op.block), None


def _space_to_depth(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@_build.register
def _build_matmul(op: ops.MatMul, place: _Place) -> _Built:
    return partial(_in_plain, function=partial(_matmul, op=op)), None


def _matmul(a: Tensor, b: Tensor, op: ops.MatMul) -> Tensor:
    return torch.matmul(a.mT if op.transpose_a else a, b.mT if op.transpose_b else b)


@_build.register
def _build_reduce(op: ops.Reduce, place: _Place) -> _Built:
    return partial(_in_plain, function=partial(_reduce, op=op)), None


def _reduce(x: Tensor, op: ops.Reduce) -> Tensor:
    axes = tuple(axis % x.dim() for axis in op.axes)
    if op.function is ReduceKind.PROD:
        for axis in sorted(axes, reverse=True):
            x = torch.prod(x, axis, keepdim=op.keep_dims)
    elif op.function in (ReduceKind.L1, ReduceKind.L2):
        x = torch.linalg.vector_norm(x, 1 if op.function is ReduceKind.L1 else 2, axes, keepdim=op.keep_dims)
    else:
        functions: dict[ReduceKind, Callable[..., Tensor]] = {
            ReduceKind.MEAN: torch.mean, ReduceKind.SUM: torch.sum, ReduceKind.MAX: torch.amax,
            ReduceKind.MIN: torch.amin,
        }  # fmt: skip
        x = functions[op.function](x, axes, keepdim=op.keep_dims)
    return x.reshape(1) if not x.dim() else x


@_build.register
def _build_batch_norm(op: ops.BatchNorm, place: _Place) -> _Built:
    return None, ChannelNorm(place.shape[-1])


@_build.register
def _build_layer_norm(op: ops.LayerNorm, place: _Place) -> _Built:
    return None, PlainLayerNorm(list(place.shape[-op.axes :]), op.epsilon, op.affine)


@_build.register
def _build_group_norm(op: ops.GroupNorm, place: _Place) -> _Built:
    return None, PlainGroupNorm(op.groups, place.shape[-1], op.epsilon)


@_build.register
def _build_local_response_norm(op: ops.LocalResponseNorm, place: _Place) -> _Built:
    return partial(F.local_response_norm, size=op.size, alpha=op.alpha, beta=op.beta, k=op.bias), None


@_build.register
def _build_split(op: ops.Split, place: _Place) -> _Built:
    axis = nchw_axis(op.axis, len(place.shapes[0]))
    return partial(torch.split, split_size_or_sections=list(op.sizes), dim=axis), None


@_build.register
def _build_constant(op: ops.Constant, place: _Place) -> _Built:
    return None, StoredTensor(op.shape, getattr(torch, op.dtype))


@_build.register
def _build_softmax(op: ops.Softmax, place: _Place) -> _Built:
    return partial(torch.softmax, dim=nchw_axis(op.axis, len(place.shape))), None


@_build.register
def _build_reshape(op: ops.Reshape, place: _Place) -> _Built:
    return partial(_reshape, shape=op.shape, whole=op.whole), None


def _reshape(x: Tensor, shape: Shape, whole: bool) -> Tensor:
    """Values keep their NHWC order, which is what the graph means."""
    return _native(_plain(x).reshape(shape if whole else (x.shape[0], *shape)))


@_build.register
def _build_zeros(op: ops.Zeros, place: _Place) -> _Built:
    return partial(_zeros, shape=nchw(place.shape)[1:]), None


def _zeros(x: Tensor, shape: Shape) -> Tensor:
    return x.new_zeros((x.shape[0], *shape))


@_build.register
def _build_resize(op: ops.Resize, place: _Place) -> _Built:
    return partial(_resize, op=op), None


def _resize(x: Tensor, op: ops.Resize) -> Tensor:
    """Along height, then along width."""
    for axis, size in zip((2, 3), op.size, strict=True):
        below, above, share = _sampled(x.shape[axis], size, op)
        low = x.index_select(axis, below.to(x.device))
        if op.mode is Interpolation.BILINEAR:
            weight = share.to(x).reshape(-1, *(1,) * (3 - axis))
            low = low + (x.index_select(axis, above.to(x.device)) - low) * weight
        x = low
    return x


def _sampled(size: int, wanted: int, op: ops.Resize) -> tuple[Tensor, Tensor, Tensor]:
    """Sources of each pixel of the result along an axis: the pixels before and behind its place, and the latter's
    share."""
    scale = (size - 1) / (wanted - 1) if op.align_corners and wanted > 1 else size / wanted
    pixels = torch.arange(wanted, dtype=torch.float64)
    if op.mode is Interpolation.NEAREST:
        places = (pixels + 0.5) * scale if op.half_pixel else pixels * scale
        nearest = (places + 0.5 if op.align_corners else places).floor().long().clamp(0, size - 1)
        return nearest, nearest, places
    places = ((pixels + 0.5) * scale - 0.5 if op.half_pixel else pixels * scale).clamp(min=0)
    below = places.floor().long().clamp(max=size - 1)
    return below, (below + 1).clamp(max=size - 1), places - below


@_build.register
def _build_transpose_conv(op: ops.TransposeConv2d, place: _Place) -> _Built:
    return None, CroppedConvTranspose(op, place.shapes[0][3])


@_build.register
def _build_prelu(op: ops.PReLU, place: _Place) -> _Built:
    return None, Slopes(op.slopes)


@_build.register
def _build_leaky_relu(op: ops.LeakyReLU, place: _Place) -> _Built:
    return partial(F.leaky_relu, negative_slope=op.slope), None


@_build.register
def _build_elu(op: ops.ELU, place: _Place) -> _Built:
    return partial(F.elu, alpha=op.alpha), None


@_build.register
def _build_pad_axes(op: ops.PadAxes, place: _Place) -> _Built:
    return partial(_pad_axes, op=op), None


def _pad_axes(x: Tensor, op: ops.PadAxes) -> Tensor:
    x = _plain(x)
    if op.mode is PadMode.CONSTANT:
        return _native(F.pad(x, [n for pair in reversed(op.amounts) for n in pair], value=op.value))
    for axis, (before, after) in enumerate(op.amounts):
        x = x.index_select(axis, _border(x.shape[axis], before, after, op.mode).to(x.device))
    return _native(x)


def _border(size: int, before: int, after: int, mode: PadMode) -> Tensor:
    """Where each value along a padded axis comes from."""
    places = torch.arange(-before, size + after)
    if mode is PadMode.EDGE:
        return places.clamp(0, size - 1)
    shift = int(mode is PadMode.SYMMETRIC)
    places = torch.where(places < 0, -places - shift, places)
    return torch.where(places >= size, 2 * size - 2 + shift - places, places)


@_build.register
def _build_arg_max(op: ops.ArgMax, place: _Place) -> _Built:
    return partial(_in_plain, function=partial(_arg_max, op=op)), None


def _arg_max(x: Tensor, op: ops.ArgMax) -> Tensor:
    find = torch.argmax if op.mode == "max" else torch.argmin
    y = find(x, op.axis, keepdim=op.keep_dims or x.dim() == 1)
    return y.to(getattr(torch, op.dtype))


@_build.register
def _build_l2_norm(op: ops.L2Norm, place: _Place) -> _Built:
    return partial(F.normalize, dim=nchw_axis(op.axis, len(place.shape))), None


@_build.register
def _build_quantize(op: ops.Quantize, place: _Place) -> _Built:
    return partial(_quantize, dtype=getattr(torch, op.dtype)), None


def _quantize(x: Tensor, dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return torch.clamp(torch.round(x / BORDER_SCALE), limits.min, limits.max).to(dtype)


@_build.register
def _build_dequantize(op: ops.Dequantize, place: _Place) -> _Built:
    return _dequantize, None


def _dequantize(x: Tensor) -> Tensor:
    return x.float() * BORDER_SCALE
