"""The ways to join the task's loss with costs: a contract for all, and each one's closed form."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.search_regret.objectives import AbsoluteReward, AddLinear, FixedObjective, MulLog, SoftPenalty
from netlathe.search.errors import SearchError
from netlathe.search.strategies.binarized.objectives import (
    Multiplier,
    Objective,
    PIObjective,
)

CE, COST = torch.tensor(0.7, dtype=torch.float64), torch.tensor(6.0, dtype=torch.float64)


def joined(objective: Objective, limit: float, cost: torch.Tensor = COST) -> float:
    return float(objective.loss(CE, [cost], [limit]))


@pytest.fixture(params=[lambda: PIObjective(1), MulLog, AddLinear, AbsoluteReward, SoftPenalty])
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param()  # type: ignore[no-any-return]


class TestContract:
    """Holds for every objective."""

    def test_above_the_limit_a_cheaper_network_is_never_worse(self, objective: Objective) -> None:
        objective.observe([math.log(6 / 4)])
        assert joined(objective, 4.0, torch.tensor(5.0)) < joined(objective, 4.0, torch.tensor(6.0))

    def test_a_better_classifier_is_always_better(self, objective: Objective) -> None:
        task = CE.clone().requires_grad_()
        objective.loss(task, [COST], [4.0]).backward()
        assert task.grad is not None
        assert task.grad > 0

    def test_it_goes_on_where_its_state_was_taken(self, objective: Objective) -> None:
        objective.observe([0.3])
        other = type(objective)(1) if isinstance(objective, PIObjective) else type(objective)()
        other.load_state_dict(objective.state_dict())
        assert other.multipliers == objective.multipliers
        assert joined(other, 4.0) == joined(objective, 4.0)

    def test_it_has_one_multiplier_per_constraint_to_log(self, objective: Objective) -> None:
        assert len(objective.multipliers) == 1


def test_the_multiplier_is_a_pi_controller_that_stays_at_or_above_zero() -> None:
    multiplier = Multiplier(gain=2.0, rate=0.5)
    assert multiplier.update(0.4) == pytest.approx(0.2 + 0.8)
    assert multiplier.update(0.4) == pytest.approx(0.4 + 0.8)
    assert multiplier.update(-0.1) == pytest.approx(0.35 - 0.2)
    assert multiplier.update(-10) == 0
    assert multiplier.integral == 0
    assert multiplier.update(0.2) == pytest.approx(0.1 + 0.4)


def test_the_controlled_objective_prices_the_log_excess_of_every_constraint() -> None:
    objective = PIObjective(2, gain=1.0, rate=0.5)
    assert float(objective.loss(CE, [COST, COST], [4.0, 3.0])) == pytest.approx(0.7)
    objective.observe([0.2, -0.1])
    assert objective.multipliers == (pytest.approx(0.3), 0.0)
    assert float(objective.loss(CE, [COST, COST], [4.0, 3.0])) == pytest.approx(0.7 + 0.3 * math.log(1.5))


def test_the_reference_forms_are_those_of_their_papers() -> None:
    assert joined(MulLog(0.2, 0.6), 4.0) == pytest.approx(0.2 * 0.7 * (math.log(6) / math.log(4)) ** 0.6)
    assert joined(AddLinear(0.1), 4.0) == pytest.approx(0.7 + 0.1 * 0.5)
    assert joined(AddLinear(0.1), 8.0) == pytest.approx(0.7 - 0.1 * 0.25)
    assert joined(AbsoluteReward(0.2), 8.0) == pytest.approx(0.7 + 0.2 * 0.25)
    assert joined(SoftPenalty(0.2), 4.0) == pytest.approx(0.7 + 0.2 * math.log(1.5))
    assert joined(SoftPenalty(0.2), 8.0) == pytest.approx(0.7)


@pytest.mark.parametrize("kind", [MulLog, AddLinear, AbsoluteReward, SoftPenalty])
def test_a_reference_form_refuses_a_second_constraint(kind: type[FixedObjective]) -> None:
    with pytest.raises(SearchError, match="knows one constraint, got 2; use the controlled multiplier"):
        kind().loss(CE, [COST, COST], [4.0, 4.0])  # type: ignore[call-arg]
