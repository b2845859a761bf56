"""Readers of TFLite's ops: one function per kind, which adds its nodes to a Reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite_arrays import layer_arrays
from netlathe.archspace.forms.tflite_file import ACTIVATIONS, PADDINGS, POOLS, Operator, Tensor
from netlathe.archspace.forms.tflite_folding import strided
from netlathe.archspace.forms.tflite_values import FUSED_OPS, ForeignOpError, Reader
from netlathe.archspace.kernels import same_borders
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    Cast,
    Clip,
    Concat,
    Conv2d,
    DepthToSpace,
    Dequantize,
    Div,
    DType,
    FullyConnected,
    Gather,
    Gelu,
    GlobalAvgPool,
    Interpolation,
    L2Norm,
    LeakyReLU,
    LocalResponseNorm,
    MatMul,
    Maximum,
    Minimum,
    Mul,
    Op,
    Pad,
    PadAxes,
    Padding,
    PadMode,
    Pool2d,
    Pow,
    PReLU,
    Quantize,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Shape,
    Slice,
    Softmax,
    SpaceToDepth,
    Split,
    Sub,
    Tile,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
)

_PADDINGS = {number: padding for padding, number in PADDINGS.items()}
_MIRRORS = (PadMode.REFLECT, PadMode.SYMMETRIC)


# Layers


def _padding(options: Mapping[str, Any]) -> Padding:
    if options["padding"] not in _PADDINGS:
        raise FormatError(f"its padding {options['padding']} is none that the format has")
    return _PADDINGS[options["padding"]]


def _strides(options: Mapping[str, Any]) -> tuple[int, int]:
    return options["strideH"], options["strideW"]


def _stored_as(weights: Tensor) -> DType:
    """Dtype that a layer's weights are stored in: a graph's dtypes tell it of what runs in integers or in half
    precision."""
    return DType[weights.dtype] if weights.dtype in DType.__members__ else DType.INT8


def _convolution(reader: Reader, operator: Operator, channels: int) -> Conv2d:
    """A convolution with the weights of a CONV_2D or DEPTHWISE_CONV_2D, unpadded and of stride 1."""
    weights = reader.kernel(operator, rank=4)
    if operator.kind == "DEPTHWISE_CONV_2D":
        (_, height, width, out), groups = weights.shape, channels
    else:
        out, height, width, group_in = weights.shape
        if channels % group_in:
            raise FormatError(f"its kernel for {group_in} channels does not divide an input of {channels}")
        groups = channels // group_in
    return Conv2d(
        out, (height, width), groups=groups, padding=Padding.VALID, batch_norm=False, weights=_stored_as(weights)
    )


def _conv(reader: Reader, operator: Operator) -> None:
    options, x = operator.options, reader.operand(operator.inputs[0])
    plain = _convolution(reader, operator, reader.shape(operator.inputs[0])[-1])
    dilation = options["dilationHFactor"], options["dilationWFactor"]
    op = _changed(plain, stride=_strides(options), padding=_padding(options), dilation=dilation)
    _add_layer(reader, operator, op, x)


def _changed(op: Conv2d, **fields: Any) -> Conv2d:
    names = ("out_channels", "kernel", "stride", "groups", "padding", "batch_norm", "dilation", "weights")
    return Conv2d(**{name: fields.get(name, getattr(op, name)) for name in names})


def _space_to_batch(reader: Reader, operator: Operator) -> None:
    """A dilated convolution: an unpadded one between a SPACE_TO_BATCH_ND and a BATCH_TO_SPACE_ND of the same block."""
    (x, *_), (y,) = operator.inputs, operator.outputs
    at = reader.sole_user(y)
    conv = reader.model.operators[at] if at is not None else None
    behind = reader.sole_user(conv.outputs[0]) if conv is not None and conv.kind in _CONVOLUTIONS else None
    if at is None or conv is None or behind is None or conv.inputs[0] != y:
        raise ForeignOpError("it stands in front of no convolution")
    back, options = reader.model.operators[behind], conv.options
    plain = (_strides(options), options["dilationHFactor"], options["dilationWFactor"], _padding(options))
    block = reader.integers(operator, 1)
    if back.kind != "BATCH_TO_SPACE_ND" or plain != ((1, 1), 1, 1, Padding.VALID) or len(block) != 2:
        raise ForeignOpError("it stands around no plain convolution")
    pads, crops = reader.integers(operator, 2), reader.integers(back, 2)
    if reader.integers(back, 1) != block or crops[0] or crops[2]:
        raise ForeignOpError("what stands behind the convolution does not undo it")
    op = _changed(_convolution(reader, conv, reader.shape(x)[-1]), dilation=(block[0], block[1]))
    borders = (pads[0], pads[1] - crops[1]), (pads[2], pads[3] - crops[3])
    reader.absorb(at), reader.absorb(behind)
    operand = reader.operand(x)
    if borders == same_borders(reader.shape(x), op.span, (1, 1)):
        op = _changed(op, padding=Padding.SAME)
    elif any(map(any, borders)):
        operand = reader.intermediate(f"{reader.name(back.outputs[0])}_pad", Pad(*borders), operand)
    reader.add(op, (operand,), back.outputs[0], conv.fused, stored=lambda: layer_arrays(reader, conv))


_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def _fully_connected(reader: Reader, operator: Operator) -> None:
    x, (y, *_) = operator.inputs[0], operator.outputs
    operand, shape = reader.operand(x), reader.shape(x)
    if reader.constant(operator.inputs[1]) is None:
        _product_with_weights(reader, operator)
        return
    weights = reader.kernel(operator, rank=2)
    out, features = weights.shape
    if len(shape) != 2 and not (operator.options["keepNumDims"] and len(shape) > 1 and shape[-1] == features):
        flat = (math.prod(shape) // features, features)
        operand = _reshaped(reader, f"{reader.name(y)}_flat", operand, shape, flat)
    _add_layer(reader, operator, FullyConnected(out, _stored_as(weights)), operand)


def _product_with_weights(reader: Reader, operator: Operator) -> None:
    """A fully connected layer whose weights are computed at run time."""
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        product = reader.intermediate(
            f"{reader.name(operator.outputs[0])}_product",
            MatMul(transpose_b=True),
            *(reader.operand(t) for t in operator.inputs[:2]),
        )
        bias = reader.operand(operator.inputs[2])
        reader.add(Add(), (product, bias), operator.outputs[0], operator.fused)
    else:
        operands = (reader.operand(operator.inputs[0]), reader.operand(operator.inputs[1]))
        reader.add(MatMul(transpose_b=True), operands, operator.outputs[0], operator.fused)


def _add_layer(reader: Reader, operator: Operator, op: Op, x: int) -> None:
    """A layer; a relu6 and a division by 6 behind it are a hard sigmoid whose 3 is folded into the bias."""
    (y,) = operator.outputs
    gate = _absorb_division_by_6(reader, operator)
    if gate:
        result = reader.intermediate(reader.name(y), op, x, stored=lambda: layer_arrays(reader, operator, shift=3.0))
        reader.add(Activation(ActivationKind.HARD_SIGMOID), (result,), gate.outputs[0])
    else:
        reader.add(op, (x,), y, operator.fused, stored=lambda: layer_arrays(reader, operator))


def _transpose_conv(reader: Reader, operator: Operator) -> None:
    """Its inputs are the result's shape, weights (out, kh, kw, in), what it takes, and a bias."""
    weights, x = reader.kernel(operator, rank=4), reader.operand(operator.inputs[2])
    out, *kernel, channels = weights.shape
    image, stride = reader.shape(operator.inputs[2]), _strides(operator.options)
    if image[-1] != channels:
        raise FormatError(f"its weights take {channels} channels, its input has {image}")
    wanted = (reader.recorded(operator.outputs[0]) or reader.integers(operator, 0))[1:3]
    same = _padding(operator.options) is Padding.SAME
    cuts = []
    for pixels, size, taps, by in zip(image[1:3], wanted, kernel, stride, strict=True):
        full = (pixels - 1) * by + taps
        before = max(full - size, 0) // 2 if same else 0
        cuts.append((before, full - size - before))
    op = TransposeConv2d(
        out, (kernel[0], kernel[1]), stride, height=cuts[0], width=cuts[1], weights=_stored_as(weights)
    )
    reader.add(op, (x,), operator.outputs[0], operator.fused, stored=lambda: layer_arrays(reader, operator))


def _batch_matmul(reader: Reader, operator: Operator) -> None:
    op = MatMul(bool(operator.options["adjX"]), bool(operator.options["adjY"]))
    reader.add(op, reader.operands(operator, 2), operator.outputs[0])


# Windows, reductions and normalisations


def _pool(reader: Reader, operator: Operator) -> None:
    options, x = operator.options, reader.operands(operator, 1)
    kernel = options["filterHeight"], options["filterWidth"]
    mode: Any = {kind: mode for mode, kind in POOLS.items()}[operator.kind]
    op: Op = Pool2d(mode, kernel, _strides(options), _padding(options))
    image = reader.shape(operator.inputs[0])
    if mode == "avg" and image[1:3] == kernel and op.output_shape(image)[1:3] == (1, 1):
        op = GlobalAvgPool(keep_dims=True)
    reader.add(op, x, operator.outputs[0], operator.fused)


def _reduction(function: ReduceKind) -> Callable[[Reader, Operator], None]:
    def read(reader: Reader, operator: Operator) -> None:
        x, shape = reader.operand(operator.inputs[0]), reader.shape(operator.inputs[0])
        axes = sorted({axis % len(shape) for axis in reader.integers(operator)})
        keep_dims = bool(operator.options["keepDims"])
        if not axes:
            raise ForeignOpError("it reduces no axes")
        if function is ReduceKind.MEAN and axes == [1, 2] and len(shape) == 4:
            reader.add(GlobalAvgPool(keep_dims), (x,), operator.outputs[0])
        else:
            reader.add(Reduce(function, tuple(axes), keep_dims), (x,), operator.outputs[0])

    return read


def _arg(mode: Literal["max", "min"]) -> Callable[[Reader, Operator], None]:
    def read(reader: Reader, operator: Operator) -> None:
        (axis,) = reader.integers(operator)
        op = ArgMax(axis, mode=mode, dtype=reader.dtype(operator.outputs[0]))
        reader.add(op, (reader.operand(operator.inputs[0]),), operator.outputs[0])

    return read


def _softmax(reader: Reader, operator: Operator) -> None:
    x, (y,), beta = reader.operands(operator, 1), operator.outputs, operator.options["beta"]
    if beta != 1:
        raise ForeignOpError(f"its beta is {beta}")
    reader.add(Softmax(), x, y)


def _log_softmax(reader: Reader, operator: Operator) -> None:
    softmax = reader.intermediate(
        f"{reader.name(operator.outputs[0])}_softmax", Softmax(), *reader.operands(operator, 1)
    )
    reader.add(Unary(UnaryKind.LOG), (softmax,), operator.outputs[0])


def _local_response_norm(reader: Reader, operator: Operator) -> None:
    options = operator.options
    size = 2 * options["radius"] + 1
    op = LocalResponseNorm(size, options["alpha"] * size, options["beta"], options["bias"])
    reader.add(op, reader.operands(operator, 1), operator.outputs[0])


# Element-wise ops


def _one_to_one(make: Callable[[Mapping[str, Any]], Op]) -> Callable[[Reader, Operator], None]:
    """An op of one tensor that its options alone tell."""

    def read(reader: Reader, operator: Operator) -> None:
        reader.add(make(operator.options), reader.operands(operator, 1), operator.outputs[0], operator.fused)

    return read


def _of_two(op: Op) -> Callable[[Reader, Operator], None]:
    """An element-wise op of two tensors, of which one may be a constant."""

    def read(reader: Reader, operator: Operator) -> None:
        reader.add(op, reader.operands(operator, 2), operator.outputs[0], operator.fused)

    return read


def _logistic(reader: Reader, operator: Operator) -> None:
    """A sigmoid, or the swish that x * sigmoid(x) makes."""
    (x,), (y,) = operator.inputs, operator.outputs
    operand = reader.operand(x)
    swish = reader.absorb_user(y, "MUL", lambda mul: {*mul.inputs} == {x, y} and not mul.fused)
    if swish:
        reader.add(Activation(ActivationKind.SWISH), (operand,), swish.outputs[0])
    else:
        reader.add(Activation(ActivationKind.SIGMOID), (operand,), y)


def _add(reader: Reader, operator: Operator) -> None:
    """A sum, or the hard sigmoid that relu6(x + 3) / 6 makes."""
    xs = [t for t in operator.inputs if reader.scalar(t) != 3]
    gate = _absorb_division_by_6(reader, operator) if len(xs) == 1 else None
    if gate:
        reader.add(Activation(ActivationKind.HARD_SIGMOID), (reader.operand(xs[0]),), gate.outputs[0])
    else:
        reader.add(Add(), reader.operands(operator, 2), operator.outputs[0], operator.fused)


def _absorb_division_by_6(reader: Reader, operator: Operator) -> Operator | None:
    """The product with 1/6 that follows an op with a fused relu6, if one does."""

    def divides(mul: Operator) -> bool:
        factors = [value for t in mul.inputs if (value := reader.scalar(t)) is not None]
        return len(factors) == 1 and abs(factors[0] - 1 / 6) < 1e-4 and not mul.fused

    clamps = FUSED_OPS.get(operator.fused) == Activation(ActivationKind.RELU6)
    return reader.absorb_user(operator.outputs[0], "MUL", divides) if clamps else None


def _add_n(reader: Reader, operator: Operator) -> None:
    first, *others = reader.operands(operator)
    if not others:
        raise ForeignOpError("it adds up one tensor")
    for place, other in enumerate(others[:-1]):
        first = reader.intermediate(f"{reader.name(operator.outputs[0])}_{place}", Add(), first, other)
    reader.add(Add(), (first, others[-1]), operator.outputs[0])


def _squared_difference(reader: Reader, operator: Operator) -> None:
    name = f"{reader.name(operator.outputs[0])}_difference"
    difference = reader.intermediate(name, Sub(), *reader.operands(operator, 2))
    reader.add(Unary(UnaryKind.SQUARE), (difference,), operator.outputs[0])


def _prelu(reader: Reader, operator: Operator) -> None:
    x, slopes = reader.operand(operator.inputs[0]), reader.constant(operator.inputs[1])
    if slopes is None:
        raise ForeignOpError("its slopes are computed at run time")
    op = PReLU(slopes.shape or (1,), _stored_as(slopes))
    reader.add(op, (x,), operator.outputs[0], stored=lambda: {"slopes": reader.values(operator.inputs[1])})


def _cast(reader: Reader, operator: Operator) -> None:
    reader.add(Cast(reader.dtype(operator.outputs[0])), reader.operands(operator, 1), operator.outputs[0])


def _quantize(reader: Reader, operator: Operator) -> None:
    reader.add(Quantize(reader.dtype(operator.outputs[0])), reader.operands(operator, 1), operator.outputs[0])


def _dequantize(reader: Reader, operator: Operator) -> None:
    reader.add(Dequantize(reader.dtype(operator.outputs[0])), reader.operands(operator, 1), operator.outputs[0])


# Ops that arrange values


def _pad(reader: Reader, operator: Operator) -> None:
    numbers = reader.integers(operator)
    amounts = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    x, value = reader.operand(operator.inputs[0]), 0.0
    if operator.kind == "PADV2":
        found = reader.scalar(operator.inputs[2])
        if found is None:
            raise ForeignOpError("its value is computed at run time")
        value = found if math.isfinite(found) else math.copysign(3.4028235e38, found)
    if operator.kind == "MIRROR_PAD":
        op: Op = PadAxes(amounts, _MIRRORS[operator.options["mode"]])
    elif value == 0 and len(amounts) == 4 and amounts[0] == amounts[3] == (0, 0):
        op = Pad(amounts[1], amounts[2])
    else:
        op = PadAxes(amounts, value=value)
    reader.add(op, (x,), operator.outputs[0])


def _concat(reader: Reader, operator: Operator) -> None:
    (output,) = operator.outputs
    axis, rank = operator.options["axis"], len(reader.shape(operator.inputs[0]))
    op = Concat() if axis % rank == rank - 1 else Concat(axis % rank)
    reader.add(op, reader.operands(operator), output, operator.fused)


def _pack(reader: Reader, operator: Operator) -> None:
    """Tensors joined along an axis of its own: what a CONCATENATION along the next axis gives, in another shape."""
    (y,), shape = operator.outputs, reader.shape(operator.inputs[0])
    if not reader.model.tensors[operator.inputs[0]].shape and len(shape) == 1:
        raise ForeignOpError("it packs scalars")
    axis, operands = operator.options["axis"] % (len(shape) + 1), reader.operands(operator)
    if axis == len(shape):
        wide = (*shape, 1)
        operands = tuple(_reshaped(reader, f"{reader.name(y)}_wide", x, shape, wide) for x in operands)
        reader.add(Concat(), operands, y)
        return
    joined = reader.intermediate(f"{reader.name(y)}_joined", Concat(axis), *operands)
    flat = (*shape[:axis], shape[axis] * len(operands), *shape[axis + 1 :])
    packed = (*shape[:axis], len(operands), *shape[axis:])
    reader.add(_reshape_to(flat, packed), (joined,), y)


def _unpack(reader: Reader, operator: Operator) -> None:
    """The parts of a tensor along an axis, without it."""
    x, shape = reader.operand(operator.inputs[0]), reader.shape(operator.inputs[0])
    axis, outputs = operator.options["axis"] % len(shape), operator.outputs
    if len(outputs) != shape[axis]:
        raise FormatError(f"it gives {len(outputs)} parts of the {shape[axis]} along axis {axis}")
    part = (*shape[:axis], 1, *shape[axis + 1 :])
    first = reader.intermediate(f"{reader.name(outputs[0])}_parts", Split((1,) * len(outputs), axis), x)
    without = (*shape[:axis], *shape[axis + 1 :]) or (1,)
    for place, y in enumerate(outputs):
        reader.add(_reshape_to(part, without), (first + place,), y)


def _split(reader: Reader, operator: Operator) -> None:
    """Parts of one size (SPLIT: axis, tensor), or of any (SPLIT_V: tensor, sizes, axis)."""
    even = operator.kind == "SPLIT"
    x, (axis,) = operator.inputs[1 if even else 0], reader.integers(operator, 0 if even else 2)
    whole, count = reader.shape(x)[axis], len(operator.outputs)
    sizes = [whole // count] * count if even else reader.integers(operator, 1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = whole - sum(sizes) - 1
    reader.add_several(Split(tuple(sizes), axis), (reader.operand(x),), operator.outputs)


def _slice(reader: Reader, operator: Operator) -> None:
    begins, sizes = reader.integers(operator, 1), reader.integers(operator, 2)
    ends = [None if size < 0 else begin + size for begin, size in zip(begins, sizes, strict=True)]
    _cut_out(reader, operator, [slice(begin, end) for begin, end in zip(begins, ends, strict=True)])


def _strided_slice(reader: Reader, operator: Operator) -> None:
    numbers = [reader.integers(operator, place) for place in (1, 2, 3)]
    _cut_out(reader, operator, strided(reader.shape(operator.inputs[0]), numbers, operator.options))


def _cut_out(reader: Reader, operator: Operator, index: list[slice | int | None] | list[slice]) -> None:
    """A part of a tensor, and the shape that axes which are new or of one value leave it."""
    x, shape = operator.inputs[0], iter(reader.shape(operator.inputs[0]))
    if sum(item is not None for item in index) != len(reader.shape(x)):
        raise FormatError(f"it names other axes than its input of shape {reader.shape(x)} has")
    begins, sizes, steps = [], [], []
    final: list[int] = []
    for item in index:
        if item is None:
            final.append(1)
            continue
        size = next(shape)
        span = range(size)[item] if isinstance(item, slice) else range(item % size, item % size + 1)
        begins.append(span.start)
        sizes.append(len(span))
        steps.append(span.step)
        if isinstance(item, slice):
            final.append(len(span))
    if 0 in sizes:
        raise FormatError("it takes nothing of its input")
    op = Slice(tuple(begins), tuple(sizes), tuple(steps) if {*steps} != {1} else ())
    wanted = tuple(final) or (1,)
    if wanted == tuple(sizes):
        reader.add(op, (reader.operand(x),), operator.outputs[0])
    else:
        part = reader.intermediate(f"{reader.name(operator.outputs[0])}_part", op, reader.operand(x))
        reader.add(_reshape_to(tuple(sizes), wanted), (part,), operator.outputs[0])


def _reshape_to(before: Shape, after: Shape) -> Reshape:
    """The reshape between two shapes, which keeps the batch where it can."""
    keeps_batch = before[0] == after[0] and len(after) > 1
    return Reshape(after[1:]) if keeps_batch else Reshape(after, whole=True)


def _reshaped(reader: Reader, name: str, x: int, before: Shape, after: Shape) -> int:
    return reader.intermediate(name, _reshape_to(before, after), x)


def _reshape(reader: Reader, operator: Operator) -> None:
    x, shape = reader.operand(operator.inputs[0]), reader.shape(operator.inputs[0])
    recorded = reader.recorded(operator.outputs[0])
    wanted = list(recorded if recorded is not None else _wanted(reader, operator)) or [1]
    if wanted.count(-1) == 1:
        wanted[wanted.index(-1)] = math.prod(shape) // -math.prod(wanted)
    reader.add(_reshape_to(shape, tuple(wanted)), (x,), operator.outputs[0])


def _wanted(reader: Reader, operator: Operator) -> list[int]:
    """The shape that a RESHAPE is told, by a tensor or by its options."""
    return reader.integers(operator) if len(operator.inputs) > 1 else list(operator.options["newShape"])


def _squeeze(reader: Reader, operator: Operator) -> None:
    shape = reader.shape(operator.inputs[0])
    axes = {axis % len(shape) for axis in operator.options["squeezeDims"]}
    axes = axes or {axis for axis, size in enumerate(shape) if size == 1}
    wanted = tuple(size for axis, size in enumerate(shape) if axis not in axes) or (1,)
    reader.add(_reshape_to(shape, wanted), (reader.operand(operator.inputs[0]),), operator.outputs[0])


def _expand_dims(reader: Reader, operator: Operator) -> None:
    x, shape, (axis,) = reader.operand(operator.inputs[0]), reader.shape(operator.inputs[0]), reader.integers(operator)
    place = axis % (len(shape) + 1)
    reader.add(_reshape_to(shape, (*shape[:place], 1, *shape[place:])), (x,), operator.outputs[0])


def _transpose(reader: Reader, operator: Operator) -> None:
    rank = len(reader.shape(operator.inputs[0]))
    perm = tuple(axis % rank for axis in reader.integers(operator))
    reader.add(Transpose(perm), (reader.operand(operator.inputs[0]),), operator.outputs[0])


def _gather(reader: Reader, operator: Operator) -> None:
    if operator.options["batchDims"]:
        raise ForeignOpError("it gathers along several axes")
    if not reader.model.tensors[operator.inputs[1]].shape:
        raise ForeignOpError("it takes a single index")
    reader.add(Gather(operator.options["axis"]), reader.operands(operator, 2), operator.outputs[0])


def _tile(reader: Reader, operator: Operator) -> None:
    x, shape, numbers = reader.operand(operator.inputs[0]), reader.shape(operator.inputs[0]), reader.integers(operator)
    if operator.kind == "BROADCAST_TO":
        if len(numbers) != len(shape):
            raise ForeignOpError("it adds axes")
        numbers = [wanted // size for wanted, size in zip(numbers, shape, strict=True)]
    reader.add(Tile(tuple(numbers)), (x,), operator.outputs[0])


def _resize(mode: Interpolation) -> Callable[[Reader, Operator], None]:
    def read(reader: Reader, operator: Operator) -> None:
        height, width = (reader.recorded(operator.outputs[0]) or (0, *reader.integers(operator)))[1:3]
        corners, half = operator.options["alignCorners"], operator.options["halfPixelCenters"]
        op = Resize((height, width), mode, bool(corners), bool(half) and not corners)
        reader.add(op, (reader.operand(operator.inputs[0]),), operator.outputs[0])

    return read


READERS: dict[str, Callable[[Reader, Operator], None]] = {
    "ADD": _add,
    "ADD_N": _add_n,
    "ARG_MAX": _arg("max"),
    "ARG_MIN": _arg("min"),
    "AVERAGE_POOL_2D": _pool,
    "BATCH_MATMUL": _batch_matmul,
    "BROADCAST_TO": _tile,
    "CAST": _cast,
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "DEPTH_TO_SPACE": _one_to_one(lambda options: DepthToSpace(options["blockSize"])),
    "DEQUANTIZE": _dequantize,
    "DIV": _of_two(Div()),
    "ELU": _one_to_one(lambda options: ELU()),
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GELU": _one_to_one(lambda options: Gelu(bool(options["approximate"]))),
    "L2_NORMALIZATION": _one_to_one(lambda options: L2Norm()),
    "LEAKY_RELU": _one_to_one(lambda options: LeakyReLU(options["alpha"])),
    "LOCAL_RESPONSE_NORMALIZATION": _local_response_norm,
    "LOGISTIC": _logistic,
    "LOG_SOFTMAX": _log_softmax,
    "MAXIMUM": _of_two(Maximum()),
    "MAX_POOL_2D": _pool,
    "MEAN": _reduction(ReduceKind.MEAN),
    "MINIMUM": _of_two(Minimum()),
    "MIRROR_PAD": _pad,
    "MUL": _of_two(Mul()),
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "POW": _of_two(Pow()),
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "REDUCE_MAX": _reduction(ReduceKind.MAX),
    "REDUCE_MIN": _reduction(ReduceKind.MIN),
    "REDUCE_PROD": _reduction(ReduceKind.PROD),
    "RELU_0_TO_1": _one_to_one(lambda options: Clip(0.0, 1.0)),
    "RELU_N1_TO_1": _one_to_one(lambda options: Clip(-1.0, 1.0)),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize(Interpolation.BILINEAR),
    "RESIZE_NEAREST_NEIGHBOR": _resize(Interpolation.NEAREST),
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _one_to_one(lambda options: SpaceToDepth(options["blockSize"])),
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _of_two(Sub()),
    "SUM": _reduction(ReduceKind.SUM),
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNPACK": _unpack,
}
"""Every op that netlathe reads, by its builtin name."""


def _of_function(op: Op) -> Callable[[Reader, Operator], None]:
    return _one_to_one(lambda options: op)


READERS |= {kind: _of_function(Activation(f)) for f, kind in ACTIVATIONS.items() if kind not in READERS}
READERS |= {
    function.name: _of_function(Unary(function))
    for function in UnaryKind
    if function not in (UnaryKind.ERF, UnaryKind.RECIPROCAL, UnaryKind.SOFTPLUS)
}
