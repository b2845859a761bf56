"""Honest divisions of measured items: what is predicted was not in what was fitted on, under any name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.graph import Graph

Item = Graph | tuple[Graph, ...]
"""A block or kernel, or a network in pieces."""
FloatArray = NDArray[np.float64]


def item_key(item: Item) -> str:
    """Equal for items that a phone cannot tell apart."""
    return item.key if isinstance(item, Graph) else "+".join(piece.key for piece in item)


@dataclass(frozen=True, eq=False)
class Known:
    """Measurements on other devices: `latency_ms` has shape (items, devices)."""

    items: Sequence[Item]
    latency_ms: FloatArray
    devices: Sequence[str]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item_key(item): row for row, item in enumerate(self.items)}

    def has(self, item: Item) -> bool:
        return item_key(item) in self._rows

    def lookup(self, items: Sequence[Item]) -> FloatArray:
        """Latencies of known items, shape (n, devices). Raises KeyError for an unknown one."""
        return self.latency_ms[[self._rows[item_key(item)] for item in items]]


class Split(NamedTuple):
    """One thing to learn and to be judged by. Splits of one `group` (a phone, say) are judged together."""

    group: str
    train: Sequence[Item]
    train_ms: FloatArray
    test: Sequence[Item]
    test_ms: FloatArray
    known: Known | None = None


class Measured(NamedTuple):
    """Items with their latencies on one device."""

    items: Sequence[Item]
    latency_ms: FloatArray

    def take(self, indices: NDArray[np.intp]) -> Measured:
        return Measured([self.items[i] for i in indices], self.latency_ms[indices])


def split_at(
    group: str, data: Measured, train: NDArray[np.intp], test: NDArray[np.intp], known: Known | None = None
) -> Split:
    """Tests what `test` names, less what the training already holds under another name."""
    seen = {item_key(data.items[i]) for i in train}
    unseen = np.array([i for i in test if item_key(data.items[i]) not in seen], dtype=np.intp)
    return Split(group, *data.take(train), *data.take(unseen), known)


def random_split(
    group: str, data: Measured, n: int, seed: int, most: int | None = None, known: Known | None = None
) -> Split:
    """n random items to learn from, the rest, or `most` of them, to predict."""
    order = np.random.default_rng(seed).permutation(len(data.items))
    return split_at(group, data, order[:n], order[n:][:most], known)


def leave_out(group: str, data: Measured, labels: Sequence[object]) -> Iterator[Split]:
    """Each label in turn is predicted from all others."""
    values = np.array(labels)
    for label in dict.fromkeys(values.tolist()):
        yield split_at(group, data, np.flatnonzero(values != label), np.flatnonzero(values == label))


def fold_labels(count: int, folds: int, seed: int) -> NDArray[np.intp]:
    """A random fold of nearly equal size for each of `count` things."""
    return np.asarray(np.random.default_rng(seed).permutation(count) % folds)
