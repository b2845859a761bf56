"""The rule of each op: which channels of its results and stored arrays go with which channels of its inputs.

`couple` labels what an op gives and stores, and unites the labels that it forces together; `resized` is the op with the
sizes that are left. An op without a row takes its channels as they are: they are fixed, for the reason that it names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np

from netlathe.archspace import ops
from netlathe.archspace.ops import Op, PadMode, Shape
from netlathe.compress.channels import Axes, Labels, UnionFind

MOST_ALONG = 1 << 22
"""Most indices along an axis, and of axes that a reshape joins; what is longer is left whole."""
_MOST_CHANNELS = 1 << 16
"""Most indices of an axis that can be cut where the op makes it."""


@dataclass(frozen=True, eq=False)
class Place:
    """Surroundings of an op: the node's name, the shapes of its inputs and results, the labels of its inputs."""

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]
    labels: tuple[Axes, ...]
    sets: UnionFind

    def because(self, reason: str) -> str:
        """The reason with the node in it."""
        return f"{self.kind} {self.name!r} {reason}"

    def fix(self, axes: Axes, reason: str) -> None:
        """Keeps whatever could be cut along those axes."""
        for labels in axes:
            if labels is not None:
                self.sets.fix(labels, self.because(reason))

    def unite_rows(self, rows: Labels) -> Labels:
        """The labels of a matrix' rows, each row united into one."""
        self.sets.unite(rows, np.broadcast_to(rows[:, :1], rows.shape))
        return rows[:, 0]

    def united(self, a: Labels | None, b: Labels | None) -> Labels | None:
        """The labels of two axes whose indices meet one to one; None where one of them cannot be cut."""
        if a is not None and b is not None:
            self.sets.unite(a, b)
            return a
        self.fix((a, b), "combines them with channels that cannot be cut")
        return None

    def channels(self) -> Labels | None:
        """The labels of an image's channels; other axes of it cannot be cut."""
        self.fix(self.labels[0][:-1], "takes them as pixels")
        return self.labels[0][-1]


@dataclass(frozen=True, eq=False)
class Coupled:
    """Labels of all that an op gives (a tuple of axes per result) and stores (by array). `parts` are the labels of
    index ranges whose length is a setting of the op, by its name."""

    results: tuple[Axes, ...]
    stored: Mapping[str, Axes] = field(default_factory=dict)
    parts: Mapping[str, Labels] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """Shapes at an op before (of its inputs and results) and after channels were cut, its stored arrays' included."""

    shapes_before: tuple[Shape, ...]
    results_before: tuple[Shape, ...]
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]
    stored: Mapping[str, Shape]
    parts: Mapping[str, int]


@singledispatch
def couple(op: Op, place: Place) -> Coupled:
    """The labels of an op's results and stored arrays. Unites and fixes labels of its inputs in `place.sets`."""
    return left_whole(place, "is not understood")


def left_whole(place: Place, reason: str) -> Coupled:
    """The labels at an op that keeps all that it takes and gives."""
    for axes in place.labels:
        place.fix(axes, reason)
    return Coupled(tuple((None,) * len(shape) for shape in place.results))


@singledispatch
def resized(op: Op, sizes: Sizes) -> Op:
    """The op that gives the remaining sizes from the remaining sizes."""
    return op


def _cuttable(place: Place, size: int) -> Labels | None:
    """New labels of an axis that the op makes; a table of more rows than any layer has channels is left whole."""
    return place.sets.fresh(size) if 1 < size <= _MOST_CHANNELS else None


# Element-wise ops.


@couple.register
def _same(
    op: ops.Activation | ops.Unary | ops.Gelu | ops.Clip | ops.Cast | ops.LeakyReLU | ops.ELU | ops.Quantize
    | ops.Dequantize | ops.L2Norm,
    place: Place,
) -> Coupled:  # fmt: skip
    return Coupled((place.labels[0],))


@couple.register
def _broadcast(
    op: ops.Add | ops.Mul | ops.Sub | ops.Div | ops.Minimum | ops.Maximum | ops.Pow, place: Place
) -> Coupled:
    rank = len(place.results[0])
    (a, of_a), (b, of_b) = (_widened(*found, rank) for found in zip(place.shapes, place.labels, strict=True))
    return Coupled((tuple(
        place.united(of_a[axis], of_b[axis]) if a[axis] == b[axis] else of_a[axis] if b[axis] == 1 else of_b[axis]
        for axis in range(rank)
    ),))  # fmt: skip


def _widened(shape: Shape, axes: Axes, rank: int) -> tuple[Shape, Axes]:
    """With axes of 1 in front."""
    more = rank - len(shape)
    return (1,) * more + shape, (None,) * more + axes


@couple.register
def _prelu(op: ops.PReLU, place: Place) -> Coupled:
    axes = place.labels[0]
    behind = axes[len(axes) - len(op.slopes) :]
    slopes = tuple(None if size == 1 else labels for size, labels in zip(op.slopes, behind, strict=True))
    return Coupled((axes,), {"slopes": slopes})


@resized.register
def _resized_prelu(op: ops.PReLU, sizes: Sizes) -> Op:
    return dataclasses.replace(op, slopes=sizes.stored["slopes"])


# Layers.


@couple.register
def _convolution(op: ops.Conv2d | ops.TransposeConv2d, place: Place) -> Coupled:
    batch, *pixels, channels = place.labels[0]
    if place.shapes[0][1:3] != place.results[0][1:3] or op.stride != (1, 1):
        place.fix(tuple(pixels), "takes them as pixels")
        pixels = [None, None]
    given, columns = _grouped(place, channels, op.groups)
    return Coupled(((batch, *pixels, given),), {"kernel": (given, columns, None, None), "bias": (given,)})


def _grouped(place: Place, taken: Labels | None, groups: int) -> tuple[Labels | None, Labels | None]:
    """Labels of a grouped layer's results, and of its kernel's second axis.

    It loses whole groups of channels, or the same channels of each group: whatever leaves more to choose from. A
    depthwise convolution, whose groups are single channels, is of the first kind.
    """
    takes, gives = place.shapes[0][-1], place.results[0][-1]
    if groups == 1:
        return _cuttable(place, gives), taken
    if not _loses_whole_groups(takes, gives, groups):
        given = np.tile(place.sets.fresh(gives // groups), groups)
        return given, None if taken is None else place.unite_rows(taken.reshape(groups, -1).T)
    if taken is None:
        return place.sets.fixed(gives, place.because("is grouped over channels that cannot be cut")), None
    return np.repeat(place.unite_rows(taken.reshape(groups, -1)), gives // groups), None


def _loses_whole_groups(takes: int, gives: int, groups: int) -> bool:
    return groups >= min(takes, gives) // groups


def _groups_left(groups: int, sizes: Sizes) -> int:
    takes = sizes.shapes_before[0][-1]
    if groups == 1 or not _loses_whole_groups(takes, sizes.results_before[0][-1], groups):
        return groups
    return sizes.shapes[0][-1] // (takes // groups)


@resized.register
def _resized_convolution(op: ops.Conv2d | ops.TransposeConv2d, sizes: Sizes) -> Op:
    return dataclasses.replace(op, out_channels=sizes.results[0][-1], groups=_groups_left(op.groups, sizes))


@couple.register
def _fully_connected(op: ops.FullyConnected, place: Place) -> Coupled:
    *others, taken = place.labels[0]
    given = _cuttable(place, op.out_features)
    return Coupled(((*others, given),), {"kernel": (given, taken), "bias": (given,)})


@resized.register
def _resized_fully_connected(op: ops.FullyConnected, sizes: Sizes) -> Op:
    return dataclasses.replace(op, out_features=sizes.results[0][-1])


@couple.register
def _matmul(op: ops.MatMul, place: Place) -> Coupled:
    """Indices that are summed over go together; the number of matrices, of an attention's heads, stays."""
    (*of_a, first, second), (*of_b, third, fourth) = place.labels
    place.fix((*of_a, *of_b), "has them as numbers of matrices, such as an attention's heads")
    rows, inner = (second, first) if op.transpose_a else (first, second)
    inner_b, columns = (fourth, third) if op.transpose_b else (third, fourth)
    place.united(inner, inner_b)
    return Coupled(((*(None,) * (len(place.results[0]) - 2), rows, columns),))


# Statistics: those of the channels that are left.


@couple.register
def _batch_norm(op: ops.BatchNorm, place: Place) -> Coupled:
    channels = place.labels[0][-1:]
    return Coupled((place.labels[0],), {"scale": channels, "bias": channels})


@couple.register
def _layer_norm(op: ops.LayerNorm, place: Place) -> Coupled:
    over = place.labels[0][-op.axes :]
    return Coupled((place.labels[0],), {"scale": over, "bias": over} if op.affine else {})


@couple.register
def _group_norm(op: ops.GroupNorm, place: Place) -> Coupled:
    channels = place.labels[0][-1]
    if channels is not None and op.groups > 1:
        rows, size = channels.reshape(op.groups, -1), place.shapes[0][-1]
        place.unite_rows(rows if _loses_whole_groups(size, size, op.groups) else rows.T)
    return Coupled((place.labels[0],), {"scale": (channels,), "bias": (channels,)})


@resized.register
def _resized_group_norm(op: ops.GroupNorm, sizes: Sizes) -> Op:
    return dataclasses.replace(op, groups=_groups_left(op.groups, sizes))


@couple.register
def _reduce(op: ops.Reduce, place: Place) -> Coupled:
    axes = place.labels[0]
    over = {axis % len(axes) for axis in op.axes}
    kept = [None if axis in over else labels for axis, labels in enumerate(axes) if op.keep_dims or axis not in over]
    return Coupled((tuple(kept) or (None,),))


@couple.register
def _softmax(op: ops.Softmax, place: Place) -> Coupled:
    place.fix((place.labels[0][op.axis],), "is taken over all of them")
    return Coupled((place.labels[0],))


@couple.register
def _arg_max(op: ops.ArgMax, place: Place) -> Coupled:
    axes = place.labels[0]
    axis = op.axis % len(axes)
    place.fix((axes[axis],), "tells their numbers")
    middle = (None,) if op.keep_dims or len(axes) == 1 else ()
    return Coupled(((*axes[:axis], *middle, *axes[axis + 1 :]),))


@couple.register
def _local_response_norm(op: ops.LocalResponseNorm, place: Place) -> Coupled:
    place.fix(place.labels[0][-1:], "looks at their neighbours")
    return Coupled((place.labels[0],))


# Images.


@couple.register
def _windows(op: ops.Pool2d | ops.Pad | ops.Resize, place: Place) -> Coupled:
    return Coupled(((place.labels[0][0], None, None, place.channels()),))


@couple.register
def _global_avg_pool(op: ops.GlobalAvgPool, place: Place) -> Coupled:
    batch, channels = place.labels[0][0], place.channels()
    return Coupled(((batch, None, None, channels) if op.keep_dims else (batch, channels),))


@couple.register
def _depth_to_space(op: ops.DepthToSpace, place: Place) -> Coupled:
    channels = place.channels()
    if channels is not None:
        of_each = channels.reshape((-1, op.block**2) if op.pixel_shuffle else (op.block**2, -1))
        channels = place.unite_rows(of_each if op.pixel_shuffle else of_each.T)
    return Coupled(((place.labels[0][0], None, None, channels),))


@couple.register
def _space_to_depth(op: ops.SpaceToDepth, place: Place) -> Coupled:
    channels = place.channels()
    tiled = None if channels is None else np.tile(channels, op.block**2)
    return Coupled(((place.labels[0][0], None, None, tiled),))


@couple.register
def _pad_axes(op: ops.PadAxes, place: Place) -> Coupled:
    """A constant border of an axis that may be cut can be cut itself."""
    axes: list[Labels | None] = []
    parts: dict[str, Labels] = {}
    for axis, (labels, amounts) in enumerate(zip(place.labels[0], op.amounts, strict=True)):
        if labels is None or not any(amounts):
            axes.append(None if any(amounts) else labels)
        elif op.mode is PadMode.CONSTANT:
            before, after = map(place.sets.fresh, amounts)
            parts |= {f"before {axis}": before, f"after {axis}": after}
            axes.append(np.concatenate([before, labels, after]))
        else:
            place.fix((labels,), "mirrors them")
            axes.append(None)
    return Coupled((tuple(axes),), parts=parts)


@resized.register
def _resized_pad_axes(op: ops.PadAxes, sizes: Sizes) -> Op:
    parts = sizes.parts
    amounts = tuple(
        (parts.get(f"before {axis}", before), parts.get(f"after {axis}", after))
        for axis, (before, after) in enumerate(op.amounts)
    )
    return dataclasses.replace(op, amounts=amounts)


# What arranges values.


@couple.register
def _concat(op: ops.Concat, place: Place) -> Coupled:
    rank = len(place.results[0])
    joined = op.axis % rank
    axes = list(place.labels[0])
    for other in place.labels[1:]:
        axes = [None if axis == joined else place.united(axes[axis], other[axis]) for axis in range(rank)]
    if any(labels[joined] is not None for labels in place.labels):
        axes[joined] = np.concatenate([
            place.sets.fixed(shape[joined], place.because("joins channels that cannot be cut"))
            if labels[joined] is None else labels[joined]
            for shape, labels in zip(place.shapes, place.labels, strict=True)
        ])  # fmt: skip
    return Coupled((tuple(axes),))


@couple.register
def _split(op: ops.Split, place: Place) -> Coupled:
    axes = place.labels[0]
    axis = op.axis % len(axes)
    ends = np.cumsum(op.sizes)[:-1]
    cut = axes[axis]
    pieces = [None] * len(op.sizes) if cut is None else np.split(cut, ends)
    return Coupled(tuple((*axes[:axis], piece, *axes[axis + 1 :]) for piece in pieces))


@resized.register
def _resized_split(op: ops.Split, sizes: Sizes) -> Op:
    return dataclasses.replace(op, sizes=tuple(shape[op.axis] for shape in sizes.results))


@couple.register
def _slice(op: ops.Slice, place: Place) -> Coupled:
    axes: list[Labels | None] = []
    parts = {}
    steps = op.steps or (1,) * len(op.sizes)
    for axis, labels in enumerate(place.labels[0]):
        begin, size, step = op.begins[axis], op.sizes[axis], steps[axis]
        if labels is None:
            axes.append(None)
            continue
        if step == 1:
            parts[f"before {axis}"] = labels[:begin]
        else:
            place.fix((labels,), "takes every so many of them")
        axes.append(labels[begin + step * np.arange(size)])
    return Coupled((tuple(axes),), parts=parts)


@resized.register
def _resized_slice(op: ops.Slice, sizes: Sizes) -> Op:
    begins = tuple(sizes.parts.get(f"before {axis}", begin) for axis, begin in enumerate(op.begins))
    return dataclasses.replace(op, begins=begins, sizes=sizes.results[0])


@couple.register
def _transpose(op: ops.Transpose, place: Place) -> Coupled:
    return Coupled((tuple(place.labels[0][axis] for axis in op.perm),))


@couple.register
def _gather(op: ops.Gather, place: Place) -> Coupled:
    axes, indices = place.labels
    axis = op.axis % len(axes)
    place.fix((axes[axis], *indices), "picks them by number")
    return Coupled(((*axes[:axis], *(None,) * len(indices), *axes[axis + 1 :]),))


@couple.register
def _tile(op: ops.Tile, place: Place) -> Coupled:
    tiled = (
        None if labels is None else np.tile(labels, times)
        for labels, times in zip(place.labels[0], op.multiples, strict=True)
    )
    return Coupled((tuple(tiled),))


@couple.register
def _zeros(op: ops.Zeros, place: Place) -> Coupled:
    return Coupled(((None,) * len(op.shape) + (_cuttable(place, op.shape[-1]),),))


@resized.register
def _resized_zeros(op: ops.Zeros, sizes: Sizes) -> Op:
    return dataclasses.replace(op, shape=sizes.results[0][1:])


@couple.register
def _constant(op: ops.Constant, place: Place) -> Coupled:
    axes = tuple(_cuttable(place, size) for size in op.shape)
    return Coupled((axes,), {"values": axes})


@resized.register
def _resized_constant(op: ops.Constant, sizes: Sizes) -> Op:
    return dataclasses.replace(op, shape=sizes.results[0])


@couple.register
def _reshape(op: ops.Reshape, place: Place) -> Coupled:
    before, after, axes = place.shapes[0], place.results[0], place.labels[0]
    found: list[Labels | None] = []
    for taken, given in _blocks(before, after):
        found += _rearranged(place, before[taken], axes[taken], after[given])
    return Coupled((tuple(found),))


def _blocks(before: Shape, after: Shape) -> Iterator[tuple[slice, slice]]:
    """The least runs of axes on both sides that hold the same values."""
    i = j = 0
    while i < len(before) or j < len(after):
        first, start = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while (taken := math.prod(before[first:i])) != (given := math.prod(after[start:j])):
            i, j = (i + 1, j) if taken < given else (i, j + 1)
        yield slice(first, i), slice(start, j)


def _rearranged(place: Place, before: Shape, axes: Axes, after: Shape) -> list[Labels | None]:
    """The labels of axes that hold what others held, row by row."""
    cut = [(axis, labels) for axis, labels in enumerate(axes) if labels is not None and before[axis] > 1]
    if not cut:
        return [None] * len(after)
    if len(cut) > 1 or math.prod(before) > MOST_ALONG:
        place.fix(axes, "mixes them with other axes")
        return [None] * len(after)
    ((axis, labels),) = cut
    along = labels.reshape([-1 if place_ == axis else 1 for place_ in range(len(before))])
    grid = np.broadcast_to(along, before).reshape(after)
    return _split_up(place, grid)


def _split_up(place: Place, grid: Labels) -> list[Labels | None]:
    """The labels of a grid's axes, of which one can be cut: all values at an index of it are united. It is the axis
    that leaves most units, of equals the last."""
    units = np.unique(place.sets.roots(grid), return_inverse=True)[1].reshape(grid.shape)

    def units_left(axis: int) -> int:
        trial = UnionFind()
        labels = trial.fresh(int(units.max()) + 1)
        united = labels[_rows(units, axis)]
        trial.unite(united, np.broadcast_to(united[:, :1], united.shape))
        return len(np.unique(trial.roots(labels)))

    best = max(range(grid.ndim), key=lambda axis: (units_left(axis), axis))
    return [place.unite_rows(_rows(grid, axis)) if axis == best else None for axis in range(grid.ndim)]


def _rows(grid: Labels, axis: int) -> Labels:
    return np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)


@resized.register
def _resized_reshape(op: ops.Reshape, sizes: Sizes) -> Op:
    return dataclasses.replace(op, shape=sizes.results[0] if op.whole else sizes.results[0][1:])
