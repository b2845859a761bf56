"""Arrays of ONNX's layers as graphs store them: kernels arranged, what stands behind a layer folded into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.onnx_values import Reader, attributes_of
from netlathe.archspace.forms.orders import Arrays
from netlathe.archspace.forms.weights import untransposed
from netlathe.archspace.ops import Shape

Array = NDArray[Any]


def conv_arrays(reader: Reader, node: NodeProto, behind: Sequence[NodeProto]) -> Arrays:
    """Kernel and bias of a convolution, with the BatchNorm, product and sum per channel behind it."""
    kernel = _wide(reader.values(node.input[1]))
    return _with_behind(reader, kernel, _bias(reader, node, len(kernel)), node.output[0], behind)


def transposed_conv_arrays(reader: Reader, node: NodeProto, behind: Sequence[NodeProto]) -> Arrays:
    """Kernel and bias of a transposed convolution, with the BatchNorm behind it."""
    kernel = untransposed(_wide(reader.values(node.input[1])), attributes_of(node).get("group", 1))
    return _with_behind(reader, kernel, _bias(reader, node, len(kernel)), node.output[0], behind)


def _wide(kernel: Array) -> Array:
    """A sequence's kernel as an image's of height 1."""
    return np.asarray((kernel if kernel.ndim == 4 else kernel[:, :, None]), np.float64)


def _bias(reader: Reader, node: NodeProto, channels: int) -> Array:
    given = len(node.input) > 2 and node.input[2]
    return reader.values(node.input[2]).reshape(-1).astype(np.float64) if given else np.zeros(channels)


def _with_behind(reader: Reader, kernel: Array, bias: Array, name: str, behind: Sequence[NodeProto]) -> Arrays:
    """In float64, so that folding rounds once."""
    for node in behind:
        scale, offset = _affine(reader, node, name, len(bias))
        kernel, bias = kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1)), bias * scale + offset
        name = node.output[0]
    return {"kernel": kernel, "bias": bias}


def _affine(reader: Reader, node: NodeProto, name: str, channels: int) -> tuple[Array, Array]:
    """The factor and the offset of each channel."""
    if node.op_type == "BatchNormalization":
        arrays = batch_norm_arrays(reader, node)
        return arrays["scale"], arrays["bias"]
    (other,) = [reader.values(n).reshape(-1).astype(np.float64) for n in node.input if n != name]
    return (other, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), other)


def batch_norm_arrays(reader: Reader, node: NodeProto) -> Arrays:
    """The scale and the bias that a BatchNormalization's statistics make. Raises FormatError in training mode."""
    if attributes_of(node).get("training_mode", 0):
        raise FormatError("its BatchNormalization is in training mode; export the model in eval mode")
    gamma, beta, mean, variance = (reader.values(name).astype(np.float64) for name in node.input[1:5])
    scale = gamma / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    return {"scale": scale, "bias": beta - mean * scale}


def gemm_arrays(reader: Reader, node: NodeProto, out: int) -> Arrays:
    """Kernel and bias of a Gemm."""
    settings = attributes_of(node)
    kernel = reader.values(node.input[1]) * np.float32(settings.get("alpha", 1.0))
    bias = np.zeros(out, np.float32)
    if len(node.input) > 2 and node.input[2]:
        given = reader.values(node.input[2]) * np.float32(settings.get("beta", 1.0))
        if given.size not in (1, out) or (given.ndim and given.shape[-1] not in (1, out)):
            raise FormatError(f"its bias of shape {given.shape} is not one for each of {out} features")
        bias = np.broadcast_to(given.reshape(-1), (out,))
    return {"kernel": kernel if settings.get("transB", 0) else kernel.T, "bias": bias}


def dense_arrays(reader: Reader, node: NodeProto, out: int, bias: NodeProto | None) -> Arrays:
    """Kernel and bias of a MatMul with weights, and the Add behind it."""
    settings = attributes_of(node)
    kernel = reader.values(node.input[1]) * np.float32(settings.get("alpha", 1.0))
    offset = np.zeros(out, np.float32)
    if bias is not None:
        (offset,) = [reader.values(name).reshape(-1) for name in bias.input if name != node.output[0]]
    return {"kernel": kernel if settings.get("transB", 0) else kernel.T, "bias": offset}


def norm_arrays(reader: Reader, names: Sequence[str], shape: Shape) -> Arrays:
    """Scale and bias of a normalisation over axes of that shape; a missing one changes nothing."""
    found = {}
    for key, name, default in zip(("scale", "bias"), (*names, "", "")[:2], (1.0, 0.0), strict=True):
        values = reader.values(name) if name else np.array(default, np.float32)
        own = values.shape[-len(shape) :]
        if math.prod(own) != values.size:
            raise FormatError(f"its {key} of shape {values.shape} differs along axes that it does not normalise over")
        found[key] = np.broadcast_to(values.reshape(own), shape)
    return found


def group_norm_arrays(
    reader: Reader, node: NodeProto, groups: int, channels: int, affine: Sequence[NodeProto], name: str
) -> Arrays:
    """Scale and bias per channel of a node that may have them per group, and the product and sum per channel behind
    it, of which `name` is what the first takes."""
    scale, bias = (reader.values(n).reshape(-1).astype(np.float64) for n in node.input[1:3])
    if len(scale) not in (groups, channels):
        raise FormatError(f"its scale of {len(scale)} values is neither of {groups} groups nor of {channels} channels")
    scale, bias = (np.repeat(values, channels // len(values)) for values in (scale, bias))
    for behind in affine:
        factor, offset = _affine(reader, behind, name, channels)
        scale, bias, name = scale * factor, bias * factor + offset, behind.output[0]
    return {"scale": scale, "bias": bias}
