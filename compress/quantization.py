"""Worth of precisions and blocks by a network's weights alone, where there are no images to ask."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.precisions import Precision
from netlathe.archspace.residuals import ResidualBlock
from netlathe.compress.joint import JointSpace, Sensitivity

_OF_VALUES = 1e-4
"""Mean square error of values in int8, in parts of their own: a normal distribution in 256 steps over eight standard
deviations, (8 / 255)² / 12."""
_LEAST = 1e-12
"""Least part of a norm that counts as kept."""


def sensitivity_by_weights(space: JointSpace, weights: Weights) -> Sensitivity:
    """Sensitivity in the unit of WidthSpace.option_scores on magnitudes: minus the logarithm of the part of the squares
    of a layer's weights that is kept, summed over layers.

    A precision loses the squares of what rounding changes, int8 those of its values as well, by a constant; a block
    left out loses what cutting each of its own groups to one unit would. That ranks segments by how badly their
    weights round, and takes int8 for cheaper than any cut, as it is on most networks; it does not see outliers among
    values, which are what int8 fails by, and of blocks it knows next to nothing: give images where there are any.
    """
    rises = {}
    names = iter(space.decision_names[len(space.groups) :])
    for block in space.blocks:
        rises[next(names)] = [0.0, _of_block(space, weights, block)]
    for segment in space.segments:
        kernels = [weights[node]["kernel"] for node in segment.nodes if "kernel" in weights.get(node, {})]
        rises[next(names)] = [_of_precision(kernels, precision) for precision in space.precisions]
    return Sensitivity(1.0, rises)


def _of_precision(kernels: Iterable[NDArray[np.float32]], precision: Precision) -> float:
    if precision is Precision.FLOAT32:
        return 0.0
    of_values = _OF_VALUES if precision is Precision.INT8 else 0.0
    return sum(_lost(rounded(kernel, precision), kernel) + of_values for kernel in kernels)


def rounded(kernel: NDArray[np.float32], precision: Precision) -> NDArray[np.float64]:
    """A layer's kernel (out, ...) as a file in that precision has it: with a symmetric scale per output channel in
    int8."""
    exact = kernel.astype(np.float64)
    if precision is Precision.FLOAT32:
        return exact
    if precision is Precision.FLOAT16:
        return kernel.astype(np.float16).astype(np.float64)
    largest = np.abs(exact).max(axis=tuple(range(1, exact.ndim)), keepdims=True)
    scales = np.where(largest > 0, largest, 1.0) / 127
    return np.asarray(np.rint(exact / scales) * scales)


def _lost(approximate: NDArray[np.float64], kernel: NDArray[np.float32]) -> float:
    """Minus the logarithm of the part of its squares that a kernel keeps."""
    total = float((kernel.astype(np.float64) ** 2).sum())
    error = float(((approximate - kernel) ** 2).sum())
    return -float(np.log(max(1 - error / total, _LEAST))) if total else 0.0


def _of_block(space: JointSpace, weights: Weights, block: ResidualBlock) -> float:
    """The sum over groups that the block's own layers alone give, each cut to its largest unit."""
    from netlathe.compress.importance import magnitudes

    inside = {space.coupled.graph.nodes[index].name for index in block.nodes}
    found = 0.0
    for name, norms in magnitudes(space.coupled, weights).items():
        group = space.coupled.groups[space.coupled.group_index(name)]
        if inside.issuperset(group.producers):
            squares = norms**2
            found -= float(np.log(max(squares.max() / max(squares.sum(), _LEAST), _LEAST)))
    return found
