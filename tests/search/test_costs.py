"""Cost tables and limits, against closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_tables import random_table

from netlathe.archspace.blocks import Block, MBConv
from netlathe.archspace.graph import Graph
from netlathe.archspace.presets import nas_bench_macro, tiny
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.costs import Constraint, CostTable, limit_memory
from netlathe.search.errors import TargetError


class MacsModel:
    """A network costs 0.5 ms plus 1 ms per 10 M MACs."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([0.5 + graph.macs / 1e7 for graph in items])


def test_a_tabulated_additive_model_prices_every_network_as_the_model_does() -> None:
    space, model = nas_bench_macro(), MacsModel()
    table = CostTable.tabulate(space, model)
    for path in ([0] * 8, [2] * 8, [0, 1, 2, 1, 0, 2, 1, 1]):
        expected = model.predict([space.architecture(path).graph()])[0]
        assert table.cost(path) == pytest.approx(expected, rel=1e-12)


def test_base_is_the_fastest_network_and_no_entry_is_negative() -> None:
    space = tiny(16)
    table = CostTable.tabulate(space, MacsModel())
    assert np.nanmin(table.values) == 0
    assert (np.nanmin(table.values, axis=1) == 0).all()
    lightest = [int(np.nanargmin(row)) for row in table.values]
    assert table.cost(lightest) == table.base
    assert np.isnan(table.values[0, -1])  # the first layer of a stage cannot be skipped


def test_expected_latency_of_a_one_hot_distribution_is_that_networks_latency() -> None:
    table = random_table(np.random.default_rng(0))
    path = (1, 2, 3, 0, 1, 2)
    one_hot = torch.nn.functional.one_hot(torch.tensor(path), 4).double()
    assert float(table.expected(one_hot)) == pytest.approx(table.cost(path), rel=1e-12)


def test_the_gradient_of_expected_latency_is_the_table() -> None:
    table = random_table(np.random.default_rng(1))
    p = torch.full(table.values.shape, 0.25, dtype=torch.float64, requires_grad=True)
    table.expected(p).backward()
    assert p.grad is not None
    np.testing.assert_allclose(p.grad.numpy(), np.nan_to_num(table.values), rtol=1e-12)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_model_without_a_real_number_is_refused(price: float) -> None:
    class Broken:
        def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
            return np.full(len(items), price)

    with pytest.raises(TargetError, match="cannot steer a search"):
        CostTable.tabulate(nas_bench_macro(), Broken())


@pytest.mark.parametrize("target", [0.0, -3.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_amount_is_refused(target: float) -> None:
    space = nas_bench_macro()
    with pytest.raises(TargetError, match="the limit of predicted latency must be a number above zero"):
        Constraint(CostTable.tabulate(space, MacsModel()), target).check(space)


def test_a_limit_below_the_cheapest_network_says_which_that_is_and_what_it_costs() -> None:
    space = nas_bench_macro()
    table = CostTable.tabulate(space, MacsModel())
    with pytest.raises(TargetError, match=rf"the least is {table.base:.3g} ms, of nas-bench-macro-00000000"):
        Constraint(table, 0.9 * table.base).check(space)


def test_costs_of_blocks_add_up_to_the_networks() -> None:
    space = tiny(16)
    macs = CostTable.of_blocks(space, lambda block: block.graph().macs, name="MACs")
    path = [3, 9 % len(space.positions[2]), 0, 5, 1, 2, 3, 4, 5, 6]
    assert macs.cost(path) == pytest.approx(space.architecture(path).macs, rel=1e-12)


def test_a_block_without_a_price_is_named_and_never_made_up() -> None:
    known = {"a": 1.0}

    def price(block: Block) -> float:
        if block.name not in known:
            raise TargetError(f"energy.csv has no row for {block.name}")
        return known[block.name]

    with pytest.raises(TargetError, match="no row for conv"):
        CostTable.of_blocks(tiny(16), price, name="energy", unit="mJ")
    with pytest.raises(TargetError, match=r"the energy of conv\S+ is nan"):
        CostTable.of_blocks(tiny(16), lambda block: float("nan"), name="energy", unit="mJ")


def test_the_excess_of_a_path_is_the_log_of_cost_over_limit() -> None:
    table = CostTable("latency", "ms", 2.0, np.array([[0.0, 1.0]]))
    assert Constraint(table, 1.5).excess((1,)) == pytest.approx(np.log(2.0))


def test_a_memory_limit_leaves_exactly_the_networks_that_fit() -> None:
    space = nas_bench_macro(16)
    peaks = {
        path: space.architecture(path).graph().peak_activation_bytes()
        for path in itertools.product(range(3), range(3), [0], [0], [0], [0], [0], [0])
    }
    limit_bytes = sorted(peaks.values())[len(peaks) // 2]
    left = limit_memory(space, limit_bytes)
    for path, peak in peaks.items():
        blocks = space.architecture(path).blocks
        fits = all(block in candidates for block, candidates in zip(blocks, left.positions, strict=True))
        assert fits == (peak <= limit_bytes)


def test_a_memory_limit_that_nothing_keeps_says_what_the_least_is() -> None:
    with pytest.raises(TargetError, match=r"position 0 needs .* KiB even with conv"):
        limit_memory(nas_bench_macro(16), 1024)


class CountingModel:
    """Prices by how many positions of a space of two candidates each take the second one."""

    def __init__(self, space: SearchSpace, prices: Sequence[float]) -> None:
        paths = itertools.product(*(range(2) for _ in space.searchable))
        self.prices = {space.architecture(list(path)).graph().key: prices[sum(path)] for path in paths}

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([self.prices[graph.key] for graph in items])


PAIRS = SearchSpace("pairs", tuple((MBConv(8, 8, 8, 8), MBConv(8, 8, 8, 8, kernel=5)) for _ in range(3)))


def test_savings_that_do_not_add_up_are_priced_beside_the_fastest_network() -> None:
    table = CostTable.tabulate(PAIRS, CountingModel(PAIRS, [1.0, 0.5, 0.4, 0.3]))  # 1 - 3 x 0.5 is below zero
    assert table.base == pytest.approx(0.3)
    assert table.cost([1, 1, 0]) == pytest.approx(0.4)


def test_a_model_that_contradicts_itself_everywhere_is_refused_with_what_to_do() -> None:
    with pytest.raises(TargetError, match="profile again on a quiet machine"):
        CostTable.tabulate(PAIRS, CountingModel(PAIRS, [1.0, 0.1, 0.1, 1.0]))
