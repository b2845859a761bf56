"""The table of primitive operations: one class, one row, per op."""

from netlathe.archspace.ops.base import (
    BYTES,
    LARGEST,
    LATER,
    MOST_STORED,
    MOST_VALUES,
    OPS,
    DType,
    Op,
    Padding,
    Pair,
    Shape,
    broadcast,
    bytes_of,
    canonical_axis,
    check_shape,
    frozen,
    is_integer,
    register,
    same_padding,
    told,
)
from netlathe.archspace.ops.elementwise import Activation, ActivationKind, Add, Mul, Softmax
from netlathe.archspace.ops.layers import Conv2d, FullyConnected
from netlathe.archspace.ops.layout import Concat, Constant, Reshape, Split, Zeros
from netlathe.archspace.ops.opaque import Opaque
from netlathe.archspace.ops.windows import GlobalAvgPool, Pad, Pool2d

__all__ = [
    "BYTES", "LARGEST", "LATER", "MOST_STORED", "MOST_VALUES", "OPS", "Activation", "ActivationKind", "Add", "Concat",
    "Constant", "Conv2d", "DType", "FullyConnected", "GlobalAvgPool", "Mul", "Op", "Opaque", "Pad", "Padding", "Pair",
    "Pool2d", "Reshape", "Shape", "Softmax", "Split", "Zeros", "broadcast", "bytes_of", "canonical_axis",
    "check_shape", "frozen", "is_integer", "register", "same_padding", "told",
]  # fmt: skip
