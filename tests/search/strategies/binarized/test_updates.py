"""REINFORCE against the exact gradient of an expectation that can be summed up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch

from netlathe.search.strategies.binarized.parameters import ArchitectureParameters, Gate
from netlathe.search.strategies.binarized.updates import GradientUpdate, Reinforce

LOSSES = torch.tensor([[1.0, 2.0, 4.0], [0.5, 1.5, 0.0]], dtype=torch.float64)
"""Of each candidate; a path's loss is their sum, times an interaction."""


def loss_of(path: Sequence[int]) -> torch.Tensor:
    return LOSSES[0, path[0]] + LOSSES[1, path[1]] + 0.3 * path[0] * path[1]


def run(gates: Sequence[Gate]) -> Iterator[torch.Tensor]:
    yield loss_of([gate.active for gate in gates])


@pytest.fixture
def parameters() -> ArchitectureParameters:
    parameters = ArchitectureParameters([3, 2]).double()
    with torch.no_grad():
        parameters.alpha.normal_(generator=torch.Generator().manual_seed(2))
    return parameters


def exact_gradient(parameters: ArchitectureParameters) -> torch.Tensor:
    p = parameters.probabilities()
    expectation = sum(p[0, i] * p[1, j] * loss_of((i, j)) for i, j in itertools.product(range(3), range(2)))
    (gradient,) = torch.autograd.grad(expectation, parameters.alpha)
    return gradient


def test_reinforce_is_unbiased_with_its_moving_baseline(parameters: ArchitectureParameters) -> None:
    rule, generator = Reinforce(decay=0.9), torch.Generator().manual_seed(0)
    rule.estimate(parameters, run, generator)  # sets the baseline
    estimates = torch.stack([rule.estimate(parameters, run, generator)[1] for _ in range(6000)])
    error = (estimates.mean(0) - exact_gradient(parameters)).abs()
    assert (error <= 4.5 * estimates.std(0) / 6000**0.5 + 1e-12).all()
    assert estimates[:, 1, 2].abs().max() == 0  # no candidate there


def test_the_baseline_is_of_earlier_batches_only(parameters: ArchitectureParameters) -> None:
    rule, generator = Reinforce(decay=0.75), torch.Generator().manual_seed(0)
    first, gradient, _ = rule.estimate(parameters, run, generator)
    assert gradient.abs().max() == 0
    assert rule.baseline == first
    second, gradient, gates = rule.estimate(parameters, run, generator)
    p = parameters.probabilities()[0].detach()
    score = torch.nn.functional.one_hot(torch.tensor(gates[0].active), 3) - p
    torch.testing.assert_close(gradient[0], (second - first) * score)
    assert rule.baseline == pytest.approx(0.75 * first + 0.25 * second)


def test_a_baseline_lowers_the_variance(parameters: ArchitectureParameters) -> None:
    def variance(rule: Reinforce) -> float:
        generator = torch.Generator().manual_seed(1)
        rule.estimate(parameters, run, generator)
        return float(torch.stack([rule.estimate(parameters, run, generator)[1] for _ in range(500)]).var(0).sum())

    without = Reinforce(decay=1.0)
    without.baseline = 0.0  # stays there
    assert variance(Reinforce(decay=0.95)) < variance(without)


def test_reinforce_remembers_its_baseline_over_an_interruption(parameters: ArchitectureParameters) -> None:
    rule = Reinforce()
    rule.estimate(parameters, run, torch.Generator().manual_seed(0))
    other = Reinforce()
    other.load_state_dict(rule.state_dict())
    assert other.baseline == rule.baseline


def test_a_supernet_with_nothing_left_to_choose_has_no_gradient() -> None:
    parameters = ArchitectureParameters([2, 2]).double()
    for position in (0, 1):
        parameters.drop(position, 1)
    loss, gradient, _ = GradientUpdate().estimate(parameters, run, torch.Generator().manual_seed(0))
    assert loss == float(loss_of((0, 0)))
    assert gradient.abs().max() == 0
