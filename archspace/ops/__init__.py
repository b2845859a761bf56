"""The table of primitive operations: one class, one row, per op."""

from netlathe.archspace.ops.along_axis import ArgMax, L2Norm
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
    check_shape,
    frozen,
    is_integer,
    register,
    same_padding,
    told,
)
from netlathe.archspace.ops.elementwise import Activation, ActivationKind, Add, Mul, Softmax
from netlathe.archspace.ops.images import Interpolation, PadAxes, PadMode, Resize, TransposeConv2d
from netlathe.archspace.ops.layers import Conv2d, FullyConnected
from netlathe.archspace.ops.layout import Concat, Constant, Reshape, Split, Zeros
from netlathe.archspace.ops.opaque import Opaque
from netlathe.archspace.ops.quantizing import Dequantize, Quantize
from netlathe.archspace.ops.rectifiers import ELU, LeakyReLU, PReLU
from netlathe.archspace.ops.windows import GlobalAvgPool, Pad, Pool2d

__all__ = [
    "BYTES",
    "ELU",
    "LARGEST",
    "LATER",
    "MOST_STORED",
    "MOST_VALUES",
    "OPS",
    "Activation",
    "ActivationKind",
    "Add",
    "ArgMax",
    "Clamp",
    "Concat",
    "Constant",
    "Conv2d",
    "DType",
    "Dequantize",
    "FullyConnected",
    "GlobalAvgPool",
    "Interpolation",
    "L2Norm",
    "LeakyReLU",
    "Mul",
    "Op",
    "Opaque",
    "PReLU",
    "Pad",
    "PadAxes",
    "PadMode",
    "Padding",
    "Pair",
    "Pool2d",
    "Quantize",
    "Reshape",
    "Resize",
    "Shape",
    "Softmax",
    "Split",
    "TransposeConv2d",
    "Zeros",
    "broadcast",
    "bytes_of",
    "check_shape",
    "frozen",
    "is_integer",
    "register",
    "same_padding",
    "told",
]  # fmt: skip
