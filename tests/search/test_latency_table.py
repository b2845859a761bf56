"""The latency table and the decode, against closed forms and brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from archspace.blocks import MBConv
from archspace.graph import Graph
from archspace.presets import nas_bench_macro, tiny
from archspace.spaces import SearchSpace
from search.errors import TargetError
from search.latency import LatencyTable, decode


class MacsModel:
    """A network costs 0.5 ms plus 1 ms per 10 M MACs."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([0.5 + graph.macs / 1e7 for graph in items])


def random_table(rng: np.random.Generator, positions: int = 6, candidates: int = 4) -> LatencyTable:
    ms = rng.exponential(1.0, (positions, candidates))
    ms[0, -1] = np.nan  # a position with fewer candidates
    return LatencyTable(2.0, ms - np.nanmin(ms, axis=1, keepdims=True))


def random_scores(rng: np.random.Generator, table: LatencyTable) -> NDArray[np.float64]:
    scores = np.log(rng.dirichlet(np.ones(table.ms.shape[1]), len(table.ms)))
    return np.where(np.isnan(table.ms), -np.inf, scores)


def test_a_tabulated_additive_model_prices_every_network_as_the_model_does() -> None:
    space, model = nas_bench_macro(), MacsModel()
    table = LatencyTable.tabulate(space, model)
    for path in ([0] * 8, [2] * 8, [0, 1, 2, 1, 0, 2, 1, 1]):
        expected = model.predict([space.architecture(path).graph()])[0]
        assert table.latency_ms(path) == pytest.approx(expected, rel=1e-12)


def test_base_is_the_fastest_network_and_no_entry_is_negative() -> None:
    space = tiny(16)
    table = LatencyTable.tabulate(space, MacsModel())
    assert np.nanmin(table.ms) == 0
    assert (np.nanmin(table.ms, axis=1) == 0).all()
    lightest = [int(np.nanargmin(row)) for row in table.ms]
    assert table.latency_ms(lightest) == table.base_ms
    assert np.isnan(table.ms[0, -1])  # the first layer of a stage cannot be skipped


def test_expected_latency_of_a_one_hot_distribution_is_that_networks_latency() -> None:
    table = random_table(np.random.default_rng(0))
    path = (1, 2, 3, 0, 1, 2)
    one_hot = torch.nn.functional.one_hot(torch.tensor(path), 4).double()
    assert float(table.expected_ms(one_hot)) == pytest.approx(table.latency_ms(path), rel=1e-12)


def test_the_gradient_of_expected_latency_is_the_table() -> None:
    table = random_table(np.random.default_rng(1))
    p = torch.full(table.ms.shape, 0.25, dtype=torch.float64, requires_grad=True)
    table.expected_ms(p).backward()
    assert p.grad is not None
    np.testing.assert_allclose(p.grad.numpy(), np.nan_to_num(table.ms), rtol=1e-12)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_model_without_a_real_number_is_refused(price: float) -> None:
    class Broken:
        def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
            return np.full(len(items), price)

    with pytest.raises(TargetError, match="cannot steer a search"):
        LatencyTable.tabulate(nas_bench_macro(), Broken())


@pytest.mark.parametrize("seed", range(8))
def test_decode_finds_what_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(rng)
    scores = random_scores(rng, table)
    target = table.base_ms + rng.uniform(0.1, 0.9) * (table.slowest_ms - table.base_ms)
    choices = [[k for k in range(4) if not np.isnan(row[k])] for row in table.ms]
    feasible = [path for path in itertools.product(*choices) if table.latency_ms(path) <= target]
    best = max(feasible, key=lambda path: scores[np.arange(6), list(path)].sum())
    assert decode(scores, table, target) == best


def test_decode_with_room_for_everything_is_argmax() -> None:
    rng = np.random.default_rng(3)
    table = random_table(rng)
    scores = random_scores(rng, table)
    assert decode(scores, table, table.slowest_ms) == tuple(scores.argmax(1).tolist())


def test_decode_at_the_very_limit_gives_the_fastest_network() -> None:
    table = random_table(np.random.default_rng(4))
    path = decode(random_scores(np.random.default_rng(5), table), table, table.base_ms)
    assert table.latency_ms(path) == table.base_ms


@pytest.mark.parametrize("target", [0.0, -3.0, float("nan"), float("inf")])
def test_a_target_that_is_no_time_is_refused(target: float) -> None:
    with pytest.raises(TargetError, match="must be a number of ms above zero"):
        random_table(np.random.default_rng(6)).check_target(target)


@pytest.mark.parametrize("target", [1.999, 1e-9])
def test_a_target_below_the_fastest_network_says_what_the_fastest_is(target: float) -> None:
    table = random_table(np.random.default_rng(6))
    with pytest.raises(TargetError, match=r"the fastest is predicted at 2 ms"):
        decode(random_scores(np.random.default_rng(6), table), table, target)


class CountingModel:
    """Prices by how many positions of a space of two candidates each take the second one."""

    def __init__(self, space: SearchSpace, prices: Sequence[float]) -> None:
        paths = itertools.product(*(range(2) for _ in space.searchable))
        self.prices = {space.architecture(list(path)).graph().key: prices[sum(path)] for path in paths}

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([self.prices[graph.key] for graph in items])


PAIRS = SearchSpace("pairs", tuple((MBConv(8, 8, 8, 8), MBConv(8, 8, 8, 8, kernel=5)) for _ in range(3)))


def test_savings_that_do_not_add_up_are_priced_beside_the_fastest_network() -> None:
    table = LatencyTable.tabulate(PAIRS, CountingModel(PAIRS, [1.0, 0.5, 0.4, 0.3]))  # 1 - 3 x 0.5 is below zero
    assert table.base_ms == pytest.approx(0.3)
    assert table.latency_ms([1, 1, 0]) == pytest.approx(0.4)


def test_a_model_that_contradicts_itself_everywhere_is_refused_with_what_to_do() -> None:
    with pytest.raises(TargetError, match="profile again on a quiet machine"):
        LatencyTable.tabulate(PAIRS, CountingModel(PAIRS, [1.0, 0.1, 0.1, 1.0]))
