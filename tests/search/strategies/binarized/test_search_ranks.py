"""Several processes that search together find what one process finds, however many they are meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import run_in
from test_search_loop import BRIEF, SPACE, TABLE
from torch import Tensor

from netlathe.search.costs import Constraint
from netlathe.search.strategies.binarized.loop import Searcher
from netlathe.search.strategies.binarized.updates import GradientUpdate, Reinforce, UpdateRule
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.images import ImageData
from netlathe.training.loop import run_steps
from netlathe.training.ranks import ALONE, Ranks
from netlathe.training.sources import load_images

MIDDLE = (Constraint(TABLE, TABLE.base + 0.5 * (TABLE.most_expensive - TABLE.base)),)
CONFIG = replace(BRIEF, batch_size=24, accumulate=2, finalists=6, finalist_images=70)
RULES: dict[str, UpdateRule] = {
    "pair": GradientUpdate(), "recompute": GradientUpdate("recompute"), "reinforce": Reinforce()
}  # fmt: skip


class Float64(Compute):
    """Computes in float64, in which the order of sums shows in the last digits alone."""

    def put(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return x.double(), labels


def few() -> ImageData:
    data = load_images("digits", (8, 8), limit=120)
    return replace(data, train=data.train.take(torch.arange(48)))


def searcher(ranks: Ranks, rule: str = "pair", **settings: Any) -> Searcher:
    found = Searcher(
        SPACE, few(), MIDDLE, replace(CONFIG, **settings), compute=Float64("cpu", ranks=ranks), rule=RULES[rule]
    )
    found.supernet.double()
    found.parameters.double()
    return found


def outcome(one: Searcher) -> dict[str, Any]:
    """All that a search leaves: state, log, found network, the networks that it was compared with."""
    result = one.result()
    return {
        "supernet": {name: value.clone() for name, value in one.supernet.state_dict().items()},
        "alpha": one.parameters.alpha.detach().clone(), "losses": [row.loss for row in one.history],
        "path": result.path, "examined": result.examined, "scores": torch.from_numpy(result.scores),
    }  # fmt: skip


def searched(ranks: Ranks, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"pair": outcome(searcher(ranks).run())}
    for rule in ("recompute", "reinforce"):
        found[rule] = outcome(searcher(ranks, rule, start_epochs=0, finalists=0).run())
    apart = searcher(ranks, accumulate=1, batch_norm="per-rank", start_epochs=0).run()
    return {**found, "per-rank": apart.parameters.alpha.detach().clone()}


def an_epoch_more(ranks: Ranks, folder: Path) -> Searcher:
    """Goes on for an epoch from the checkpoint that another number of processes has left."""
    checkpointer, one = Checkpointer(folder / "search.npz", {}, ranks=ranks), searcher(ranks)
    state = checkpointer.load()
    if state is not None:
        checkpointer.resume(one.load_state_dict, state)
    run_steps(one, one.step + one.schedule.per_epoch, checkpointer=checkpointer)
    return one


def jobs(ranks: Ranks, folder: Path) -> dict[str, Any]:
    an_epoch_more(ranks, folder)
    return searched(ranks, folder)


@pytest.fixture(scope="module")
def of_one() -> dict[str, Any]:
    return searched(ALONE, Path())


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(str(request.param))


@pytest.fixture(scope="module")
def of_several(folder: Path) -> list[dict[str, Any]]:
    """Before it, one process has begun a search that they go on with."""
    an_epoch_more(ALONE, folder)
    return run_in(int(folder.name[0]), jobs, folder)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["path"] == wanted["path"]
    assert list(found["examined"]) == list(wanted["examined"])
    for name in ("alpha", "scores"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-7, atol=1e-9)
    for name, value in wanted["supernet"].items():
        torch.testing.assert_close(found["supernet"][name], value, rtol=1e-7, atol=1e-9)
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-9)
    assert list(found["examined"].values()) == pytest.approx(list(wanted["examined"].values()), rel=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_several_processes_find_what_one_finds(
    rule: str, of_one: dict[str, Any], of_several: list[dict[str, Any]]
) -> None:
    for one in of_several:
        assert_same(one[rule], of_one[rule])


def test_all_processes_have_the_same_bits(of_several: list[dict[str, Any]]) -> None:
    first, *others = of_several
    for other in others:
        for rule in RULES:
            assert torch.equal(first[rule]["alpha"], other[rule]["alpha"])
            assert all(map(torch.equal, first[rule]["supernet"].values(), other[rule]["supernet"].values()))
        assert torch.equal(first["per-rank"], other["per-rank"])


def test_a_search_goes_on_with_another_number_of_processes(
    folder: Path, of_one: dict[str, Any], of_several: list[dict[str, Any]]
) -> None:
    while (one := an_epoch_more(ALONE, folder)).step < one.steps:
        pass
    assert_same(outcome(one), of_one["pair"])


def test_processes_that_normalise_apart_search_as_one_does_in_as_many_parts(of_several: list[dict[str, Any]]) -> None:
    alone = searcher(ALONE, accumulate=len(of_several), start_epochs=0).run()
    torch.testing.assert_close(of_several[0]["per-rank"], alone.parameters.alpha.detach(), rtol=1e-7, atol=1e-9)
