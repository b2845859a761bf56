"""Where a file's axes are in the graph: files have an image's channels first, graphs have them last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.ops import Shape

Axes = tuple[int, ...]
"""For each axis of a file's tensor, which axis of the graph's it is. Axes of the graph that are none of the file's hold
one value."""

CHANNELS_FIRST: dict[int, Axes] = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
"""By rank: the axes of what has its channels second in a file and last in the graph."""
LINE: Axes = (0, 3, 2)
"""The axes of a sequence (N, C, L), which is an image of height 1 in the graph."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the file: the graph's operand that holds it, and where its axes are there. `is_transposed` says that
    the file itself has put them in another order than the graph's, which is still to be done."""

    operand: int
    axes: Axes
    is_transposed: bool = False


def plain(rank: int) -> Axes:
    """The axes of what is in the graph as it is in the file."""
    return tuple(range(rank))


def in_file(shape: Shape, axes: Axes) -> Shape:
    """The file's shape of a tensor that has this one in the graph."""
    return tuple([shape[axis] for axis in axes])


def in_graph(shape: Sequence[int], axes: Axes, rank: int) -> Shape:
    """The graph's shape, of that rank, of a tensor that has this one in the file."""
    sizes = [1] * rank
    for size, axis in zip(shape, axes, strict=True):
        sizes[axis] = size
    return tuple(sizes)


def arranged(values: NDArray[Any], axes: Axes, rank: int) -> NDArray[Any]:
    """A constant of the file with its axes where they are in a tensor of that rank in the graph. A value of the file
    that has fewer axes is met by its last ones."""
    values = values.reshape((1,) * (len(axes) - values.ndim) + values.shape)
    return values.transpose(np.argsort(axes)).reshape(in_graph(values.shape, axes, rank) or (1,))


def order(shape: Sequence[int], axes: Axes) -> list[int]:
    """The file's axes of more than one value, in the order in which the graph has them."""
    return [axis for axis in sorted(range(len(axes)), key=axes.__getitem__) if shape[axis] != 1]


def compact(axes: Axes) -> Axes:
    """The same order without axes that are none of the file's."""
    places = {axis: place for place, axis in enumerate(sorted(axes))}
    return tuple([places[axis] for axis in axes])


@dataclass(frozen=True, slots=True)
class Group:
    """Axes of more than one value that a reshape makes into others of as many."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def groups(before: Sequence[int], after: Sequence[int]) -> list[Group]:
    """The smallest groups of axes that a reshape in the file's order keeps apart."""
    if math.prod(before) != math.prod(after):
        raise FormatError(f"it makes {tuple(before)} into {tuple(after)}, which hold different numbers of values")
    found = []
    old, new = ([axis for axis, size in enumerate(shape) if size != 1] for shape in (before, after))
    i = j = 0
    while i < len(old):
        first, second = i, j
        left, right = before[old[i]], after[new[j]]
        while left != right:
            if left < right:
                i += 1
                left *= before[old[i]]
            else:
                j += 1
                right *= after[new[j]]
        i, j = i + 1, j + 1
        found.append(Group(tuple(old[first:i]), tuple(new[second:j])))
    return found


def grouped_order(before: Shape, axes: Axes, parts: Sequence[Group], *, exact: bool) -> list[Group] | None:
    """The groups in the order in which the graph has them; None where one of them does not stand together there, or,
    where it must be `exact`, not in the file's order."""
    sequence = order(before, axes)
    found, place = [], 0
    by_axis = {axis: part for part in parts for axis in part.before}
    while place < len(sequence):
        part = by_axis[sequence[place]]
        run = tuple(sequence[place : place + len(part.before)])
        if run != part.before and (exact or sorted(run) != sorted(part.before)):
            return None
        found.append(part)
        place += len(run)
    return found


def axes_after(shape: Sequence[int], sequence: Sequence[int], *, image: bool) -> Axes:
    """The axes of a tensor of this shape in the file whose axes of more than one value have this order in the graph:
    those of an image or of what is as in the file where they agree (`image` first, where wanted)."""
    rank = len(shape)
    known = [plain(rank)]
    if rank in CHANNELS_FIRST:
        known.insert(0 if image else 1, CHANNELS_FIRST[rank])
    for axes in known:
        if order(shape, axes) == list(sequence):
            return axes
    placed = list(sequence)
    for axis in range(rank):
        if axis not in placed:  # of one value, so that it may stand anywhere: behind the one before it
            placed.insert(placed.index(axis - 1) + 1 if axis else 0, axis)
    return tuple([placed.index(axis) for axis in range(rank)])
