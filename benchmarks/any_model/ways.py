"""Common ways to predict a network from a profile of kernels, each in its plain form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from benchmarks.any_model.families import FloatArray, Held
from benchmarks.predictor.baselines import nn_meter_features
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernel_space import kernel_group
from netlathe.archspace.kernels import Fusion, kernels_of

TREES = 100
_BEST = 0.95
"""Quantile of the kernels' speeds that counts as the hardware's."""


def ratio(sums: FloatArray, measured_ms: FloatArray) -> Held:
    """Sums (n,) times the median ratio that other networks have."""
    return lambda train, test: sums[test] * np.median(measured_ms[train] / sums[train])


def by_macs(networks: Sequence[Graph]) -> FloatArray:
    return np.array([network.macs for network in networks], dtype=float)


def by_roofline(
    networks: Sequence[Graph], kernels: Sequence[Graph], latency_ms: FloatArray, fusion: Fusion
) -> FloatArray:
    """Each kernel takes its MACs at the best speed seen, or its bytes at the best bandwidth, whichever is longer."""
    macs, moved = _work(kernels)
    peak = np.quantile(macs / latency_ms, _BEST)
    bandwidth = np.quantile(moved / latency_ms, _BEST)

    def total(network: Graph) -> float:
        of_macs, of_bytes = _work(kernels_of(network, fusion))
        return float(np.maximum(of_macs / peak, of_bytes / bandwidth).sum())

    return np.array([total(network) for network in networks])


def by_forests(
    networks: Sequence[Graph], kernels: Sequence[Graph], latency_ms: FloatArray, fusion: Fusion, seed: int
) -> FloatArray:
    """nn-Meter's way: a random forest for each class of kernels; a network is the sum of its kernels. What no kernel of
    the profile is like costs nothing, as there."""
    groups = np.array([kernel_group(kernel) for kernel in kernels])
    features = nn_meter_features(list(kernels))
    forests = {
        group: RandomForestRegressor(TREES, random_state=seed).fit(
            features[groups == group], latency_ms[groups == group]
        )
        for group in set(groups.tolist())
    }
    parts = [(index, kernel) for index, network in enumerate(networks) for kernel in kernels_of(network, fusion)]
    owners, of_parts = np.array([i for i, _ in parts]), [kernel for _, kernel in parts]
    classes, found = np.array([kernel_group(kernel) for kernel in of_parts]), nn_meter_features(of_parts)
    values = np.zeros(len(parts))
    for group, forest in forests.items():
        if (classes == group).any():
            values[classes == group] = forest.predict(found[classes == group])
    return np.asarray(np.bincount(owners, values, len(networks)), dtype=float)


def _work(kernels: Sequence[Graph]) -> tuple[FloatArray, FloatArray]:
    """MACs, and bytes read and written, of each kernel."""
    return (
        np.array([kernel.macs for kernel in kernels], dtype=float),
        np.array([kernel.bytes_read() + kernel.bytes_written() for kernel in kernels], dtype=float),
    )
