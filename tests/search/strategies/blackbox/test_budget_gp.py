"""The Gaussian process over decisions and budgets: its limits are one process and two, its gradient is exact, and how
far it trusts a cheap score is what the scores say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from test_strategy_contract import COUNTS, feasible_of, run, score

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.budget_gp import BudgetGP, BudgetKernel, _Evidence
from netlathe.search.strategies.blackbox.decision_gp import DecisionGP, DecisionKernel
from netlathe.search.strategies.blackbox.ego import EGO, normal_scores
from netlathe.search.strategies.blackbox.names import make_strategy

RATE, NOISE = 0.4, 0.05


def looks(seed: int = 0, count: int = 30) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Random networks, the first two thirds at the cheap budget, and random scores."""
    rng = np.random.default_rng(seed)
    budgets = (np.arange(count) >= 2 * count // 3).astype(np.int64)
    return rng.integers(0, 3, (count, 6)), budgets, rng.normal(size=count)


def kernel(correlation: float, means: float = 0.0) -> BudgetKernel:
    return BudgetKernel((RATE, RATE), (1.0, 1.0), (NOISE, NOISE), (correlation,), means)


NEW = np.random.default_rng(9).integers(0, 3, (20, 6))


def test_with_correlation_one_looks_at_both_budgets_are_looks_of_one_process() -> None:
    networks, budgets, scores = looks()
    one = DecisionGP.given(networks, scores, DecisionKernel(RATE), NOISE)
    mean, deviation = BudgetGP.given(networks, budgets, scores, kernel(1.0)).predict(NEW)
    np.testing.assert_allclose(mean, one.predict(NEW)[0], rtol=1e-9)
    np.testing.assert_allclose(deviation, one.predict(NEW)[1] / np.sqrt(one.variance), rtol=1e-9)


def test_with_correlation_zero_the_cheap_budget_tells_nothing() -> None:
    networks, budgets, scores = looks()
    is_dear = budgets == 1
    alone = DecisionGP.given(networks[is_dear], scores[is_dear], DecisionKernel(RATE), NOISE)
    mean, deviation = BudgetGP.given(networks, budgets, scores, kernel(0.0)).predict(NEW)
    np.testing.assert_allclose(mean, alone.predict(NEW)[0], rtol=1e-9)
    np.testing.assert_allclose(deviation, alone.predict(NEW)[1] / np.sqrt(alone.variance), rtol=1e-9)


def test_budgets_of_one_network_correlate_by_the_product_of_the_steps_between() -> None:
    three = BudgetKernel((0.1, 0.5, 0.9), (1.0, 2.0, 3.0), (0.1, 0.1, 0.1), (0.8, 0.5), means=0.0)
    found = three.between(np.zeros((3, 3)), np.arange(3), np.arange(3))
    np.testing.assert_allclose(found, np.outer([1, 2, 3], [1, 2, 3]) * [[1, 0.8, 0.4], [0.8, 1, 0.5], [0.4, 0.5, 1]])


def test_a_budgets_mean_is_learned_from_its_own_looks() -> None:
    networks, budgets, scores = looks()
    shifted = scores + np.where(budgets == 1, 50.0, -50.0)
    one = BudgetGP.given(networks, budgets, shifted, kernel(0.9, means=1e6)).predict(NEW)
    other = BudgetGP.given(networks, budgets, scores, kernel(0.9, means=1e6)).predict(NEW)
    np.testing.assert_allclose(one[0], other[0] + 50, atol=0.01)
    np.testing.assert_allclose(one[1], other[1])


def test_believing_in_predicted_scores_changes_no_mean_and_makes_surer() -> None:
    networks, budgets, scores = looks()
    for process in (
        BudgetGP.given(networks, budgets, scores, kernel(0.7)),
        DecisionGP.given(networks, scores, DecisionKernel(0.4), 0.1),
    ):
        before, after = process.predict(NEW), process.believing(NEW[:2]).predict(NEW)
        np.testing.assert_allclose(after[0], before[0], atol=1e-9)
        assert (after[1] < before[1] + 1e-12).all()
        assert (after[1][:2] < 0.7 * before[1][:2]).all()


def test_the_gradient_of_the_evidence_is_its_differences() -> None:
    rng = np.random.default_rng(1)
    networks, scores = rng.integers(0, 3, (36, 5)), rng.normal(size=36)
    evidence = _Evidence(networks, np.arange(36) % 3, scores)
    at = evidence.prior[0] + 0.3 * rng.normal(size=11)
    steps = 1e-5 * np.eye(11)
    numeric = [(evidence(at + step)[0] - evidence(at - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(evidence(at)[1], numeric, atol=1e-6)


def _fitted(cheap: NDArray[np.float64], networks: NDArray[np.int64], dear: NDArray[np.float64]) -> BudgetGP:
    count = len(dear)
    budgets = np.repeat([0, 1], [len(networks), count])
    scores = np.concatenate([normal_scores(cheap), normal_scores(dear)])
    return BudgetGP.fit(np.concatenate([networks, networks[:count]]), budgets, scores)


def test_how_far_a_cheap_score_is_trusted_follows_from_the_scores() -> None:
    rng = np.random.default_rng(4)
    networks = np.unique(rng.integers(0, 4, (90, 6)), axis=0)
    rng.shuffle(networks)
    truth = (networks * [3, 1, 2, 1, 2, 1]).sum(axis=1) + 2.0 * (networks[:, 0] == networks[:, 1])
    good = _fitted(truth + rng.normal(size=len(truth)), networks, truth[:20])
    bad = _fitted(rng.normal(size=len(truth)), networks, truth[:20])
    assert good.kernel.correlations[0] > 0.9

    def correlation(process: BudgetGP) -> float:
        return float(np.corrcoef(process.predict(networks[20:])[0], truth[20:])[0, 1])

    alone = np.corrcoef(DecisionGP.fit(networks[:20], normal_scores(truth[:20])).predict(networks[20:])[0], truth[20:])
    assert correlation(good) > 0.9
    assert correlation(good) > alone[0, 1] + 0.05
    assert correlation(bad) > alone[0, 1] - 0.1


def test_scores_that_tell_nothing_of_the_dear_ones_are_left_out() -> None:
    rng, feasible = np.random.default_rng(3), feasible_of(COUNTS)
    networks = feasible.draws(80, rng)
    for cheap, expected in ((lambda one: score(one) + rng.normal(), BudgetGP), (lambda one: rng.normal(), DecisionGP)):
        strategy = EGO(feasible)
        strategy.inform([{one: cheap(one) for one in networks}])
        for one in dict.fromkeys(networks[:16]):
            strategy.tell(one, score(one))
        told, scores = strategy.scored()
        assert type(strategy._process(told, normal_scores(scores))[0]) is expected


@pytest.mark.parametrize("is_useful", [True, False])
def test_ego_finds_as_good_networks_or_better_with_cheap_scores(is_useful: bool) -> None:
    """Means of the best of 14 dear looks over six seeds, beside those of dear looks alone."""
    feasible = feasible_of(COUNTS)

    def found(seed: int, cheap_looks: int) -> float:
        rng = np.random.default_rng(seed)
        cheap, strategy = make_strategy("random", feasible, seed=seed), make_strategy("ego", feasible, seed=seed)

        def cheap_score(choices: Choices) -> float:
            return score(choices) + rng.normal() if is_useful else rng.normal()

        run(cheap, cheap_looks, cheap_score)
        strategy.inform([cheap.told] if cheap_looks else [])
        return max(map(score, run(strategy, 14)))

    informed, alone = (np.mean([found(seed, count) for seed in range(4)]) for count in (60, 0))
    assert informed > alone + (0.3 if is_useful else -0.7)
