"""Peak rate, bandwidth and launch as they were fitted: found where they can be told, and not told where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernel_space import sample_kernels
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d
from netlathe.predictor import LatencyPredictor
from netlathe.predictor.blocks.physics import Physics, fit_physics, prior_rates
from netlathe.predictor.blocks.roofline import roofline_of
from netlathe.predictor.features.item_features import work_terms
from netlathe.predictor.features.op_work import CACHE_BYTES, COLUMN, TERMS

LAUNCH_MS, MS_PER_MAC, MS_PER_BYTE = 0.004, 5e-8, 4e-8


def law(graph: Graph) -> float:
    """A launch, and for each op its MACs and bytes one after the other."""
    costs = graph.costs()
    moved = sum(one.bytes_read + one.bytes_written for one in costs)
    return LAUNCH_MS + MS_PER_MAC * graph.macs + MS_PER_BYTE * moved


def kernel(op: Conv2d | Activation, side: int, channels: int) -> Graph:
    builder = GraphBuilder((1, side, side, channels))
    return builder.build(builder.add("op", op, 0))


KERNELS = [
    *(kernel(Conv2d(c, (k, k)), s, c) for c in (16, 32, 64, 128) for k in (1, 3) for s in (4, 8, 14, 28)),
    *(kernel(Activation(ActivationKind.HARD_SWISH), s, c) for c in (16, 32, 64, 128) for s in (4, 8, 14, 28, 56)),
]


def test_the_limits_of_a_known_law_are_found() -> None:
    physics = fit_physics(work_terms(KERNELS), np.array([law(one) for one in KERNELS]))
    found = roofline_of(physics, of_kernels=True)
    assert found.macs_per_ms == pytest.approx(1 / MS_PER_MAC, rel=0.1)
    assert found.bytes_per_ms == pytest.approx(1 / MS_PER_BYTE, rel=0.1)
    assert found.launch_ms == pytest.approx(LAUNCH_MS, rel=0.1)


def test_what_was_never_measured_is_not_told() -> None:
    rates = prior_rates()
    found = roofline_of(Physics(rates, np.zeros(len(TERMS), dtype=bool)), of_kernels=True)
    assert found.macs_per_ms is found.bytes_per_ms is found.far_bytes_per_ms is found.launch_ms is None
    assert np.isnan(found.compute_ms(np.ones(2))).all()
    assert np.isnan(found.memory_ms(np.ones(2))).all()


def test_a_rate_at_the_least_that_the_fit_allows_is_not_told() -> None:
    rates, seen = prior_rates(), np.ones(len(TERMS), dtype=bool)
    rates[COLUMN["add.moved"]] *= 1e-3
    told = roofline_of(Physics(rates, seen), of_kernels=True)
    assert told.bytes_per_ms == pytest.approx(1 / prior_rates()[COLUMN["mul.moved"]])


def test_what_is_linked_behind_others_tells_no_bandwidth() -> None:
    rates, seen = prior_rates(), np.ones(len(TERMS), dtype=bool)
    rates[COLUMN["mul.moved"]] /= 10
    plain = 1 / prior_rates()[COLUMN["concat.moved"]]
    assert roofline_of(Physics(rates, seen)).bytes_per_ms == pytest.approx(10 * plain)
    assert roofline_of(Physics(rates, seen), links=True).bytes_per_ms == pytest.approx(plain)


def test_a_bandwidth_beyond_the_cache_that_is_not_told_is_that_within() -> None:
    rates, seen = prior_rates(), np.ones(len(TERMS), dtype=bool)
    seen[COLUMN["spilled"]] = False
    found = roofline_of(Physics(rates, seen))
    assert found.far_bytes_per_ms is None
    near, far = found.memory_ms(np.array([1.0, 4.0]) * CACHE_BYTES)
    assert far == pytest.approx(4 * near)


def test_beyond_the_cache_bytes_take_longer() -> None:
    rates, seen = prior_rates(), np.ones(len(TERMS), dtype=bool)
    found = roofline_of(Physics(rates, seen))
    near, far = found.memory_ms(np.array([CACHE_BYTES, 3 * CACHE_BYTES], dtype=float))
    assert far == pytest.approx(3 * near + 2 * CACHE_BYTES * rates[COLUMN["spilled"]])
    assert found.launch_ms == pytest.approx(rates[COLUMN["launches"]])


@pytest.mark.parametrize(
    ("name", "least", "most"), [("pixel4-cpu-networks", 18e9, 23e9), ("sd855-cpu-kernels", 18e9, 25e9)]
)
def test_two_tables_of_one_chip_tell_the_peak_rate_of_its_large_core(name: str, least: float, most: float) -> None:
    """A Cortex-A76 at 2.84 GHz: two units for four float32 each, 22.7 GMAC/s."""
    limits = LatencyPredictor.load(name).model_.work.roofline
    assert limits is not None
    assert least < 1e3 * (limits.macs_per_ms or 0) < most


def test_limits_are_lower_bounds_of_most_kernels() -> None:
    kernels = [one.graph for one in sample_kernels(200, seed=3) if one.group in ("conv", "pointwise", "add", "mul")]
    model = LatencyPredictor.load("pixel4-cpu-networks").assuming()
    limits = np.concatenate([model.kernels(one).limits for one in kernels])
    assert (np.nan_to_num(limits, nan=0.0) <= 1.25).mean() > 0.9
