"""Encoded images that are read together: row groups of Parquet files, stretches of tar files.

A pass of training goes through them in an order that keeps memory bounded: groups at random, and the images of as many
groups as fit into a window at random among one another. The order is a function of the generator alone, and any part of
it can be read without what is before it.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.training.encoded import Encoded

HELD_BYTES = 256 << 20
"""Bytes of groups that a process holds, unless a single one is larger."""
WINDOW_BYTES = HELD_BYTES // 2
"""Half of what is held, as a batch may have images of two windows."""


class Grouped(Encoded):
    """Images in groups, of which each has so many `rows` (groups,) and bytes, `sizes` (groups,)."""

    def __init__(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self.starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        """(groups + 1,): the first row of each group, and their end."""
        self.sizes, self.marks = sizes, np.zeros(self.starts[-1], np.uint64)
        self._held: OrderedDict[int, Sequence[Any]] = OrderedDict()

    @abstractmethod
    def read(self, group: int) -> Sequence[Any]:
        """The encoded images of a group, as buffers. Raises one of UNREADABLE."""

    @property
    def reads_in_order(self) -> bool:
        return True

    def open(self, row: int) -> BinaryIO:
        group = self.group_of(row)
        return io.BytesIO(self._group(int(group))[row - int(self.starts[group])])

    def order(self, rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        """Windows of whole groups, in random order and at random within."""
        groups, of_row = np.unique(self.group_of(rows), return_inverse=True)
        shuffled = torch.randperm(len(groups), generator=generator).numpy()
        window = np.empty(len(groups), np.int64)
        window[shuffled] = np.cumsum(self.sizes[groups[shuffled]]) // WINDOW_BYTES
        at_random = torch.randperm(len(rows), generator=generator).numpy()
        return torch.from_numpy(at_random[np.argsort(window[of_row[at_random]], kind="stable")])

    def prepare(self) -> None:
        """Reads what is small, or a single group, once for all processes that are started from this one."""
        if len(self.sizes) == 1 or self.sizes.sum() <= WINDOW_BYTES:
            for group in range(len(self.sizes)):
                self._group(group)

    def group_of(self, row: Any) -> Any:
        """The group of a row, or of each of several."""
        return np.searchsorted(self.starts, row, side="right") - 1

    def _group(self, group: int) -> Sequence[Any]:
        if group not in self._held:
            while self._held and self._held_bytes() + self.sizes[group] > HELD_BYTES:
                self._held.popitem(last=False)
            self._held[group] = self.read(group)
        self._held.move_to_end(group)
        return self._held[group]

    def _held_bytes(self) -> int:
        return int(self.sizes[list(self._held)].sum())

    def __getstate__(self) -> dict[str, Any]:
        """Without what is held: a process reads its own."""
        return {**self.__dict__, "_held": OrderedDict()}


@dataclass(frozen=True)
class Labelled:
    """Images of shards with what is said of them: `counts` (files,) images in each file; `labels` (N,), as they are;
    `splits` (N,), if the images say their own; `names` of the classes 0, 1, ..., if they have any."""

    source: Grouped
    counts: NDArray[np.int64]
    labels: NDArray[np.generic]
    splits: NDArray[np.generic] | None = None
    names: tuple[str, ...] = ()
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Columns for the index, a value an image."""
