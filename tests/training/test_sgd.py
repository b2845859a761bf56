"""Settings that a training and a search share, and a step of SGD."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from netlathe.search import SearchConfig
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.loop import TrainConfig
from netlathe.training.sgd import SgdConfig, WeightStep

BATCH = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


@pytest.mark.parametrize("kind", [SgdConfig, TrainConfig, SearchConfig])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0), ("accumulate", 0), ("learning_rate", math.nan), ("momentum", 1.0), ("weight_decay", -1.0),
        ("label_smoothing", 1.0), ("seed", -1),
    ],
)  # fmt: skip
def test_what_both_share_is_refused_alike(kind: type[SgdConfig], field: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"{field} = {value} is out of range in {kind.__name__}"):
        kind(**{field: value})  # type: ignore[arg-type]


def test_a_step_without_momentum_and_decay_goes_down_the_gradient() -> None:
    network, twin = linear(), linear()
    step = WeightStep(network, SgdConfig(momentum=0, weight_decay=0, label_smoothing=0), Compute("cpu"))
    loss, accuracy = step(BATCH, network, 0.25, "here")
    expected = nn.functional.cross_entropy(twin(BATCH[0]), BATCH[1])
    expected.backward()
    assert loss == pytest.approx(expected.item())
    assert accuracy == (twin(BATCH[0]).argmax(1) == BATCH[1]).float().mean().item()
    for moved, weight in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(moved, weight - 0.25 * weight.grad)


def test_a_loss_that_is_no_number_moves_no_weight() -> None:
    network, twin = linear(), linear()
    step = WeightStep(network, SgdConfig(), Compute("cpu"))
    with pytest.raises(TrainingError, match="step 7: the loss became nan"):
        step(BATCH, lambda x: network(x) * math.nan, 0.1, "step 7")
    assert all(map(torch.equal, network.state_dict().values(), twin.state_dict().values()))


def test_a_dropped_weight_leaves_the_optimizer_with_its_momentum() -> None:
    branches = nn.ModuleList([linear(), linear()])
    step = WeightStep(branches, SgdConfig(), Compute("cpu"))
    step(BATCH, lambda x: branches[0](x) + branches[1](x), 0.1, "here")
    step.drop(branches[1].parameters())
    left = {id(p) for p in branches[0].parameters()}
    assert {id(p) for group in step.optimizer.param_groups for p in group["params"]} == left
    assert {id(p) for p in step.optimizer.state} == left
    before = [p.detach().clone() for p in branches[1].parameters()]
    step(BATCH, branches[0], 0.1, "here")
    assert all(map(torch.equal, branches[1].parameters(), before))
