"""A few measurements of the shipped tables that are far too fast or too slow must not spoil what is fitted on them."""

from functools import cache

import numpy as np
import pytest

from netlathe.predictor import LatencyPredictor, Prior, measure
from scripts import latency_tables as tables


@cache
def pixel4() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(blocks, ms on a Pixel 4, ms on a Pixel 1)."""
    table = tables.pixel1_pixel4_blocks(tables.SHIPPED)
    return np.array([*table.graphs, None])[:-1], *(table.frame[f"pixel{n}_ms"].to_numpy(float) for n in (4, 1))


@cache
def pixel1() -> Prior:
    blocks, _, pixel1_ms = pixel4()
    return Prior.learn({"pixel1": (list(blocks[::9]), pixel1_ms[::9])})


@cache
def within_10(residual: str, n: int, wrong: int, factor: float, seed: int, *, is_adapted: bool = False) -> float:
    """Share of blocks left out, fitted on n of which some are measured `factor` times as slow as they are."""
    blocks, latency_ms, _ = pixel4()
    rng = np.random.default_rng(seed)
    train, test = np.split(rng.permutation(len(blocks)), [n])
    given = latency_ms[train] * np.where(rng.permutation(n) < wrong, factor, 1)
    prior = pixel1() if is_adapted else None
    predictor = LatencyPredictor(residual, prior=prior).fit(list(blocks[train]), given)
    return measure(latency_ms[test], predictor.predict(list(blocks[test]))).within_10


def slow(*values: float) -> list[object]:
    """More of the same, in the slow tests."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("seed", [0, *slow(1, 2, 3)])
@pytest.mark.parametrize("factor", [0.2, 5, *slow(0.1, 0.5, 10)])
@pytest.mark.parametrize(("n", "wrong"), [(30, 1), (100, 3)])
def test_wrong_labels_in_either_direction_do_not_move_the_physics(n, wrong, factor, seed):
    assert within_10("none", n, wrong, factor, seed) > within_10("none", n, 0, 1, seed) - 0.03


@pytest.mark.parametrize("seed", [0, *slow(1)])
@pytest.mark.parametrize("factor", [0.2, 5])
@pytest.mark.parametrize(("n", "wrong"), [(30, 1), (100, 3)])
def test_wrong_labels_in_either_direction_do_not_move_a_residual_much(n, wrong, factor, seed):
    assert within_10("gp", n, wrong, factor, seed) > 0.9


@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
@pytest.mark.parametrize("factor", [0.2, 5])
def test_a_wrong_label_in_either_direction_does_not_move_an_adapted_predictor(factor, seed):
    usual = within_10("none", 30, 0, 1, seed, is_adapted=True)
    assert within_10("none", 30, 1, factor, seed, is_adapted=True) > usual - 0.03
