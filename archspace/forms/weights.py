"""Weights of a graph's layers as plain arrays: what the .tflite and .onnx writers store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import sole_users
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Activation, Add, Conv2d, FullyConnected, Op, Shape

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """float32, BatchNorm folded in. Kernel (out, in / groups, kh, kw) or (out, in), bias (out,)."""

    kernel: FloatArray
    bias: FloatArray


Weights = Mapping[str, LayerWeights]
"""Keyed by the name of the node."""

_GAINS: dict[type[Op] | None, float] = {Activation: 2, Add: 0.25}


def kernel_shapes(graph: Graph) -> dict[str, Shape]:
    """The kernel's shape of every convolution and fully connected layer, by node name, in execution order."""
    shapes: dict[str, Shape] = {}
    for node, (x, *_), _ in graph.steps():
        if isinstance(node.op, Conv2d):
            shapes[node.name] = node.op.weight_shape(x)
        elif isinstance(node.op, FullyConnected):
            shapes[node.name] = (node.op.out_features, x[1])
    return shapes


def random_weights(graph: Graph, seed: int = 0) -> dict[str, LayerWeights]:
    """Uniform weights that keep the size of activations from layer to layer, and small biases.

    The variance times the fan-in is 2 before a non-linearity, which halves the mean square (He et al.,
    arXiv:1502.01852), 1/4 before a sum, so that residuals do not pile up, and 1 elsewhere. Equal seeds give equal
    weights.
    """
    rng = np.random.default_rng(seed)
    users = {graph.nodes[i].name: type(graph.nodes[user].op) for i, user in sole_users(graph).items()}
    weights = {}
    for name, shape in kernel_shapes(graph).items():
        variance = _GAINS.get(users.get(name), 1) / math.prod(shape[1:])
        weights[name] = LayerWeights(_uniform(rng, shape, math.sqrt(3 * variance)), _uniform(rng, shape[:1], 0.1))
    return weights


def placeholder_weights(graph: Graph) -> dict[str, LayerWeights]:
    """Zeros that take no memory: for looking at what a writer would write."""
    zero = np.float32(0)
    return {
        name: LayerWeights(np.broadcast_to(zero, shape), np.broadcast_to(zero, shape[:1]))
        for name, shape in kernel_shapes(graph).items()
    }


def check_weights(graph: Graph, weights: Weights) -> None:
    """Raises FormatError naming the first layer whose weights are missing or of another shape or dtype."""
    for name, shape in kernel_shapes(graph).items():
        if name not in weights:
            raise FormatError(f"there are no weights for layer {name!r}; it needs a kernel of shape {shape}")
        _check_array(weights[name].kernel, shape, f"the kernel of layer {name!r}")
        _check_array(weights[name].bias, shape[:1], f"the bias of layer {name!r}")


def _check_array(array: FloatArray, shape: Shape, what: str) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise FormatError(f"{what} must be float32 of shape {shape}, got {array.dtype} of shape {array.shape}")


def _uniform(rng: np.random.Generator, shape: Shape, bound: float) -> FloatArray:
    values = rng.random(shape, dtype=np.float32)
    values -= 0.5  # in place: a whole network has millions
    values *= 2 * bound
    return values
