"""The search as a whole, on real images and a space of 27 networks, and the parts of its loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.search_regret.objectives import AddLinear
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.errors import SearchError, TargetError
from netlathe.search.strategies.binarized.loop import Searcher, search
from netlathe.search.strategies.binarized.objectives import PIObjective
from netlathe.search.strategies.binarized.outcome import SearchProgress, SearchResult
from netlathe.search.strategies.binarized.parameters import plain_gates
from netlathe.search.strategies.binarized.settings import SearchConfig
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.search.strategies.binarized.updates import GradientUpdate, Reinforce, UpdateRule
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import DataError, TrainingError
from netlathe.training.evaluation import evaluate, recalibrate_batch_norm
from netlathe.training.images import ImageData
from netlathe.training.loop import OnStep, StepProgress
from netlathe.training.sources import load_images
from netlathe.training.stream import stream


def toy_space(classes: int = 10) -> SearchSpace:
    def layer(cin: int, cout: int, size: int, stride: int) -> tuple[MBConv, ...]:
        return tuple(MBConv(cin, cout, size, size, stride, k, e) for k, e in ((3, 2), (5, 2), (3, 6)))

    return SearchSpace(
        "toy",
        (
            (ConvBlock(3, 8, 8, 8),), layer(8, 16, 8, 2), layer(16, 24, 4, 2),
            (*layer(24, 24, 2, 1)[:2], Skip(24, 24, 2, 2)), (LinearHead(24, classes, 2, 2),),
        ),
    )  # fmt: skip


class MacsModel:
    """0.1 ms, plus 1 ms per 100,000 MACs."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([0.1 + graph.macs / 1e5 for graph in items])


SPACE = toy_space()
TABLE = CostTable.tabulate(SPACE, MacsModel())
LOOSE = (Constraint(TABLE, TABLE.most_expensive),)
TIGHT = (Constraint(TABLE, TABLE.base + 0.15 * (TABLE.most_expensive - TABLE.base)),)
QUICK = SearchConfig(start_epochs=3, warmup_epochs=3, epochs=6, alpha_learning_rate=0.1, multiplier_gain=5)


BRIEF = replace(QUICK, start_epochs=1, warmup_epochs=1, epochs=2, prune_below=0.25, alpha_learning_rate=0.3)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=800)


@pytest.fixture(scope="module")
def few(digits: ImageData) -> ImageData:
    return replace(digits, train=digits.train.take(torch.arange(160)))


@pytest.fixture(scope="module")
def found(digits: ImageData) -> SearchResult:
    return search(SPACE, digits, TIGHT, QUICK)


def test_the_found_network_meets_the_target_and_is_priced_as_the_model_prices_it(found: SearchResult) -> None:
    assert found.costs[0] <= TIGHT[0].limit
    assert found.costs[0] == pytest.approx(MacsModel().predict([found.architecture.graph()])[0])
    assert SPACE.choices(found.architecture) == found.path


def test_the_target_pulls_the_expected_latency_down(found: SearchResult) -> None:
    before = [row.expected[0] for row in found.history if row.phase != "search"]
    assert len(set(before)) == 1
    assert found.history[-1].expected[0] < before[0]


def test_history_has_a_row_per_epoch_in_three_phases(found: SearchResult) -> None:
    assert [row.phase for row in found.history] == ["start"] * 3 + ["warm-up"] * 3 + ["search"] * 6
    assert found.history[0].entropy == pytest.approx(math.log(3))
    assert found.history[-1].entropy < math.log(3)


def test_the_supernet_has_learned_to_classify(found: SearchResult, digits: ImageData) -> None:
    network = found.supernet.extract(found.path)
    recalibrate_batch_norm(network, digits.train)
    assert evaluate(network, digits.test) > 0.5  # chance is 0.1


def test_equal_seeds_give_equal_searches(few: ImageData) -> None:
    first, second, other = (
        search(SPACE, few, LOOSE, replace(BRIEF, seed=seed)).log_probabilities for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_progress_counts_every_step_once(few: ImageData) -> None:
    seen: list[SearchProgress] = []
    search(SPACE, few, LOOSE, BRIEF, seen.append)
    assert [step.step for step in seen] == list(range(1, seen[-1].steps + 1))
    expected = float(np.nanmean(TABLE.values, 1).sum()) + TABLE.base
    assert seen[0].expected == pytest.approx((expected,), rel=1e-5)
    assert str(seen[0]) == f"start: loss {seen[0].loss:.2f}, expected {expected:.3g} ms"


def test_a_target_below_the_fastest_network_stops_before_any_training(digits: ImageData) -> None:
    seen: list[StepProgress] = []
    with pytest.raises(TargetError, match=r"the least is .* ms, of toy-"):
        search(SPACE, digits, [Constraint(TABLE, 0.5 * TABLE.base)], QUICK, seen.append)
    assert seen == []


def test_images_of_another_size_or_of_too_many_classes_are_refused(digits: ImageData) -> None:
    with pytest.raises(DataError, match=r"images are \(16, 16, 3\), space 'toy' takes \(8, 8, 3\)"):
        search(SPACE, load_images("digits", (16, 16), limit=50), LOOSE, QUICK)
    with pytest.raises(DataError, match="digits has 10 classes"):
        search(toy_space(7), digits, LOOSE, QUICK)


def test_a_space_without_a_choice_or_a_head_is_refused(digits: ImageData) -> None:
    fixed = SearchSpace("fixed", tuple(candidates[:1] for candidates in SPACE.positions))
    headless = SearchSpace("headless", SPACE.positions[:-1])
    with pytest.raises(DataError, match="nothing to search"):
        search(fixed, digits, LOOSE, QUICK)
    with pytest.raises(DataError, match="must end in a linear head, not in mbconv"):
        search(headless, digits, LOOSE, QUICK)


def test_a_diverging_search_stops_with_the_step_and_a_remedy(digits: ImageData) -> None:
    with pytest.raises(TrainingError, match=r"step \d+ .*: the loss became .*; lower the learning rate"):
        search(SPACE, digits, LOOSE, replace(QUICK, learning_rate=1e20))


def test_sharing_weights_gives_each_candidate_the_main_ones_first_channels_and_middle() -> None:
    supernet = SuperNet(SPACE, generator=torch.Generator().manual_seed(0))
    path = SPACE.main_path
    assert path == (2, 2, 1)
    supernet.share_weights(path)
    narrow, wide_kernel, source = (supernet.candidate(1, i).state_dict() for i in (0, 1, 2))
    name = "layers.depthwise.conv.weight"
    torch.testing.assert_close(narrow[name], source[name][:16])
    torch.testing.assert_close(wide_kernel[name][:, :, 1:4, 1:4], source[name][:16])
    assert wide_kernel[name][:, :, 0].abs().max() == 0
    name = "layers.project.conv.weight"
    torch.testing.assert_close(narrow[name], source[name][:, :16])


class StoppedError(Exception):
    """As if the process had ended."""


def interrupting_at(step: int) -> OnStep:
    def on_step(progress: StepProgress) -> None:
        if progress.step == step:
            raise StoppedError

    return on_step


def same(one: Searcher, other: Searcher) -> bool:
    return one.history == other.history and flat(one.state_dict()) == flat(other.state_dict())


def flat(value: object) -> object:
    """Comparable with ==, tensors bit by bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(one) for key, one in value.items()}
    return [flat(one) for one in value] if isinstance(value, list | tuple) else value


RULES: dict[str, Callable[[], UpdateRule]] = {
    "pair": GradientUpdate, "full": lambda: GradientUpdate("full"), "reinforce": Reinforce,
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_an_interrupted_search_ends_as_the_undisturbed_one(few: ImageData, rule: str, tmp_path: Path) -> None:
    def searcher() -> Searcher:
        return Searcher(SPACE, few, TIGHT, BRIEF, rule=RULES[rule]())

    undisturbed = searcher().run()
    assert undisturbed.history[-1].candidates < undisturbed.history[0].candidates  # pruning is part of it
    checkpointer = Checkpointer(tmp_path / "checkpoint.npz", {"seed": 0}, every_s=0)
    # In each phase, at the borders between them, in the middle of epochs, and after pruning.
    saved = 0
    for step in (1, 5, 6, 10, 13, 16, 19):
        one = searcher()
        if state := checkpointer.load():
            one.load_state_dict(state)
        assert one.step == saved
        with pytest.raises(StoppedError):
            one.run(interrupting_at(step), checkpointer=checkpointer)
        saved = step
    last = searcher()
    last.load_state_dict(checkpointer.load() or {})
    assert same(last.run(), undisturbed)


def test_one_warm_supernet_serves_several_targets(few: ImageData) -> None:
    warm = Searcher(SPACE, few, LOOSE, BRIEF).run(until="warm")
    step, weights = warm.step, flat(warm.supernet.state_dict())
    tight = warm.retarget(TIGHT).run()
    alone = Searcher(SPACE, few, TIGHT, BRIEF).run()
    assert same(tight, alone)
    assert warm.step == step
    assert flat(warm.supernet.state_dict()) == weights
    assert warm.run().result().costs[0] >= tight.result().costs[0]
    with pytest.raises(TargetError, match="has not moved yet"):
        warm.retarget(TIGHT)


def test_several_limits_hold_at_once(few: ImageData) -> None:
    macs = CostTable.of_blocks(SPACE, lambda block: block.graph().parameters, name="parameters")
    limits = (TIGHT[0], Constraint(macs, macs.base + 0.4 * (macs.most_expensive - macs.base)))
    found = search(SPACE, few, limits, BRIEF)
    assert all(limit.is_met(found.path) for limit in limits)
    assert found.architecture.parameters == pytest.approx(found.costs[1])
    assert len(found.history[-1].multipliers) == 2


def test_a_search_without_limits_takes_the_likeliest(few: ImageData) -> None:
    found = search(SPACE, few, (), replace(BRIEF, finalists=0))
    assert found.examined == {}
    assert found.path == tuple(found.log_probabilities.argmax(1).tolist())


def test_pruned_candidates_free_their_weights_and_their_momentum(few: ImageData) -> None:
    searcher = Searcher(SPACE, few, TIGHT, BRIEF).run()
    left = sum(len(list(candidates.children())) for candidates in searcher.supernet.positions[1:-1])
    assert left == searcher.history[-1].candidates < 9
    known = {id(p) for p in searcher.supernet.parameters()}
    assert {id(p) for group in searcher.weight_step.optimizer.param_groups for p in group["params"]} == known
    assert {id(p) for p in searcher.weight_step.optimizer.state} <= known
    assert searcher.result().costs[0] <= TIGHT[0].limit


def test_the_steps_parts_add_up_to_the_whole_batch(few: ImageData) -> None:
    """Up to BatchNorm's statistics, so with those that are fixed."""
    whole, parts = (Searcher(SPACE, few, TIGHT, replace(BRIEF, accumulate=n)) for n in (1, 4))
    for one in (whole, parts):
        one.supernet.eval()
    batch = next(stream(few.train, 32, seed=0))
    for one in (whole, parts):
        one.weight_step(batch, partial(one.supernet, gates=plain_gates((0, 1, 0))), 0.05, "here")
        one.architecture_step(partial(one._cross_entropy, batch), one.generator, "here")
    for a, b in zip(whole.supernet.parameters(), parts.supernet.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.parameters.alpha, parts.parameters.alpha, rtol=1e-3, atol=1e-5)


def test_bfloat16_keeps_architecture_parameters_and_weights_in_float32(few: ImageData) -> None:
    searcher = Searcher(SPACE, few, TIGHT, BRIEF, compute=Compute(device="cpu", precision="bfloat16")).run()
    assert searcher.parameters.alpha.dtype == torch.float32
    assert {w.dtype for w in searcher.supernet.parameters()} == {torch.float32}
    assert searcher.result().costs[0] <= TIGHT[0].limit


def test_workers_do_not_change_the_search(few: ImageData) -> None:
    config = replace(BRIEF, start_epochs=0, warmup_epochs=0, epochs=1)
    alone, helped = (
        Searcher(SPACE, few, TIGHT, config, compute=Compute(device="cpu", workers=n)).run() for n in (0, 1)
    )
    assert same(alone, helped)


def test_another_objective_can_steer(few: ImageData) -> None:
    searcher = Searcher(SPACE, few, TIGHT, BRIEF, objective=AddLinear(0.3)).run()
    assert searcher.history[-1].multipliers == (0.3,)


def test_a_diverging_search_keeps_the_last_good_state(few: ImageData, tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "checkpoint.npz", {}, every_s=0)
    Searcher(SPACE, few, LOOSE, BRIEF).run(until="warm", checkpointer=checkpointer)
    searcher = Searcher(SPACE, few, LOOSE, replace(BRIEF, learning_rate=1e30))
    searcher.load_state_dict(checkpointer.load() or {})
    with pytest.raises(TrainingError, match=r"lower the learning rate .*last good state is in .*checkpoint.npz"):
        searcher.run(checkpointer=checkpointer)
    state = checkpointer.load()
    assert state is not None
    assert all(value.isfinite().all() for value in state["supernet"].values())


def test_limits_that_contradict_each_other_stop_before_any_training(few: ImageData) -> None:
    """The fastest network has few MACs here, so it is the slow ones that a second table makes cheap."""
    backwards = CostTable("energy", "mJ", 1.0, np.nanmax(TABLE.values, axis=1, keepdims=True) - TABLE.values)
    near = Constraint(backwards, 1.0 + 0.1 * (backwards.most_expensive - 1.0))
    near.check(SPACE)
    with pytest.raises(TargetError, match=r"all of these limits: .* ms of predicted latency, .* mJ of energy"):
        Searcher(SPACE, few, (*TIGHT, near), BRIEF)


def test_an_objective_for_other_limits_or_a_table_of_another_space_stops_before_any_training(few: ImageData) -> None:
    with pytest.raises(SearchError, match="knows one constraint, got 2"):
        Searcher(SPACE, few, TIGHT * 2, BRIEF, objective=AddLinear())
    with pytest.raises(SearchError, match="was made for 1 constraints, got 2"):
        Searcher(SPACE, few, TIGHT * 2, BRIEF, objective=PIObjective(1))
    with pytest.raises(TargetError, match="is not of space toy"):
        Searcher(SPACE, few, [Constraint(CostTable("latency", "ms", 1.0, np.zeros((2, 3))), 2.0)], BRIEF)


def test_a_search_pruned_to_one_network_goes_on(few: ImageData) -> None:
    config = replace(BRIEF, prune_below=0.49, alpha_learning_rate=1.0)
    searcher = Searcher(SPACE, few, LOOSE, config).run()
    assert searcher.history[-1].candidates == len(SPACE.searchable)
    assert searcher.result().path == searcher.parameters.likeliest()


def test_the_last_choice_tells_what_it_compared(few: ImageData) -> None:
    searcher = Searcher(SPACE, few, TIGHT, replace(BRIEF, prune_below=0, finalists=9, finalist_images=65)).run()
    weights = flat(searcher.supernet.state_dict())
    told: list[tuple[int, int]] = []
    found = searcher.result(lambda done, total: told.append((done, total)))
    assert flat(searcher.supernet.state_dict()) == weights
    assert len(found.examined) == len(told)
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert all(done <= total <= 9 for done, total in told)
    assert all(math.log(10) / 4 < loss < 4 * math.log(10) for loss in found.examined.values())
    summary = found.summary()
    assert summary["examined"] == [{"choices": list(p), "cross_entropy": x} for p, x in found.examined.items()]


def test_a_checkpoint_that_does_not_fit_is_an_error(few: ImageData, tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "checkpoint.npz", {})
    with pytest.raises(FormatError, match="does not fit this run"):
        checkpointer.resume(Searcher(SPACE, few, TIGHT, BRIEF).load_state_dict, {"step": 3})


@pytest.mark.parametrize(("field", "value"), [("learning_rate", -1.0), ("accumulate", 20), ("prune_below", 1.0)])
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"{field} = {value} is out of range"):
        SearchConfig(**{field: value})  # type: ignore[arg-type]
