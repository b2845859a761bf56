"""ONNX's ops over axes -> Graph: what arranges, joins, cuts and reduces tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import CHANNELS_FIRST, Axes, Value, in_graph, plain
from netlathe.archspace.forms.onnx_constants import Stored
from netlathe.archspace.forms.onnx_layers import checked_axis, global_mean
from netlathe.archspace.forms.onnx_values import NotReadError, Reader, attributes_of
from netlathe.archspace.ops import (
    ArgMax,
    Concat,
    Gather,
    GlobalAvgPool,
    Pad,
    PadAxes,
    PadMode,
    Pair,
    Reduce,
    ReduceKind,
    Shape,
    Slice,
    Split,
    Tile,
    Unary,
    UnaryKind,
)

_REDUCTIONS = {
    "ReduceL1": ReduceKind.L1,
    "ReduceL2": ReduceKind.L2,
    "ReduceMax": ReduceKind.MAX,
    "ReduceMean": ReduceKind.MEAN,
    "ReduceMin": ReduceKind.MIN,
    "ReduceProd": ReduceKind.PROD,
    "ReduceSum": ReduceKind.SUM,
    "ReduceSumSquare": ReduceKind.SUM,
}


def _reshape(reader: Reader, node: NodeProto) -> None:
    x, wanted = reader.shape(node.input[0]), reader.setting(node, "shape", 1)
    keeps = not attributes_of(node).get("allowzero", 0)
    try:
        sizes = [x[axis] if size == 0 and keeps else size for axis, size in enumerate(wanted)]
    except IndexError:
        raise FormatError(f"it keeps an axis of {x} that there is not: {wanted}") from None
    _to_shape(reader, node, sizes)


def _to_shape(reader: Reader, node: NodeProto, sizes: list[int]) -> None:
    """Sizes, of which one may be -1."""
    x = reader.shape(node.input[0])
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0:
        sizes[sizes.index(-1)] = math.prod(x) // known
    if any(size < 1 for size in sizes) or math.prod(sizes) != math.prod(x):
        raise FormatError(f"it makes {x} into {tuple(sizes)!s:.80}, which holds another number of values")
    reader.bind(node.output[0], reader.reshape(node.input[0], tuple(sizes)))


def _flatten(reader: Reader, node: NodeProto) -> None:
    x = reader.shape(node.input[0])
    axis = attributes_of(node).get("axis", 1)
    axis = len(x) if axis == len(x) else checked_axis(axis, len(x))
    _to_shape(reader, node, [math.prod(x[:axis]), math.prod(x[axis:])])


def _squeeze(reader: Reader, node: NodeProto) -> None:
    x = reader.shape(node.input[0])
    axes = reader.setting(node, "axes", 1)
    gone = (
        {checked_axis(a, len(x)) for a in np.ravel(axes).tolist()}
        if axes is not None
        else {axis for axis, size in enumerate(x) if size == 1}
    )
    if any(x[axis] != 1 for axis in gone):
        raise FormatError(f"it squeezes axes {sorted(gone)} of {x}, which hold more than one value")
    _to_shape(reader, node, [size for axis, size in enumerate(x) if axis not in gone])


def _unsqueeze(reader: Reader, node: NodeProto) -> None:
    x, axes = reader.shape(node.input[0]), np.ravel(reader.setting(node, "axes", 1)).tolist()
    rank = len(x) + len(axes)
    added = {checked_axis(axis, rank) for axis in axes}
    sizes = iter(x)
    _to_shape(reader, node, [1 if axis in added else next(sizes) for axis in range(rank)])


def _transpose(reader: Reader, node: NodeProto) -> None:
    """Another order of the file's axes; the graph's stay where they are until something asks for another."""
    value = reader.value(node.input[0])
    rank = len(value.axes)
    perm = attributes_of(node).get("perm", range(rank)[::-1])
    if sorted(perm) != [*range(rank)]:
        raise FormatError(f"its perm {tuple(perm)!s:.60} does not name each of {rank} axes once")
    axes = tuple([value.axes[axis] for axis in perm])
    moved = value.is_transposed or axes != value.axes
    is_native = axes in (plain(rank), CHANNELS_FIRST[4]) and len(reader.graph_shape(value.operand)) == rank
    reader.bind(node.output[0], Value(value.operand, axes, moved and not is_native))


def _concat(reader: Reader, node: NodeProto) -> None:
    names = [name for name in node.input if name and 0 not in reader.shape(name)]
    values = [reader.value(name) for name in names if reader.constant(name) is None]
    main = max(values, key=lambda value: math.prod(reader.graph_shape(value.operand)))
    rank = len(reader.graph_shape(main.operand))
    axis = main.axes[checked_axis(attributes_of(node)["axis"], len(main.axes))]
    operands = []
    for name in names:
        stored = reader.constant(name)
        if len(reader.shape(name)) != len(main.axes):
            raise FormatError(f"it joins {reader.shape(name)} and others of {len(main.axes)} axes")
        if stored is not None:
            shape = in_graph(stored.shape, main.axes, rank)
            operands.append(reader.stored(stored, name, shape, main.axes))
        else:
            operands.append(reader.placed(reader.value(name), main.axes, rank))
    if len(operands) == 1:
        return reader.bind(node.output[0], Value(operands[0], main.axes, main.is_transposed))
    op = Concat() if axis == rank - 1 else Concat(axis)
    return reader.add(node, op, *operands, axes=main.axes, transposed=main.is_transposed)


def _split(reader: Reader, node: NodeProto) -> None:
    value, x = reader.value(node.input[0]), reader.shape(node.input[0])
    axis, parts = checked_axis(attributes_of(node).get("axis", 0), len(x)), len(node.output)
    part = -(-x[axis] // parts)
    even = (part,) * (parts - 1) + (x[axis] - part * (parts - 1),)
    sizes = reader.setting(node, "split", 1, default=even)
    if parts == 1:
        return reader.bind(node.output[0], value)
    return reader.add_several(node, Split(tuple(sizes), value.axes[axis]), value)


def _slice(reader: Reader, node: NodeProto) -> None:
    x = reader.shape(node.input[0])
    starts, ends = (np.ravel(reader.setting(node, name, at)).tolist() for at, name in ((1, "starts"), (2, "ends")))
    axes = reader.setting(node, "axes", 3, default=range(len(starts)))
    steps = reader.setting(node, "steps", 4, default=(1,) * len(starts))
    parts: dict[int, range] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = checked_axis(axis, len(x))
        if step == 0:
            raise FormatError("it cuts in steps of 0")
        parts[place] = range(*slice(start, end, step).indices(x[place]))
    cut(reader, node, parts)


def cut(reader: Reader, node: NodeProto, parts: dict[int, range]) -> None:
    """The places along some of the file's axes."""
    value, x = reader.value(node.input[0]), reader.shape(node.input[0])
    if not all(parts.values()):
        raise FormatError(f"nothing is left of {x} by what it cuts")
    if all(part == range(x[axis]) for axis, part in parts.items()):
        return reader.bind(node.output[0], value)
    shape = reader.graph_shape(value.operand)
    begins, sizes, steps = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, part in parts.items():
        place = value.axes[axis]
        begins[place], sizes[place], steps[place] = part.start, len(part), part.step if len(part) > 1 else 1
    op = Slice(tuple(begins), tuple(sizes), tuple(steps) if any(n != 1 for n in steps) else ())
    return reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed)


def _gather(reader: Reader, node: NodeProto) -> None:
    """Places along an axis: a cut where they are constant and evenly spaced."""
    x = reader.shape(node.input[0])
    axis = checked_axis(attributes_of(node).get("axis", 0), len(x))
    indices = reader.constant(node.input[1])
    if indices is not None and indices.is_known and reader.constant(node.input[0]) is None:
        places = [int(n) % x[axis] for n in np.ravel(indices.array("indices"))]
        step = places[1] - places[0] if len(places) > 1 else 1
        part = range(places[0], places[-1] + (1 if step > 0 else -1), step) if places and step else range(0)
        if [*part] == places and places:
            cut(reader, node, {axis: part})
            if len(indices.shape) != 1:
                shape = (*x[:axis], *indices.shape, *x[axis + 1 :])
                reader.bind(node.output[0], reader.reshape(node.output[0], shape))
            return None
    value = reader.value(node.input[0])
    shape = reader.graph_shape(value.operand)
    operand, axes = value.operand, value.axes
    taken = indices.shape if indices is not None else reader.shape(node.input[1])
    if len(taken) != 1 or len(shape) != len(axes):
        operand, axes = reader.plain(node.input[0]), plain(len(x))
    places_operand = (
        reader.stored(indices, node.input[1], taken or (1,), plain(len(taken)))
        if indices
        else reader.plain(node.input[1])
    )
    if len(taken) == 1:
        return reader.add(node, Gather(axes[axis]), operand, places_operand, axes=axes)
    reader.add(node, Gather(axis), operand, places_operand, axes=plain(len(x) - 1 + max(len(taken), 1)))
    if not taken:
        reader.bind(node.output[0], reader.reshape(node.output[0], (*x[:axis], *x[axis + 1 :])))
    return None


def _expand(reader: Reader, node: NodeProto) -> None:
    x, wanted = reader.shape(node.input[0]), reader.setting(node, "shape", 1)
    rank = max(len(x), len(wanted))
    wide = (1,) * (rank - len(x)) + x
    target = [max(a, b) for a, b in zip(wide, (1,) * (rank - len(wanted)) + tuple(wanted), strict=True)]
    _repeat(reader, node, wide, [n // size for n, size in zip(target, wide, strict=True)])


def _tile(reader: Reader, node: NodeProto) -> None:
    x = reader.shape(node.input[0])
    repeats = reader.setting(node, "repeats", 1)
    if len(repeats) != len(x):
        raise FormatError(f"it repeats {x} {repeats} times, which are not as many axes")
    _repeat(reader, node, x, repeats)


def _repeat(reader: Reader, node: NodeProto, shape: Shape, repeats: Sequence[int]) -> None:
    value = reader.reshape(node.input[0], shape)
    if all(times == 1 for times in repeats):
        return reader.bind(node.output[0], value)
    rank = len(reader.graph_shape(value.operand))
    op = Tile(in_graph(repeats, value.axes, rank))
    return reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed)


def _pad(reader: Reader, node: NodeProto) -> None:
    x, value = reader.shape(node.input[0]), reader.value(node.input[0])
    amounts, settings = reader.setting(node, "pads", 1), attributes_of(node)
    axes = reader.setting(node, "axes", 3, default=None)
    amounts = settings.get("paddings", []) if amounts is None else amounts
    places = [checked_axis(a, len(x)) for a in axes] if axes is not None else [*range(len(x))]
    if len(amounts) != 2 * len(places):
        raise FormatError(f"it pads {x} by {amounts}, which are not as many axes")
    rank = len(reader.graph_shape(value.operand))
    pairs: list[Pair] = [(0, 0)] * rank
    for place, axis in enumerate(places):
        pairs[value.axes[axis]] = (amounts[place], amounts[place + len(places)])
    value, pairs = _cropped(reader, node, value, pairs)
    mode = settings.get("mode", "constant")
    filler = reader.setting(node, "value", 2, default=0)
    number = float(np.ravel(filler)[0]) if filler not in (None, []) else 0.0
    if not any(map(any, pairs)):
        return reader.bind(node.output[0], value)
    op: Any
    if mode == "constant" and number == 0 and rank == 4 and not any((*pairs[0], *pairs[3])):
        op = Pad(pairs[1], pairs[2])
    elif mode in ("constant", "reflect", "edge"):
        op = PadAxes(tuple(pairs), PadMode(mode), number if mode == "constant" else 0.0)
    else:
        raise NotReadError(f"its mode is {mode!r:.40}")
    return reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed)


def _cropped(reader: Reader, node: NodeProto, value: Value, pairs: list[Pair]) -> tuple[Value, list[Pair]]:
    """Part that negative amounts leave of a value, and the other amounts."""
    shape = reader.graph_shape(value.operand)
    begins = tuple([max(-before, 0) for before, _ in pairs])
    sizes = tuple([n - begin - max(-after, 0) for n, begin, (_, after) in zip(shape, begins, pairs, strict=True)])
    if min(sizes) < 1:
        raise FormatError(f"nothing is left of {shape} by what it cuts off")
    if sizes != shape:
        operand = reader.emit(node.name or node.output[0], "_crop", Slice(begins, sizes), value.operand)
        value = Value(operand, value.axes, value.is_transposed)
    return value, [(max(before, 0), max(after, 0)) for before, after in pairs]


def _reduce(reader: Reader, node: NodeProto) -> None:
    value, x = reader.value(node.input[0]), reader.shape(node.input[0])
    given = reader.setting(node, "axes", 1)
    if not given and attributes_of(node).get("noop_with_empty_axes", 0):
        return reader.bind(node.output[0], value)
    keep = bool(attributes_of(node).get("keepdims", 1))
    reduced = sorted({checked_axis(axis, len(x)) for axis in np.ravel(given).tolist()}) if given else [*range(len(x))]
    shape = reader.graph_shape(value.operand)
    places = tuple(sorted(value.axes[axis] for axis in reduced))
    if node.op_type == "ReduceMean" and (places, len(shape)) == ((1, 2), 4) and len(x) == 4:
        if value.axes == CHANNELS_FIRST[4] and keep:
            return global_mean(reader, node, value.operand, 4)
        axes = value.axes if keep else _without(value.axes, reduced)
        return reader.add(node, GlobalAvgPool(keep), value.operand, axes=axes, transposed=value.is_transposed)
    operand = value.operand
    if node.op_type == "ReduceSumSquare":
        operand = reader.emit(node.name or node.output[0], "_square", Unary(UnaryKind.SQUARE), operand)
    if not places:
        return reader.bind(node.output[0], Value(operand, value.axes))
    op = Reduce(_REDUCTIONS[node.op_type], places, keep)
    axes = value.axes if keep else _without(value.axes, reduced)
    return reader.add(node, op, operand, axes=axes, transposed=value.is_transposed and keep)


def _without(axes: Axes, gone: Sequence[int]) -> Axes:
    """The axes of what is left when some of the file's are reduced away in both."""
    places = {axes[axis] for axis in gone}
    left = [place for axis, place in enumerate(axes) if axis not in gone]
    return tuple([place - sum(other < place for other in places) for place in left])


def _arg_max(reader: Reader, node: NodeProto) -> None:
    value, settings = reader.value(node.input[0]), attributes_of(node)
    axis = checked_axis(settings.get("axis", 0), len(value.axes))
    keep = bool(settings.get("keepdims", 1))
    op = ArgMax(value.axes[axis], keep, "max" if node.op_type == "ArgMax" else "min")
    axes = value.axes if keep else _without(value.axes, [axis])
    reader.add(node, op, value.operand, axes=axes, transposed=value.is_transposed and keep)


def _shape(reader: Reader, node: NodeProto) -> None:
    """A shape is fixed, and so a constant."""
    x, settings = reader.shape(node.input[0]), attributes_of(node)
    part = x[settings.get("start", 0) : settings.get("end", len(x))]
    reader.define(node.output[0], Stored.of_array(np.array(part, np.int64)))


def _size(reader: Reader, node: NodeProto) -> None:
    reader.define(node.output[0], Stored.of_array(np.array(math.prod(reader.shape(node.input[0])), np.int64)))


def _identity(reader: Reader, node: NodeProto) -> None:
    if any(name in reader.outputs or reader.users(name) for name in node.output[1:] if name):
        raise NotReadError("it also gives its mask")
    reader.bind(node.output[0], reader.value(node.input[0]))


SHAPES: dict[str, Callable[[Reader, NodeProto], None]] = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "ArgMax": _arg_max,
    "ArgMin": _arg_max,
    "Concat": _concat,
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
