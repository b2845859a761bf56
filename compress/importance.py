"""Importance of channels: how much of a network's weights goes with each unit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.weights import Weights, check_weights
from netlathe.compress.coupling import FIXED, CoupledChannels, Units
from netlathe.compress.errors import CompressError

Scores = Mapping[str, NDArray[np.float64]]
"""An importance for each unit of each group, by the group's name: (units,)."""


def magnitudes(coupled: CoupledChannels, weights: Weights, order: int = 2) -> dict[str, NDArray[np.float64]]:
    """The norm of all kernel values that go with each unit, in the layers that give it and those that read it.

    `order` 2 is DepGraph's criterion (Fang et al., arXiv:2301.12900), which sums over coupled layers what Li et al.
    (arXiv:1608.08710) take of one layer; 1 is their absolute sum. Returns (units,) for each group's name; scores are
    comparable within a group. Raises CompressError for another order, FormatError for weights that are not the graph's.
    """
    if order not in (1, 2):
        raise CompressError(f"magnitudes are norms of order 1 or 2, got {order!r:.40}")
    check_weights(coupled.graph, weights)
    sums = np.zeros(len(coupled.group_of))
    for node, units in zip(coupled.graph.nodes, coupled.nodes, strict=True):
        for axis, along in enumerate(units.stored.get("kernel", ())):
            if along is not None:
                values = np.abs(weights[node.name]["kernel"].astype(np.float64)) ** order
                others = tuple(other for other in range(values.ndim) if other != axis)
                np.add.at(sums, along, values.sum(axis=others))
    return by_group(coupled, sums ** (1 / order))


def by_group(coupled: CoupledChannels, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Values of all units, sorted by group: (units,) for each group's name."""
    found = {group.name: np.zeros(group.units) for group in coupled.groups}
    for unit in np.flatnonzero(coupled.group_of != FIXED):
        found[coupled.groups[coupled.group_of[unit]].name][coupled.place_of[unit]] = values[unit]
    return found


def most_important(scores: NDArray[np.float64], count: int) -> Units:
    """The numbers of the `count` units of highest score, in order; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
