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
    canonical_axis,
    check_shape,
    expect_dtype,
    frozen,
    is_integer,
    register,
    same_padding,
    told,
    with_canonical_axes,
)
from netlathe.archspace.ops.elementwise import (
    HARD_SLOPE,
    Activation,
    ActivationKind,
    Add,
    Cast,
    Clip,
    Div,
    Gelu,
    Maximum,
    Minimum,
    Mul,
    Pow,
    Softmax,
    Sub,
    Unary,
    UnaryKind,
)
from netlathe.archspace.ops.images import Interpolation, PadAxes, PadMode, Resize, TransposeConv2d
from netlathe.archspace.ops.layers import Conv2d, FullyConnected, MatMul
from netlathe.archspace.ops.layout import (
    Concat,
    Constant,
    DepthToSpace,
    Gather,
    Reshape,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
    Transpose,
    Zeros,
)
from netlathe.archspace.ops.opaque import Opaque
from netlathe.archspace.ops.quantizing import Dequantize, Quantize
from netlathe.archspace.ops.rectifiers import ELU, LeakyReLU, PReLU
from netlathe.archspace.ops.statistics import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm, Reduce, ReduceKind
from netlathe.archspace.ops.windows import GlobalAvgPool, Pad, Pool2d

__all__ = [
    "BYTES", "ELU", "HARD_SLOPE", "LARGEST", "LATER", "MOST_STORED", "MOST_VALUES", "OPS", "Activation",
    "ActivationKind", "Add", "ArgMax", "BatchNorm", "Cast", "Clip", "Concat", "Constant", "Conv2d", "DType",
    "DepthToSpace", "Dequantize", "Div", "FullyConnected", "Gather", "Gelu", "GlobalAvgPool", "GroupNorm",
    "Interpolation", "L2Norm", "LayerNorm", "LeakyReLU", "LocalResponseNorm", "MatMul", "Maximum", "Minimum", "Mul",
    "Op", "Opaque", "PReLU", "Pad", "PadAxes", "PadMode", "Padding", "Pair", "Pool2d", "Pow", "Quantize", "Reduce",
    "ReduceKind", "Reshape", "Resize", "Shape", "Slice", "Softmax", "SpaceToDepth", "Split", "Sub", "Tile",
    "Transpose", "TransposeConv2d", "Unary", "UnaryKind", "Zeros", "broadcast", "bytes_of", "canonical_axis",
    "check_shape",
    "expect_dtype", "frozen", "is_integer", "register", "same_padding", "told", "with_canonical_axes",
]  # fmt: skip
