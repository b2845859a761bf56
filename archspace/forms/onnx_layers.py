"""ONNX's layers and windows -> Graph: convolutions, matrix products, pools, normalisations, resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import NodeProto

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import CHANNELS_FIRST, LINE, Axes, Value, plain
from netlathe.archspace.forms.onnx_arrays import (
    batch_norm_arrays,
    conv_arrays,
    dense_arrays,
    gemm_arrays,
    group_norm_arrays,
    norm_arrays,
    transposed_conv_arrays,
)
from netlathe.archspace.forms.onnx_values import NotReadError, Reader, attributes_of
from netlathe.archspace.kernels import Borders
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv2d,
    DepthToSpace,
    FullyConnected,
    GlobalAvgPool,
    GroupNorm,
    Interpolation,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    MatMul,
    Pad,
    Padding,
    Pair,
    Pool2d,
    Reduce,
    ReduceKind,
    Resize,
    Shape,
    SpaceToDepth,
    TransposeConv2d,
    same_padding,
)

NONE: Borders = ((0, 0), (0, 0))
SUMS = "netlathe.sums"
"""The domain that tells a layer on integers that gives the sums of its products."""


def flat(values: Sequence[int], line: bool, default: int) -> tuple[int, int]:
    """(height, width) of a setting, which of a sequence has a width alone."""
    if len(values) != (1 if line else 2):
        raise FormatError(f"its settings {tuple(values)!s:.60} are not of as many axes as its input has")
    return (default, values[0]) if line else (values[0], values[1])


def image_axes(rank: int) -> Axes:
    """The axes of what a layer of images gives, of that rank in the file."""
    return LINE if rank == 3 else CHANNELS_FIRST[4]


def _borders(settings: Mapping[str, Any], x: Shape, span: Pair, stride: Pair, *, line: bool) -> Borders:
    auto = settings.get("auto_pad", "NOTSET") or "NOTSET"
    if auto == "NOTSET":
        pads = settings.get("pads", (0, 0) if line else (0, 0, 0, 0))
        if len(pads) != (2 if line else 4):
            raise FormatError(f"its pads {tuple(pads)!s:.60} are not of as many axes as its input has")
        return ((0, 0), (pads[0], pads[1])) if line else ((pads[0], pads[2]), (pads[1], pads[3]))
    if auto not in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        raise FormatError(f"its auto_pad {auto!r:.40} is none of ONNX's")
    if auto == "VALID":
        return NONE
    height, width = (same_padding(x[axis + 1], span[axis], stride[axis]) for axis in (0, 1))
    return (height, width) if auto == "SAME_UPPER" else (height[::-1], width[::-1])


def _padding(borders: Borders, x: Shape, span: Pair, stride: Pair) -> Padding | None:
    """None where the borders are neither SAME's nor none."""
    if borders == tuple(same_padding(x[axis + 1], span[axis], stride[axis]) for axis in (0, 1)):
        return Padding.SAME
    return Padding.VALID if borders == NONE else None


def conv(reader: Reader, node: NodeProto) -> None:
    """A convolution, with the BatchNorm, factor or offset per channel that follows it."""
    (out, group_in, *taps), weights = reader.kernel(node.input[1], 3, 4)
    settings, line = attributes_of(node), len(taps) == 1
    x, groups = reader.image(node.input[0]), settings.get("group", 1)
    shape, rank = reader.graph_shape(x), 3 if line else 4
    if len(reader.shape(node.input[0])) != rank:
        raise FormatError(f"its kernel of rank {rank} meets an input of shape {reader.shape(node.input[0])}")
    if shape[-1] != group_in * groups:
        raise FormatError(f"its kernel takes {group_in * groups} channels, its input has {shape[-1]}")
    kernel = flat(taps, line, 1)
    stride = flat(settings.get("strides", (1,) * len(taps)), line, 1)
    dilation = flat(settings.get("dilations", (1,) * len(taps)), line, 1)
    dilation = (dilation[0] if kernel[0] > 1 else 1, dilation[1] if kernel[1] > 1 else 1)
    check_positive(kernel=kernel, strides=stride, dilations=dilation, group=(groups, 1))
    span = ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)
    borders = _borders(settings, shape, span, stride, line=line)
    padding = _padding(borders, shape, span, stride)
    if padding is None:
        x = reader.emit(node.name or node.output[0], "_pad", Pad(*borders), x)
    (y,) = node.output
    norm = reader.absorb_user(y, "BatchNormalization", lambda norm: norm.input[0] == y)
    behind = [norm] if norm else _absorb_affine(reader, y, out, rank)
    op = Conv2d(
        out, kernel, stride, groups, padding or Padding.VALID, batch_norm=norm is not None, dilation=dilation,
        weights=weights, gives_sums=gives_sums(node),
    )  # fmt: skip
    reader.add(
        node, op, x, axes=image_axes(rank), into=behind[-1].output[0] if behind else y,
        stored=lambda: conv_arrays(reader, node, behind),
    )  # fmt: skip


def gives_sums(node: NodeProto) -> bool:
    """Whether an op on integers stops at the sums of its products: those that are called after integers do."""
    return bool(node.domain == SUMS)


def check_positive(**settings: Sequence[int]) -> None:
    """Raises FormatError for sizes that are none."""
    for name, values in settings.items():
        if not all(0 < value < 2**31 for value in values):
            raise FormatError(f"its {name} {tuple(values)!s:.60} must be positive")


def _absorb_affine(reader: Reader, y: str, channels: int, rank: int) -> list[NodeProto]:
    """The product with, then the sum with, a constant per channel behind a convolution: runtimes fold them in."""
    wanted = (channels, *(1,) * (rank - 2))

    def per_channel(user: NodeProto) -> bool:
        others = [reader.constant(name) for name in user.input if name != last_name]
        if len(others) != 1 or others[0] is None:
            return False
        shape = others[0].shape
        return shape in (wanted, (1, *wanted))

    absorbed, last_name = [], y
    for kind in ("Mul", "Add"):
        found = reader.absorb_user(last_name, kind, per_channel)
        if found is not None:
            absorbed.append(found)
            last_name = found.output[0]
    return absorbed


def transposed_conv(reader: Reader, node: NodeProto) -> None:
    """A transposed convolution; its weights are (in, out / groups, kh, kw) in the file."""
    (_, group_out, *taps), weights = reader.kernel(node.input[1], 3, 4)
    settings, line = attributes_of(node), len(taps) == 1
    x, groups = reader.image(node.input[0]), settings.get("group", 1)
    shape = reader.graph_shape(x)
    kernel = flat(taps, line, 1)
    stride = flat(settings.get("strides", (1,) * len(taps)), line, 1)
    check_positive(kernel=kernel, strides=stride, group=(groups, 1))
    if any(n != 1 for n in settings.get("dilations", ())):
        raise NotReadError("it is a dilated transposed convolution")
    added = flat(settings.get("output_padding", (0,) * len(taps)), line, 0)
    cut = _cut(settings, shape, kernel, stride, added, line=line)
    op = TransposeConv2d(group_out * groups, kernel, stride, groups, *cut, weights=weights)
    (y,) = node.output
    norm = reader.absorb_user(y, "BatchNormalization", lambda norm: norm.input[0] == y)
    reader.add(
        node, op, x, axes=image_axes(3 if line else 4), into=norm.output[0] if norm else y,
        stored=lambda: transposed_conv_arrays(reader, node, [norm] if norm else []),
    )  # fmt: skip


def _cut(
    settings: Mapping[str, Any], x: Shape, kernel: Pair, stride: Pair, added: Pair, *, line: bool
) -> tuple[Pair, Pair]:
    """Amounts that are cut off the full result along height and width."""
    auto, wanted = settings.get("auto_pad", "NOTSET") or "NOTSET", settings.get("output_shape")
    if wanted is None and auto in ("NOTSET", "VALID"):
        borders = _borders(settings, x, kernel, stride, line=line)
        (top, bottom), (left, right) = borders
        return (top, bottom - added[0]), (left, right - added[1])
    sizes = flat(wanted[-1:] if line else wanted[-2:], line, 1) if wanted else (x[1] * stride[0], x[2] * stride[1])
    cut = []
    for axis in (0, 1):
        total = (x[axis + 1] - 1) * stride[axis] + kernel[axis] + added[axis] - sizes[axis]
        half = max(total // 2 if auto == "SAME_UPPER" else total - total // 2, 0)
        cut.append((half, total - half - added[axis]))
    return cut[0], cut[1]


def pool(reader: Reader, node: NodeProto) -> None:
    """A pool over windows. Its border is its own, except where its zeros are averaged, too."""
    settings, line = attributes_of(node), len(reader.shape(node.input[0])) == 3
    x, rank = reader.image(node.input[0]), 3 if line else 4
    if any(name in reader.outputs or reader.users(name) for name in node.output[1:]):
        raise NotReadError("it also gives the places of its maxima")
    shape = reader.graph_shape(x)
    kernel = flat(settings["kernel_shape"], line, 1)
    stride = flat(settings.get("strides", (1,) * (rank - 2)), line, 1)
    if any(n != 1 for n in settings.get("dilations", ())):
        raise NotReadError("it is a dilated pool")
    check_positive(kernel_shape=kernel, strides=stride)
    borders = _borders(settings, shape, kernel, stride, line=line)
    own = _ceil_borders(shape, kernel, stride, borders) if settings.get("ceil_mode", 0) else borders
    if settings.get("count_include_pad", 0) and node.op_type != "MaxPool" and borders != NONE:
        x = reader.emit(node.name or node.output[0], "_pad", Pad(*borders), x)
        own = (0, own[0][1] - borders[0][1]), (0, own[1][1] - borders[1][1])
        shape = reader.graph_shape(x)
    mode: Any = "max" if node.op_type == "MaxPool" else "avg"
    padding = _padding(own, shape, kernel, stride)
    op = Pool2d(mode, kernel, stride, padding or Padding.VALID, *(() if padding else (own,)))
    reader.add(node, op, x, axes=image_axes(rank))


def _ceil_borders(x: Shape, kernel: Pair, stride: Pair, borders: Borders) -> Borders:
    """With what is missing to a last window behind the image, unless that would begin behind its own border."""
    found = []
    for axis in (0, 1):
        before, after = borders[axis]
        size = x[axis + 1] + before + after
        windows = -(-(size - kernel[axis]) // stride[axis]) + 1
        if (windows - 1) * stride[axis] >= x[axis + 1] + before:
            windows -= 1
        found.append((before, max(after, after + (windows - 1) * stride[axis] + kernel[axis] - size)))
    return found[0], found[1]


def global_pool(reader: Reader, node: NodeProto) -> None:
    """The mean or maximum over the image, of a mean without kept dimensions where a Flatten or the like follows."""
    x, rank = reader.image(node.input[0]), len(reader.shape(node.input[0]))
    if node.op_type == "GlobalMaxPool":
        return reader.add(node, Reduce(ReduceKind.MAX, (1, 2), keep_dims=True), x, axes=image_axes(rank))
    return global_mean(reader, node, x, rank)


def global_mean(reader: Reader, node: NodeProto, x: int, rank: int) -> None:
    """The mean over the pixels of an operand, and the flattening that follows it."""
    (y,) = node.output
    batch, *_, channels = reader.graph_shape(x)

    def flattens(user: NodeProto) -> bool:
        if user.op_type == "Flatten":
            return bool(attributes_of(user).get("axis", 1) in (1, 1 - rank))
        wanted = reader.constant(user.input[1]) if len(user.input) > 1 else None
        if user.op_type == "Squeeze":
            axes = reader.setting(user, "axes", 1, default=()) if wanted or len(user.input) < 2 else ()
            return sorted(axis % rank for axis in axes) == [*range(2, rank)]
        sizes = wanted.array("shape").tolist() if wanted and wanted.is_known and wanted.count == 2 else []
        return tuple(sizes) in {(b, c) for b in (0, batch, -1) for c in (-1, 0, channels)} - {(-1, -1), (-1, 0)}

    user = reader.sole_user(y)
    kinds = ("Flatten", "Squeeze", "Reshape")
    flat = reader.absorb_user(y, user.op_type, flattens) if user is not None and user.op_type in kinds else None
    axes = plain(2) if flat else image_axes(rank)
    reader.add(node, GlobalAvgPool(keep_dims=flat is None), x, axes=axes, into=flat.output[0] if flat else y)


def gemm(reader: Reader, node: NodeProto) -> None:
    """A fully connected layer, or where its second operand is computed, a product and a sum."""
    settings = attributes_of(node)
    swapped = bool(settings.get("transA", 0))
    for name in node.input[:2]:
        if len(reader.shape(name)) != 2:
            raise FormatError(f"it multiplies {reader.shape(name)}, which is no matrix")
    offset = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if reader.constant(node.input[1]) is None or (offset and reader.constant(offset) is None):
        return _computed_gemm(reader, node, offset)
    kernel, weights = reader.kernel(node.input[1], 2)
    out, features = kernel if settings.get("transB", 0) else kernel[::-1]
    value = reader.value(node.input[0])
    value = Value(value.operand, value.axes[::-1]) if swapped else value
    x = reader.placed(value, plain(2), 2)
    if reader.graph_shape(x)[1] != features:
        raise FormatError(f"its weights take {features} features, its input has {reader.graph_shape(x)}")
    op = FullyConnected(out, weights, gives_sums(node))
    return reader.add(node, op, x, axes=plain(2), stored=lambda: gemm_arrays(reader, node, out))


def _computed_gemm(reader: Reader, node: NodeProto, offset: str | None) -> None:
    """The product of two computed matrices, or of one and weights, plus what may be computed, too."""
    settings = attributes_of(node)
    if settings.get("alpha", 1) != 1 or (offset and settings.get("beta", 1) != 1):
        raise NotReadError("it scales a product of computed matrices")
    swaps = bool(settings.get("transA", 0)), bool(settings.get("transB", 0))
    left, right = reader.plain(node.input[0]), reader.plain(node.input[1])
    op, (y,) = MatMul(*swaps, gives_sums=gives_sums(node)), node.output
    if offset is None:
        return reader.add(node, op, left, right, axes=plain(2))
    product = f"{y}:product"
    reader.bind(product, Value(reader.emit(node.name or y, "_product", op, left, right), plain(2)))
    return reader.add_broadcast(node, Add(), [product, offset])


def matmul(reader: Reader, node: NodeProto) -> None:
    """A fully connected layer, with the bias that is added behind it, or a product of two tensors."""
    a, b = node.input[:2]
    weights = reader.constant(b)
    if weights is not None and len(weights.shape) == 2 and reader.constant(a) is None:
        return _dense(reader, node)
    settings = attributes_of(node)
    reader.expect_exact(settings.get("alpha", 1) == 1, f"it scales its product by {settings.get('alpha')}")
    shapes = [reader.shape(name) for name in (a, b)]
    if min(map(len, shapes)) < 2:
        raise NotReadError(f"it multiplies {shapes[0]} by {shapes[1]}; only matrices can be read")
    swaps = [bool(settings.get(name, 0)) for name in ("transA", "transB")]
    rank, operands = max(map(len, shapes)), []
    for place, name in enumerate((a, b)):
        value = reader.value(name)
        axes = plain(len(value.axes))
        last = (*axes[:-2], axes[-1], axes[-2])
        if value.axes == last and len(reader.graph_shape(value.operand)) == len(last):
            swaps[place] = not swaps[place]
            operands.append(value.operand)
        else:
            operands.append(reader.plain(name))
    return reader.add(node, MatMul(swaps[0], swaps[1], gives_sums(node)), *operands, axes=plain(rank))


def _dense(reader: Reader, node: NodeProto) -> None:
    (features, out), weights = reader.kernel(node.input[1], 2)
    if attributes_of(node).get("transB", 0):
        features, out = out, features
    if attributes_of(node).get("transA", 0):
        raise NotReadError("it transposes its input")
    value, shape = reader.value(node.input[0]), reader.shape(node.input[0])
    if len(shape) < 2:
        raise NotReadError(f"it multiplies a vector of shape {shape}")
    rank = len(reader.graph_shape(value.operand))
    x, axes = value.operand, value.axes
    if len(shape) != rank or value.axes[-1] != rank - 1:
        x, axes = reader.plain(node.input[0]), plain(len(shape))
    if shape[-1] != features:
        raise FormatError(f"its weights take {features} features, its input has {shape}")
    (y,) = node.output

    def is_bias(user: NodeProto) -> bool:
        others = [reader.constant(name) for name in user.input if name != y]
        return len(others) == 1 and others[0] is not None and others[0].shape in ((out,), (1, out))

    bias = reader.absorb_user(y, "Add", is_bias)
    into = bias.output[0] if bias else y
    reader.add(
        node, FullyConnected(out, weights, gives_sums(node)), x, axes=axes, transposed=value.is_transposed, into=into,
        stored=lambda: dense_arrays(reader, node, out, bias),
    )  # fmt: skip


def einsum(reader: Reader, node: NodeProto) -> None:
    """A sum of products of two tensors over the axes that both have and the result has not: a matrix product."""
    equation = attributes_of(node)["equation"].replace(" ", "")
    labels, _, out = equation.partition("->")
    operands = labels.split(",")
    distinct = all(len({*part}) == len(part) and part.isalpha() for part in (*operands, out))
    if len(operands) != 2 or not distinct or {*out} - {*labels}:
        raise NotReadError(f"its equation is {equation!r:.60}")
    a, b = operands
    rows, columns = [n for n in out if n not in b], [n for n in out if n not in a]
    batch, inner = [n for n in out if n in a and n in b], [n for n in a if n in b and n not in out]
    if {*a} - {*batch, *rows, *inner} or {*b} - {*batch, *columns, *inner}:
        raise NotReadError(f"its equation is {equation!r:.60}")
    sizes = dict(zip(a + b, (*reader.shape(node.input[0]), *reader.shape(node.input[1])), strict=True))
    left = _matrices(reader, node.input[0], a, (batch, rows, inner), sizes)
    right = _matrices(reader, node.input[1], b, (batch, inner, columns), sizes)
    given, order = node.output[0], [*batch, *rows, *columns]
    reader.add(node, MatMul(), left, right, axes=plain(len(batch) + 2))
    product = reader.reshape(given, tuple(sizes[n] for n in order))
    axes = tuple(product.axes[order.index(n)] for n in out)
    reader.bind(given, Value(product.operand, axes, axes != plain(len(out))))


def _matrices(
    reader: Reader, name: str, labels: str, parts: tuple[list[str], list[str], list[str]], sizes: Mapping[str, int]
) -> int:
    """A value's axes as (batch..., rows, columns)."""
    value, (batch, *sides) = reader.value(name), parts
    axes = tuple(value.axes[labels.index(n)] for part in parts for n in part)
    turned = f"{name}:{''.join(n for part in parts for n in part)}"
    reader.bind(turned, Value(value.operand, axes, is_transposed=axes != plain(len(axes))))
    shape = (*(sizes[n] for n in batch), *(math.prod(sizes[n] for n in side) for side in sides))
    matrices = reader.reshape(turned, shape)
    return reader.placed(matrices, plain(len(shape)), len(shape))


def batch_norm(reader: Reader, node: NodeProto) -> None:
    """A scale and an offset per channel of what is no convolution's alone."""
    rank = len(reader.shape(node.input[0]))
    if rank < 2 or (rank > 2 and rank not in CHANNELS_FIRST):
        raise NotReadError(f"it normalises a tensor of rank {rank}")
    x, axes = _channels_last(reader, node.input[0], rank)
    reader.add(node, BatchNorm(), x, axes=axes, stored=lambda: batch_norm_arrays(reader, node))


def _channels_last(reader: Reader, name: str, rank: int) -> tuple[int, Axes]:
    """The operand that has a value's channels last, and its axes there."""
    value = reader.value(name)
    if value.axes[1] == len(reader.graph_shape(value.operand)) - 1:
        return value.operand, value.axes
    axes = CHANNELS_FIRST.get(rank, plain(rank))
    return reader.placed(value, axes, rank), axes


def instance_norm(reader: Reader, node: NodeProto) -> None:
    """InstanceNormalization and GroupNormalization, also where the latter is written as the former of a reshaped image,
    with a scale and an offset per channel behind it."""
    shape, settings, into = reader.shape(node.input[0]), attributes_of(node), node.output[0]
    if len(shape) not in CHANNELS_FIRST:
        raise NotReadError(f"it normalises a tensor of shape {shape}")
    name, groups = node.input[0], settings.get("num_groups", shape[1])
    affine: list[NodeProto] = []
    scaled = into
    before = reader.producers.get(name)
    if before is not None and before.op_type == "Reshape" and len(reader.shape(before.input[0])) in CHANNELS_FIRST:
        image = reader.shape(before.input[0])
        back = reader.absorb_user(into, "Reshape", lambda user: _wanted_shape(reader, user) == image)
        if back is not None and image[0] == shape[0] and image[1] % groups == 0:
            affine, scaled = _absorb_affine(reader, back.output[0], image[1], len(image)), back.output[0]
            name, shape, into = before.input[0], image, [back, *affine][-1].output[0]
    x, axes = _channels_last(reader, name, len(shape))
    reader.add(
        node, GroupNorm(groups, settings.get("epsilon", 1e-5)), x, axes=axes, into=into,
        stored=lambda: group_norm_arrays(reader, node, groups, shape[1], affine, scaled),
    )  # fmt: skip


def _wanted_shape(reader: Reader, node: NodeProto) -> tuple[int, ...]:
    """The shape that a Reshape is given: a constant, or what a Shape that comes later will tell of a known value."""
    before = reader.producers.get(node.input[1])
    if before is not None and before.op_type == "Shape" and not before.attribute and reader.is_known(before.input[0]):
        return reader.shape(before.input[0])
    wanted = reader.constant(node.input[1])
    return tuple(wanted.array("shape").tolist()) if wanted is not None and wanted.is_known else ()


def layer_norm(reader: Reader, node: NodeProto) -> None:
    """LayerNormalization over the last axes of the file."""
    if any(name and (reader.users(name) or name in reader.outputs) for name in node.output[1:]):
        raise NotReadError("it also gives the statistics that it normalises by")
    settings, rank = attributes_of(node), len(reader.shape(node.input[0]))
    count = rank - checked_axis(settings.get("axis", -1), rank)
    if any(name and reader.constant(name) is None for name in node.input[1:]):
        raise NotReadError("its scale is computed")
    add_layer_norm(
        reader, node, node.input[0], count, settings.get("epsilon", 1e-5), affine=node.input[1:], into=node.output[0]
    )


def add_layer_norm(
    reader: Reader, node: NodeProto, name: str, count: int, epsilon: float, *, affine: Sequence[str], into: str
) -> None:
    """A LayerNorm over the last `count` axes that a value has in the file; `affine` are the constants of its scale and
    its bias, if it has any."""
    value = reader.value(name)
    rank, shape = len(value.axes), reader.shape(name)[-count:]
    in_place = len(reader.graph_shape(value.operand)) == rank and value.axes[-count:] == plain(rank)[-count:]
    x, axes = (value.operand, value.axes) if in_place else (reader.plain(name), plain(rank))
    reader.add(
        node, LayerNorm(count, bool(affine), epsilon), x,
        axes=axes, transposed=value.is_transposed and in_place, into=into,
        stored=lambda: norm_arrays(reader, affine, shape) if affine else {},
    )  # fmt: skip


def checked_axis(axis: int, rank: int) -> int:
    """An axis counted from the front. Raises FormatError where there is none."""
    if not -rank <= axis < rank:
        raise FormatError(f"there is no axis {axis} in a tensor of rank {rank}")
    return axis % rank


def local_response_norm(reader: Reader, node: NodeProto) -> None:
    """LRN over channels."""
    settings = attributes_of(node)
    op = LocalResponseNorm(
        settings["size"], settings.get("alpha", 1e-4), settings.get("beta", 0.75), settings.get("bias", 1.0)
    )
    if len(reader.shape(node.input[0])) != 4:
        raise NotReadError("it normalises what is no image")
    reader.add(node, op, reader.image(node.input[0]), axes=CHANNELS_FIRST[4])


def lp_norm(reader: Reader, node: NodeProto) -> None:
    """Division by the root of the sum of squares along an axis."""
    settings, value = attributes_of(node), reader.value(node.input[0])
    if settings.get("p", 2) != 2:
        raise NotReadError("it is a norm of another order than 2")
    axis = value.axes[checked_axis(settings.get("axis", -1), len(value.axes))]
    reader.add(node, L2Norm(axis), value.operand, axes=value.axes, transposed=value.is_transposed)


def resize(reader: Reader, node: NodeProto) -> None:
    """Resize and Upsample of an image's height and width, or of a sequence's length."""
    settings, shape = attributes_of(node), reader.shape(node.input[0])
    mode = settings.get("mode", "nearest")
    modes = {"nearest": Interpolation.NEAREST, "linear": Interpolation.BILINEAR, "bilinear": Interpolation.BILINEAR}
    if mode not in modes or settings.get("antialias", 0) or len(shape) not in (3, 4):
        raise NotReadError(f"it resamples a tensor of shape {shape} by {mode!r:.40}")
    sizes = _resized(reader, node, shape)
    if sizes[:2] != shape[:2]:
        raise NotReadError(f"it resamples {shape} to {sizes}, and not the image alone")
    places = settings.get("coordinate_transformation_mode", "half_pixel" if reader.opset >= 11 else "asymmetric")
    if places not in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"):
        raise NotReadError(f"its coordinate_transformation_mode is {places!r:.40}")
    size = (sizes[2], sizes[3]) if len(shape) == 4 else (1, sizes[2])
    op = Resize(size, modes[mode], align_corners=places == "align_corners", half_pixel="half_pixel" in places)
    reader.expect_exact(
        _is_exact(reader, node, op, shape, sizes), "it takes its pixels from other places than netlathe"
    )
    reader.add(node, op, reader.image(node.input[0]), axes=image_axes(len(shape)))


def _is_exact(reader: Reader, node: NodeProto, op: Resize, shape: Shape, sizes: Shape) -> bool:
    """Whether the graph's op takes each pixel from where the node does."""
    settings = attributes_of(node)
    if settings.get("coordinate_transformation_mode") == "pytorch_half_pixel" and 1 in sizes[2:]:
        return False
    scales = reader.setting(node, "scales", 1 if node.op_type == "Upsample" or reader.opset < 11 else 2)
    whole = scales and not settings.get("axes")  # of what scales make, only whole pixels are kept
    if whole and any(abs(n / before - by) > 1e-6 * by for n, before, by in zip(sizes, shape, scales, strict=True)):
        return False
    if op.mode is Interpolation.BILINEAR:
        return True
    is_whole = all(size % before == 0 for size, before in zip(sizes, shape, strict=True))
    rounding = settings.get("nearest_mode", "round_prefer_floor") if reader.opset >= 11 else "floor"
    if op.half_pixel:  # roundings differ where a place lies between two pixels, as none does at a whole scale
        return rounding == "round_prefer_ceil" or (is_whole and rounding.startswith("round"))
    return rounding == ("round_prefer_ceil" if op.align_corners else "floor")


def _resized(reader: Reader, node: NodeProto, shape: Shape) -> Shape:
    if node.op_type == "Upsample" or reader.opset < 11:
        scales = reader.setting(node, "scales", 1)
        sizes = None
    else:
        sizes = reader.setting(node, "sizes", 3) if len(node.input) > 3 and node.input[3] else None
        scales = reader.setting(node, "scales", 2) if sizes is None else None
    axes = attributes_of(node).get("axes") or range(len(shape))
    found = list(shape)
    for place, axis in enumerate(axes):
        axis = checked_axis(axis, len(shape))
        found[axis] = sizes[place] if sizes is not None else math.floor(shape[axis] * scales[place])
    return tuple(found)


def depth_to_space(reader: Reader, node: NodeProto) -> None:
    """DepthToSpace and SpaceToDepth."""
    settings, x = attributes_of(node), reader.image(node.input[0])
    block = settings["blocksize"]
    if node.op_type == "SpaceToDepth":
        return reader.add(node, SpaceToDepth(block), x, axes=CHANNELS_FIRST[4])
    crd = settings.get("mode", "DCR") == "CRD"
    return reader.add(node, DepthToSpace(block, pixel_shuffle=crd), x, axes=CHANNELS_FIRST[4])


def fused_conv(reader: Reader, node: NodeProto) -> None:
    """The convolution with an activation that ONNX Runtime's optimizer writes."""
    functions = {"Relu": ActivationKind.RELU, "Sigmoid": ActivationKind.SIGMOID, "": None}
    function = attributes_of(node).get("activation", "")
    if function not in functions or len(node.input) > 3:
        raise NotReadError(f"it applies {function!r:.40}")
    conv(reader, node)
    kind = functions[function]
    if kind:
        value = reader.value(node.output[0])
        reader.add(node, Activation(kind), value.operand, axes=value.axes)


LAYERS: dict[str, Callable[[Reader, NodeProto], None]] = {
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": transposed_conv,
    "DepthToSpace": depth_to_space,
    "Einsum": einsum,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GroupNormalization": instance_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
    "MatMul": matmul,
    "MaxPool": pool,
    "Resize": resize,
    "SpaceToDepth": depth_to_space,
    "Upsample": resize,
}
