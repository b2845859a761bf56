"""Several processes that train together: the same batches, the same weights, the same words about what went wrong."""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import run_in, start
from test_forward import trained_by_a_recipe
from torch import Tensor, distributed, nn

from netlathe.training.compute import Compute
from netlathe.training.errors import LostRankError, ToldElsewhereError, TrainingError
from netlathe.training.evaluation import evaluate, loss_and_accuracy, recalibrate_batch_norm
from netlathe.training.images import ImageData, ImageSplit, JoinedSplit
from netlathe.training.loop import StepProgress, TrainConfig, train
from netlathe.training.ranks import ALONE, BUCKET_BYTES, Ranks, joined
from netlathe.training.sources import load_images
from netlathe.training.stream import stream

SHORT = TrainConfig(epochs=2, batch_size=60, accumulate=2, ema_decay=0.8)  # 17 images a step are cut into 9 and 8


class Several(Ranks):
    """A process of several that are only counted."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self._count = index, count

    @property
    def count(self) -> int:
        return self._count


class Float64(Compute):
    """Computes in float64, in which the order of sums shows in the last digits alone."""

    def put(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return x.double(), labels


def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=240)


def make_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), depthwise,
        nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10),
    ).double()  # fmt: skip


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# Shares of a batch


@pytest.mark.parametrize(("size", "parts", "count"), [(64, 1, 4), (60, 2, 4), (17, 3, 2), (7, 1, 7)])
def test_shares_are_slices_of_each_part_and_cover_the_batch_once(size: int, parts: int, count: int) -> None:
    shares = [Several(index, count).share(size, parts) for index in range(count)]
    places = torch.arange(size)
    for number, part in enumerate(torch.tensor_split(places, parts)):
        cut = torch.tensor_split(part, count)
        for share, wanted in zip(shares, cut, strict=True):
            assert torch.equal(places[share.slices[number]], wanted)
    kept = torch.stack([torch.ones(size, dtype=torch.bool) if s.kept is None else s.kept for s in shares])
    assert torch.equal(kept.sum(0), torch.ones(size, dtype=torch.int64))


def test_weighted_means_over_the_parts_of_all_shares_are_the_mean_over_the_batch() -> None:
    values, total = torch.rand(17, dtype=torch.float64), 0.0
    for index in range(3):
        share = Several(index, 3).share(17, 2)
        own = values if share.kept is None else values[share.kept]
        total += sum(float(x.mean()) * weight for x, _, weight in share.parts(own, own))
    assert total == pytest.approx(float(values.mean()))


def test_a_batch_that_is_too_small_for_its_processes_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"a batch of 8 images in 2 parts is too small for 5 processes"):
        Several(0, 5).share(8, 2)
    assert ALONE.share(1, 1).kept is None
    with pytest.raises(TrainingError, match="each of which needs 2"):
        TrainConfig(batch_size=4, batch_norm="per-rank").share(4, Several(0, 4))


def test_portions_cover_all_pieces_once() -> None:
    for count in (1, 3, 8):
        assert [n for index in range(count) for n in Several(index, count).portion(5)] == list(range(5))


def test_what_shares_of_a_batch_hold_is_what_the_whole_batch_holds() -> None:
    """Augmented, too, and of a split that is kept in two ways."""
    data = digits()
    kinds: list[ImageSplit] = [data.train, JoinedSplit(data.train, data.test, torch.arange(300), torch.zeros(300))]
    for split in kinds:

        def batches(ranks: Ranks, split: ImageSplit = split) -> list[tuple[Tensor, Tensor]]:
            share = ranks.share(50, 2)
            with closing(stream(split, 50, seed=3, start=2, augment=True, mirror=True, share=share)) as found:
                return list(itertools.islice(found, 4))

        whole = batches(ALONE)
        for index in range(3):
            kept = Several(index, 3).share(50, 2).kept
            for (x, labels), (own, own_labels) in zip(whole, batches(Several(index, 3)), strict=True):
                assert torch.equal(x[kept], own)
                assert torch.equal(labels[kept], own_labels)


# Processes


def trained(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """All that processes do together, in float64."""
    compute, data = Float64("cpu", ranks=ranks), digits()
    network, separate = make_net(seed=ranks.index), make_net()
    seen: list[StepProgress] = []
    train(network, data, SHORT, seen.append, compute=compute)
    whole = state_of(network)
    train(separate, data, replace(SHORT, accumulate=1, batch_norm="per-rank"), compute=compute)
    found = {
        "trained": whole,
        "losses": [one.loss for one in seen],
        "accuracies": [one.accuracy for one in seen],
        "separate": state_of(separate),
        "accuracy": evaluate(network, data.test, compute=compute),
        "loss": loss_and_accuracy(network, data.test, compute=compute)[0],
    }
    recalibrate_batch_norm(network, data.train, batch_size=50, compute=compute)
    return {**found, "recalibrated": state_of(network)}


def together(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """What processes tell one another."""
    large = [torch.full((BUCKET_BYTES // 8 + 1,), float(ranks.index + 1)) for _ in range(2)]
    values = [torch.full((2, 3), 1.5), torch.tensor([ranks.index]), *large]
    ranks.add(*values)
    told = ranks.told(lambda: (folder / "told").write_text("once") + ranks.count + ranks.told(lambda: 10))
    try:
        ranks.told(lambda: 1 / 0)
    except (ToldElsewhereError, ZeroDivisionError) as error:
        refusal = type(error).__name__, str(error)
    try:
        ranks.check_same(torch.tensor([0.5, ranks.index]), "alphas")
    except TrainingError as error:
        differing = str(error)
    ranks.check_same(torch.tensor([0.5]), "alphas")
    x = torch.tensor([ranks.index + 1.0], requires_grad=True)
    (shared,) = ranks.of_all([x])
    loss = ranks.total((shared * (ranks.index + 3)).sum())
    (slope,) = torch.autograd.grad(loss, x)
    return {
        "sums": [one.unique().tolist() for one in values], "told": told, "refusal": refusal, "differing": differing,
        "any": (ranks.any(ranks.index == 1), ranks.any(False)), "loss": float(loss), "slope": slope.tolist(),
    }  # fmt: skip


def jobs(ranks: Ranks, folder: Path) -> dict[str, Any]:
    return {
        "trained": trained(ranks, folder), "together": together(ranks, folder), "recipe": trained_by_a_recipe(ranks),
    }  # fmt: skip


@pytest.fixture(scope="module")
def of_one() -> dict[str, Any]:
    return trained(ALONE, Path())


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def of_several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_in(request.param, jobs, tmp_path_factory.mktemp("ranks"))


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-9, atol=1e-11)


def test_several_processes_train_what_one_trains(of_one: dict[str, Any], of_several: list[dict[str, Any]]) -> None:
    for one in of_several:
        found = one["trained"]
        assert_close(found["trained"], of_one["trained"])
        assert_close(found["recalibrated"], of_one["recalibrated"])
        for name in ("losses", "accuracies", "accuracy", "loss"):
            assert found[name] == pytest.approx(of_one[name], rel=1e-9)


def test_several_processes_train_by_a_recipe_what_one_trains(of_several: list[dict[str, Any]]) -> None:
    alone = trained_by_a_recipe(ALONE)
    for one in of_several:
        found = one["recipe"]
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-7)
        assert found["accuracies"] == pytest.approx(alone["accuracies"])
        for name, value in alone["state"].items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-6, atol=1e-8)


def test_all_processes_end_in_the_same_bits(of_several: list[dict[str, Any]]) -> None:
    first, *others = (one["trained"] for one in of_several)
    for other in others:
        for kind in ("trained", "separate", "recalibrated"):
            assert all(map(torch.equal, first[kind].values(), other[kind].values()))


def test_processes_that_normalise_apart_train_what_one_trains_in_as_many_parts(
    of_several: list[dict[str, Any]],
) -> None:
    alone = make_net()
    train(alone, digits(), replace(SHORT, accumulate=len(of_several)), compute=Float64("cpu"))
    learned = {name: value for name, value in state_of(alone).items() if "running" not in name and "num" not in name}
    assert_close(of_several[0]["trained"]["separate"], learned)


def test_processes_tell_one_another(of_several: list[dict[str, Any]]) -> None:
    count = len(of_several)
    sums = sum(range(count))
    for index, one in enumerate(of_several):
        found = one["together"]
        assert found["sums"] == [[1.5 * count], [sums], [sums + count], [sums + count]]
        assert found["told"] == len("once") + 1 + 10  # the leader is alone while it works for all
        error = "ToldElsewhereError" if index else "ZeroDivisionError"
        assert found["refusal"] == (error, "division by zero")
        assert "alphas differ between the processes" in found["differing"]
        assert found["any"] == (True, False)
        assert found["loss"] == sum((k + 1) * (k + 3) for k in range(count))
        assert found["slope"] == [sum(k + 3 for k in range(count))]


def part(*words: str) -> None:
    """Loses the other process, or is lost; the starter's signal comes while the processes part."""
    destroy = distributed.destroy_process_group

    def interrupted() -> None:
        destroy()
        raise KeyboardInterrupt

    distributed.destroy_process_group = interrupted
    try:
        with joined() as ranks:
            if ranks.index == 1:
                os._exit(9)
            while True:
                ranks.any(False)
    except LostRankError as error:
        print(error)


def test_a_loss_stays_the_reason_where_the_starters_signal_comes_while_the_processes_part() -> None:
    codes, outs, errors = zip(*[one.end() for one in start(2, part, ())], strict=True)
    assert codes == (0, 9), errors
    assert outs[0].startswith("a process of this run is gone (")


def test_a_process_by_itself_is_alone() -> None:
    with joined() as ranks:
        assert ranks is ALONE
        assert ranks.told(lambda: 3) == 3
