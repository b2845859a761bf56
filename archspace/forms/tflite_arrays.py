"""Arrays of TFLite's layers as graphs store them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.orders import Arrays
from netlathe.archspace.forms.tflite_file import Operator
from netlathe.archspace.forms.tflite_values import Reader

_KERNEL_AXES = {
    "CONV_2D": (0, 3, 1, 2),  # OHWI
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),  # 1HWO
    "TRANSPOSE_CONV": (0, 3, 1, 2),  # OHWI
    "FULLY_CONNECTED": (0, 1),
}
"""By op: the axes of its kernel in the order of the graph's, (out, in / groups, kh, kw)."""


def graph_kernel(kind: str, kernel: NDArray[Any]) -> NDArray[Any]:
    """The kernel of an op of that kind as graphs store it."""
    return kernel.transpose(_KERNEL_AXES[kind])


def layer_arrays(reader: Reader, operator: Operator, shift: float = 0.0) -> Arrays:
    """Kernel and bias of a layer, less what the bias holds of the function behind."""
    kernel = graph_kernel(operator.kind, reader.values(operator.inputs[1]))
    place = 3 if operator.kind == "TRANSPOSE_CONV" else 2
    has_bias = len(operator.inputs) > place and operator.inputs[place] >= 0
    bias = reader.values(operator.inputs[place]) if has_bias else np.zeros(len(kernel), np.float32)
    return {"kernel": kernel, "bias": bias - np.float32(shift)}
