"""Order of a flattened image's values: a file's is by channel, then pixel, a graph's by pixel, then channel.

A graph takes either for the other, as no latency goes by it. What reads weights, too, has to know which value went
where, so that the layer behind takes its columns in the graph's order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import singledispatch
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import Axes, Group
from netlathe.archspace.ops import Op, Shape

Order = NDArray[np.intp]
"""For each place along an axis in the graph, the place in the file."""

Orders = dict[int, Order]
"""By axis, counted from the end (-1), so that it is the same where an operand of fewer axes meets it; an axis that is
as in the file is missing."""

_MOST_VALUES = 1 << 24
"""Values of a flattened image that are followed; no layer has columns for more."""

Arrays = Mapping[str, NDArray[Any]]


class NotSeparableError(Exception):
    """A reshape mixes values so that no axis has an order of its own; `wanted` is the order in which they would have
    to come along the axis that they come from, if it is one."""

    def __init__(self, wanted: Order | None) -> None:
        super().__init__("a reshape mixes an image's channels with its pixels")
        self.wanted = wanted


def orders_after(
    part: Group, before: tuple[Shape, Axes, int], orders: Orders, after: tuple[Shape, Axes, int]
) -> Orders:
    """The orders of the axes that a reshape makes of a group. `before` and `after` are the file's shape, where its axes
    are in the graph, and the rank there. Raises NotSeparableError."""
    (old, old_axes, old_rank), (new, new_axes, new_rank) = before, after
    is_plain = not any(old_axes[axis] - old_rank in orders for axis in part.before)
    if is_plain and _ascends(part.before, old_axes) and _ascends(part.after, new_axes):
        return {}
    count = math.prod(old[axis] for axis in part.before)
    if count > _MOST_VALUES:
        raise NotSeparableError(None)
    values = np.arange(count).reshape([old[axis] for axis in part.before])
    for place, axis in enumerate(part.before):
        if (pending := orders.get(old_axes[axis] - old_rank)) is not None:
            values = values.take(pending, place)
    values = values.transpose(np.argsort([old_axes[axis] for axis in part.before])).reshape(-1)
    sizes = [new[axis] for axis in part.after]
    placed = np.argsort([new_axes[axis] for axis in part.after])
    wanted = np.arange(count).reshape(sizes).transpose(placed)
    if (values == wanted.reshape(-1)).all():
        return {}
    found: Orders = {}
    coordinates = np.unravel_index(values.reshape(wanted.shape), sizes)
    for place, index in enumerate(placed):
        along = np.moveaxis(coordinates[index], place, 0).reshape(sizes[index], -1)
        if not (along == along[:, :1]).all():
            raise NotSeparableError(wanted.reshape(-1) if len(part.before) == 1 else None)
        found[new_axes[part.after[index]] - new_rank] = along[:, 0]
    return {axis: order for axis, order in found.items() if not _is_plain(order)}


def _ascends(axes: Sequence[int], places: Axes) -> bool:
    return all(places[a] < places[b] for a, b in pairwise(axes))


def _is_plain(order: Order) -> bool:
    return bool((order == np.arange(len(order))).all())


def taken(values: NDArray[Any], orders: Orders) -> NDArray[Any]:
    """A constant that meets values in these orders; along axes of one value it has none."""
    for axis, order in orders.items():
        if -axis <= values.ndim and values.shape[axis] > 1:
            values = values.take(order, axis)
    return values


def met(shape: Shape, orders: Orders) -> Orders:
    """The orders of a constant of that shape, once it was taken in them."""
    return {axis: order for axis, order in orders.items() if -axis <= len(shape) and shape[axis] > 1}


def reordered(op: Op, arrays: Arrays, orders: Orders) -> Arrays:
    """A layer's arrays, for an input whose values come in these orders. Raises FormatError where that cannot be."""
    if isinstance(op, ops.FullyConnected | ops.Conv2d) and -1 in orders:
        return {**arrays, "kernel": arrays["kernel"].take(orders[-1], 1)}
    if isinstance(op, ops.BatchNorm | ops.PReLU | ops.LayerNorm):
        return {key: taken(values, orders) for key, values in arrays.items()}
    return arrays


def turned(op: Op, arrays: Arrays, axis: int, order: Order) -> Arrays | None:
    """A layer's arrays, so that its result comes in that order along an axis; None where the arrays cannot do it."""
    if isinstance(op, ops.Constant):
        return {"values": arrays["values"].take(order, axis)}
    if isinstance(op, ops.FullyConnected) and axis == -1:
        return {key: values.take(order, 0) for key, values in arrays.items()}
    return None


_POINTWISE = (
    ops.Activation, ops.Unary, ops.Gelu, ops.Clip, ops.Cast, ops.LeakyReLU, ops.ELU, ops.PReLU, ops.BatchNorm,
    ops.LayerNorm, ops.Softmax, ops.L2Norm,
)  # fmt: skip
"""Ops that leave each value where it is; what some of them sum up over an axis does not depend on its order."""
_WINDOWS = (ops.Pool2d, ops.Pad, ops.Resize)
"""Ops of single channels."""


def is_pointwise(op: Op) -> bool:
    """Whether an op leaves each value where it is."""
    return isinstance(op, _POINTWISE)


def carried(op: Op, orders: Sequence[Orders], shapes: Sequence[Shape]) -> Orders:
    """The orders of an op's results, of those of its inputs of these shapes. Raises FormatError where there are none:
    what is computed would depend on the order."""
    if is_pointwise(op):
        return orders[0]
    found = _carried(op, orders, shapes)
    if found is None:
        raise FormatError(f"it takes a flattened image, whose channels and pixels it cannot tell apart ({op.kind})")
    return found


@singledispatch
def _carried(op: Op, orders: Sequence[Orders], shapes: Sequence[Shape]) -> Orders | None:
    """None where the result depends on the order."""
    return orders[0] if isinstance(op, _WINDOWS) and {*orders[0]} <= {-1} else None


@_carried.register
def _carried_layer(
    op: ops.FullyConnected | ops.Conv2d, orders: Sequence[Orders], shapes: Sequence[Shape]
) -> Orders | None:
    left = {axis: order for axis, order in orders[0].items() if axis != -1}
    if isinstance(op, ops.Conv2d):
        return None if left or op.groups > 1 else {}
    return left


@_carried.register
def _carried_binary(
    op: ops.Add | ops.Mul | ops.Sub | ops.Div | ops.Minimum | ops.Maximum | ops.Pow,
    orders: Sequence[Orders],
    shapes: Sequence[Shape],
) -> Orders | None:
    return _common(orders, shapes, {*range(-max(map(len, shapes)), 0)})


def _common(orders: Sequence[Orders], shapes: Sequence[Shape], axes: set[int]) -> Orders | None:
    """The orders that all operands of more than one value along an axis have there; None where they differ."""
    found: Orders = {}
    for axis in axes:
        own = [o.get(axis) for o, shape in zip(orders, shapes, strict=True) if -axis <= len(shape) and shape[axis] > 1]
        if not own or all(order is None for order in own):
            continue
        first = own[0]
        if first is None or not all(order is not None and (order == first).all() for order in own):
            return None
        found[axis] = first
    return found


@_carried.register
def _carried_concat(op: ops.Concat, orders: Sequence[Orders], shapes: Sequence[Shape]) -> Orders | None:
    rank = len(shapes[0])
    joined = op.axis % rank - rank
    found = _common(orders, shapes, {*range(-rank, 0)} - {joined})
    if found is None or not any(joined in o for o in orders):
        return found
    sizes = [shape[joined] for shape in shapes]
    starts = np.cumsum([0, *sizes])
    parts = [o.get(joined, np.arange(n)) + at for o, n, at in zip(orders, sizes, starts, strict=False)]
    return {**found, joined: np.concatenate(parts)}


@_carried.register
def _carried_reduction(
    op: ops.Reduce | ops.GlobalAvgPool, orders: Sequence[Orders], shapes: Sequence[Shape]
) -> Orders | None:
    rank = len(shapes[0])
    gone = {axis % rank - rank for axis in (op.axes if isinstance(op, ops.Reduce) else (1, 2))}
    left = {axis: order for axis, order in orders[0].items() if axis not in gone}
    if op.keep_dims:
        return left
    return {axis + sum(other > axis for other in gone): order for axis, order in left.items()}


@_carried.register
def _carried_transpose(op: ops.Transpose, orders: Sequence[Orders], shapes: Sequence[Shape]) -> Orders | None:
    rank = len(op.perm)
    return {place - rank: orders[0][axis - rank] for place, axis in enumerate(op.perm) if axis - rank in orders[0]}


@_carried.register
def _carried_cut(
    op: ops.Slice | ops.Split | ops.Tile | ops.PadAxes, orders: Sequence[Orders], shapes: Sequence[Shape]
) -> Orders | None:
    """Cut, repeated or padded along other axes."""
    rank = len(shapes[0])
    changed: set[int]
    if isinstance(op, ops.Slice):
        changed = {axis for axis, size in enumerate(op.sizes) if size != shapes[0][axis]}
        changed |= {axis for axis, step in enumerate(op.steps) if step < 0}
    elif isinstance(op, ops.Split):
        changed = {op.axis % rank}
    elif isinstance(op, ops.Tile):
        changed = {axis for axis, times in enumerate(op.multiples) if times > 1}
    else:
        changed = {axis for axis, pair in enumerate(op.amounts) if any(pair)}
    return None if {axis % rank for axis in orders[0]} & changed else orders[0]


@_carried.register
def _carried_reshape(op: ops.Reshape, orders: Sequence[Orders], shapes: Sequence[Shape]) -> Orders | None:
    """Axes of one value that come and go."""
    before, after = shapes[0], op.output_shape(shapes[0])
    old, new = ([axis - len(s) for axis, size in enumerate(s) if size != 1] for s in (before, after))
    if [before[axis] for axis in old] != [after[axis] for axis in new]:
        return None
    places = dict(zip(old, new, strict=True))
    return {places[axis]: order for axis, order in orders[0].items()}
