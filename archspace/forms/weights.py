"""Weights of a graph's layers as plain arrays: what the .tflite and .onnx writers store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Activation, Add, DType, Op, Shape

FloatArray = NDArray[np.float32]

StoredArrays = Mapping[str, NDArray[Any]]
"""Arrays that one node stores, by the names that its op gives (Op.stored_shapes): of a layer `kernel`, (out, in /
groups, kh, kw) or (out, in), with BatchNorm folded in, and `bias`, (out,)."""

Weights = Mapping[str, StoredArrays]
"""Keyed by the name of the node."""

_GAINS: dict[type[Op] | None, float] = {Activation: 2, Add: 0.25}
_SMALL = 0.1
"""The bound of what is no kernel."""


def stored_shapes(graph: Graph) -> dict[str, Mapping[str, Shape]]:
    """Shapes of all stored arrays by node name, in execution order, without nodes that store nothing."""
    found = ((node.name, node.op.stored_shapes(*inputs)) for node, inputs, _ in graph.steps())
    return {name: shapes for name, shapes in found if shapes}


def stored_count(graph: Graph) -> int:
    """Number of values that all nodes store."""
    return sum(node.op.stored_values(*inputs) for node, inputs, _ in graph.steps())


def random_weights(graph: Graph, seed: int = 0) -> dict[str, dict[str, NDArray[Any]]]:
    """Uniform weights that keep the size of activations from layer to layer, and small biases.

    The variance times the fan-in is 2 before a non-linearity, which halves the mean square (He et al.,
    arXiv:1502.01852), 1/4 before a sum, so that residuals do not pile up, and 1 elsewhere. What is not float32 is
    zeros. Equal seeds give equal weights.
    """
    rng = np.random.default_rng(seed)
    ops = {node.name: node.op for node in graph.nodes}
    found = graph.sole_users.items()
    users = {graph.nodes[i].name: type(graph.nodes[user].op) for i, (user, times) in found if times == 1}
    weights = {}
    for name, shapes in stored_shapes(graph).items():
        gain, dtype = _GAINS.get(users.get(name), 1), ops[name].stored_dtype
        if dtype == DType.FLOAT32:
            weights[name] = {key: _uniform(rng, shape, _bound(key, shape, gain)) for key, shape in shapes.items()}
        else:
            weights[name] = {key: np.zeros(shape, dtype) for key, shape in shapes.items()}
    return weights


def _bound(key: str, shape: Shape, gain: float) -> float:
    return math.sqrt(3 * (gain / math.prod(shape[1:]))) if key == "kernel" else _SMALL


def placeholder_weights(graph: Graph) -> dict[str, StoredArrays]:
    """Zeros that take no memory: for looking at what a writer would write."""
    zero, dtypes = np.float32(0), {node.name: node.op.stored_dtype for node in graph.nodes}
    return {
        name: {key: np.broadcast_to(zero.astype(dtypes[name]), shape) for key, shape in shapes.items()}
        for name, shapes in stored_shapes(graph).items()
    }


def untransposed(kernel: NDArray[Any], groups: int) -> NDArray[Any]:
    """The kernel of a transposed convolution as graphs store it, (out, in / groups, kh, kw), of one as ONNX and torch
    do, (in, out / groups, kh, kw)."""
    channels, outs, *taps = kernel.shape
    apart = kernel.reshape(groups, channels // groups, outs, *taps).swapaxes(1, 2)
    return apart.reshape(groups * outs, channels // groups, *taps)


def transposed(kernel: NDArray[Any], groups: int) -> NDArray[Any]:
    """The inverse of `untransposed`."""
    outs, channels, *taps = kernel.shape
    apart = kernel.reshape(groups, outs // groups, channels, *taps).swapaxes(1, 2)
    return apart.reshape(groups * channels, outs // groups, *taps)


def check_weights(graph: Graph, weights: Weights) -> None:
    """Raises FormatError naming the first node whose weights are missing or of another shape or dtype."""
    ops = {node.name: node.op for node in graph.nodes}
    for name, shapes in stored_shapes(graph).items():
        wanted = ", ".join(f"a {key} of shape {shape}" for key, shape in shapes.items())
        if name not in weights:
            raise FormatError(f"there are no weights for layer {name!r}; it needs {wanted}")
        for key, shape in shapes.items():
            array = weights[name].get(key)
            if array is None:
                raise FormatError(f"the weights of layer {name!r} lack its {key}; it needs {wanted}")
            if array.shape != shape or array.dtype != ops[name].stored_dtype:
                raise FormatError(
                    f"the {key} of layer {name!r} must be {ops[name].stored_dtype} of shape {shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )


def _uniform(rng: np.random.Generator, shape: Shape, bound: float) -> FloatArray:
    values = rng.random(shape, dtype=np.float32)
    values -= 0.5  # in place: a whole network has millions
    values *= 2 * bound
    return values
