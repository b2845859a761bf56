"""Units of one model compared by what all have measured."""

from __future__ import annotations

import random

import pytest

from netlathe.profiler.pool.calibration import FEWEST_SHARED, TOLERANCE, calibrate

GRAPHS = [f"g{i}" for i in range(13)]


def unit(level: float, scatter: float = 0.0, seed: int = 0, graphs: list[str] = GRAPHS) -> dict[str, float]:
    rng = random.Random(seed)
    return {key: level * (1 + place) * rng.lognormvariate(0, scatter) for place, key in enumerate(graphs)}


def test_levels_are_exact_without_noise_and_relative_to_the_median_unit():
    found = calibrate({"a": unit(1.0), "b": unit(1.04), "c": unit(1.26)})
    assert [found[name].level for name in "abc"] == pytest.approx([1 / 1.04, 1.0, 1.26 / 1.04])
    assert [found[name].scatter for name in "abc"] == pytest.approx([0, 0, 0], abs=1e-12)
    assert all(one.is_pooled for one in found.values())


def test_a_unit_that_no_single_number_explains_is_apart_and_moves_nothing():
    odd = {key: ms * (1.4 if place % 2 else 1.0) for place, (key, ms) in enumerate(unit(1.0).items())}
    found = calibrate({"odd": odd, "a": unit(1.0), "b": unit(1.1)})
    assert [found[name].is_pooled for name in ("odd", "a", "b")] == [False, True, True]
    assert found["b"].level / found["a"].level == pytest.approx(1.1)
    assert found["odd"].scatter > TOLERANCE


def test_one_disturbed_graph_excludes_no_unit():
    disturbed = unit(1.0) | {"g3": 40.0}
    found = calibrate({"a": disturbed, "b": unit(1.0)})
    assert found["a"].is_pooled
    assert found["b"].is_pooled


def test_too_little_in_common_is_no_comparison():
    found = calibrate({"a": unit(1.0), "b": unit(2.0, graphs=GRAPHS[: FEWEST_SHARED - 1])})
    assert (found["b"].level, found["b"].is_known, found["b"].is_pooled) == (None, False, False)
    assert found["a"].is_pooled


def test_a_single_unit_is_its_pool():
    assert calibrate({"a": unit(3.0)})["a"].level == 1.0
    assert calibrate({}) == {}


@pytest.mark.parametrize(("scatter", "pooled"), [(0.015, True), (0.15, False)])
def test_scatter_decides_over_many_draws(scatter: float, pooled: bool):
    verdicts = [
        calibrate({"a": unit(1.0, 0.01, seed), "b": unit(1.1, scatter, seed + 1000), "c": unit(1.0, 0.01, seed + 2000)})
        for seed in range(50)
    ]
    assert sum(one["b"].is_pooled == pooled for one in verdicts) >= 48
