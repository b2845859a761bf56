"""ONNX's two ways to quantize -> Graph: ops between DequantizeLinear and QuantizeLinear, which runtimes run on
integers, and ops on integers."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from netlathe.archspace.forms.onnx_constants import DTYPES, Stored
from netlathe.archspace.forms.onnx_layers import SUMS
from netlathe.archspace.forms.onnx_values import NotReadError, Reader, attributes_of
from netlathe.archspace.ops import DType, Quantize

_ON_INTEGERS = {
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Expand", "Flatten", "Gather",
    "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad",
    "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Sub",
    "Tanh", "Transpose", "Unsqueeze", "Upsample", "Div", "PRelu", "Elu", "Gelu",
}  # fmt: skip
"""Ops that runtimes run on integers where all that they take and give is quantized."""

INTEGER_OPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ConvInteger": ("Conv", (0, 1)),
    "MatMulInteger": ("MatMul", (0, 1)),
    "QGemm": ("Gemm", (0, 3, 6)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearConv": ("Conv", (0, 3, 8)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearMatMul": ("MatMul", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearReduceMean": ("ReduceMean", (0,)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
}
"""Ops on integers: the same op on real values, and which of their inputs that takes; others are scales."""


def read_integer_op(reader: Reader, node: NodeProto, readers: dict[str, Callable[[Reader, NodeProto], None]]) -> None:
    """Reads an op on integers as the op that it stands for, on tensors of that dtype."""
    if node.op_type == "QLinearConcat":
        kind, inputs = "Concat", list(node.input[2::3])
    else:
        kind, places = INTEGER_OPS[node.op_type]
        inputs = [node.input[place] for place in places if place < len(node.input)]
    if attributes_of(node).get("channels_last", 0):
        raise NotReadError("its channels are last")
    sums = node.op_type.endswith("Integer") or (node.op_type == "QGemm" and len(node.input) < 8)
    plain = NodeProto(
        op_type=kind, name=node.name, input=inputs, output=node.output, domain=SUMS if sums else node.domain
    )
    plain.attribute.extend(a for a in node.attribute if a.name not in ("channels_last", "opset"))
    reader.keep_alive(plain)
    readers[kind](reader, plain)


def is_on_integers(reader: Reader, node: NodeProto) -> bool:
    """Whether all that the node computes with are integers whose real values it is said to take, and its result is
    made integers again at once, or behind a clamp."""
    if node.op_type not in _ON_INTEGERS or not node.input or len(node.output) != 1:
        return False
    computed = [name for name in node.input if name and reader.constant(name) is None]
    if not computed or not all(reader.integers_of(name) or reader.is_on_integers(name) for name in computed):
        return False
    user = reader.sole_user(node.output[0])
    if user is not None and user.op_type in ("Relu", "Clip"):
        user = reader.sole_user(user.output[0])
    return user is not None and user.op_type == "QuantizeLinear"


def quantize(reader: Reader, node: NodeProto) -> None:
    """QuantizeLinear: nothing behind an op that has run on integers."""
    (x, *_), (y,) = node.input, node.output
    if reader.is_on_integers(x):
        return reader.bind(y, reader.value(x))
    value = reader.value(x)
    op = Quantize(_dtype(reader, node, 2))
    return reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed)


def _dtype(reader: Reader, node: NodeProto, position: int) -> DType:
    zero = reader.constant(node.input[position]) if len(node.input) > position and node.input[position] else None
    number = zero.dtype if zero is not None else attributes_of(node).get("output_dtype", 0)
    if number not in DTYPES and number:
        raise NotReadError("it quantizes to a dtype that netlathe does not have")
    return DTYPES.get(number, DType.UINT8)


def dequantize(reader: Reader, node: NodeProto) -> None:
    """DequantizeLinear: of constants, weights of that dtype; else real values, computed once something needs them."""
    (x, *_), (y,) = node.input, node.output
    stored = reader.constant(x)
    if stored is not None:
        if stored.dtype not in DTYPES:
            raise NotReadError("its constant has a dtype that netlathe does not have")
        real = next(number for number, dtype in DTYPES.items() if dtype is DType.FLOAT32)
        return reader.define(y, Stored(stored.shape, real, None, DTYPES[stored.dtype]))
    return reader.bind_dequantized(y, reader.value(x))


def dynamic_quantize(reader: Reader, node: NodeProto) -> None:
    """DynamicQuantizeLinear; its scale and zero point are as good as constants, as no time goes by them."""
    value = reader.value(node.input[0])
    reader.add(node, Quantize(DType.UINT8), value.operand, axes=value.axes, transposed=value.is_transposed)
    for name, number in zip(node.output[1:], (1, 2), strict=False):
        reader.define(name, Stored((), number))


QUANTIZED: dict[str, Callable[[Reader, NodeProto], None]] = {
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QuantizeLinear": quantize,
}
