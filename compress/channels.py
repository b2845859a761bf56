"""Channels that must be cut together, as union-find over labels: every channel of every axis carries one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""One label per index of an axis; indices whose labels are united are cut together or not at all."""

Axes = tuple[Labels | None, ...]
"""The labels of each axis of a tensor; None for one along which nothing can be cut: the batch, pixels, a size of 1."""


class UnionFind:
    """Sets of labels, some of them fixed: never cut, for the first reason that was found."""

    def __init__(self) -> None:
        self._parents = np.zeros(0, np.int64)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def fresh(self, size: int) -> Labels:
        """That many new labels, each a set of its own."""
        start, self._count = self._count, self._count + size
        if self._count > len(self._parents):
            grown = np.arange(2 * self._count, dtype=np.int64)
            grown[:start] = self._parents[:start]
            self._parents = grown
        return np.arange(start, self._count, dtype=np.int64)

    def fixed(self, size: int, reason: str) -> Labels:
        """That many new labels in one set that is fixed."""
        labels = np.full(size, self.fresh(1)[0])
        self.fix(labels, reason)
        return labels

    def roots(self, labels: Labels) -> Labels:
        """The least label of each one's set."""
        found = self._parents[labels]
        while not np.array_equal(above := self._parents[found], found):
            found = above
        return found

    def unite(self, a: Labels, b: Labels) -> None:
        """Puts the labels of both arrays, of equal shape, into one set at each place."""
        first, second = self.roots(a).ravel(), self.roots(b).ravel()
        differ = first != second
        for one, other in dict.fromkeys(zip(first[differ].tolist(), second[differ].tolist(), strict=True)):
            self._unite(self._root(one), self._root(other))

    def _root(self, label: int) -> int:
        while (above := int(self._parents[label])) != label:
            self._parents[label] = self._parents[above]
            label = above
        return label

    def _unite(self, one: int, other: int) -> None:
        least, most = min(one, other), max(one, other)
        if least == most:
            return
        self._parents[most] = least
        if (reason := self._reasons.pop(most, None)) is not None:
            self._reasons.setdefault(least, reason)

    def fix(self, labels: Labels, reason: str) -> None:
        """Keeps the labels' sets whole, whatever else is cut."""
        for root in np.unique(self.roots(labels)).tolist():
            self._reasons.setdefault(root, reason)

    def reason(self, label: int) -> str | None:
        """Why the label's set is fixed; None where it is not."""
        return self._reasons.get(self._root(label))

    def fixed_roots(self) -> Labels:
        """The roots of all fixed sets, in order."""
        return np.array(sorted(self._reasons), np.int64)
