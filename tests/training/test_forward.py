"""Sizes of a training's images, and what is left out of a network at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Conv2d
from netlathe.archspace.presets import load_space
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.forward import Drops, TrainingForward, at_size, fitting_size
from netlathe.training.images import ImageData
from netlathe.training.loop import StepProgress, TrainConfig, train
from netlathe.training.ranks import Ranks, Share
from netlathe.training.recipes import RECIPES, training_recipe
from netlathe.training.sources import load_images

CPU = Compute("cpu")
WHOLE = Share(8, (slice(0, 8),))


class Float64(Compute):
    """Computes in float64, in which the order of sums shows in the last digits alone."""

    def put(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return x.double(), labels


def digits() -> ImageData:
    return load_images("digits", (16, 16), limit=40)


def make_net(seed: int = 0) -> TorchGraph:
    """With residual blocks, of images of 16 pixels."""
    space = load_space("tiny", resolution=16, width=0.5)
    graph = space.architecture(space.reference).graph()
    return TorchGraph(graph, generator=torch.Generator().manual_seed(seed))


# Left out at random


def test_branches_are_left_out_ever_more_often_and_their_expectation_is_kept() -> None:
    drops = Drops(make_net(), 0.5, 0.2)
    count = len(drops.branches)
    assert count >= 2
    paths, units = drops.draw(4000, torch.Generator().manual_seed(0))
    assert paths.shape == (4000, count)
    assert units.shape == (4000, drops.features)
    gone = (paths == 0).float().mean(0)
    wanted = torch.tensor([0.5 * (k + 1) / count for k in range(count)])
    torch.testing.assert_close(gone, wanted, atol=4 * (0.25 / 4000) ** 0.5, rtol=0)
    torch.testing.assert_close(paths.mean(0), torch.ones(count), atol=0.07, rtol=0)
    assert float(units.mean()) == pytest.approx(1, abs=0.01)
    assert units.unique().tolist() == pytest.approx([0, 1.25])


def test_a_branch_that_is_left_out_is_its_shortcut_and_whole_factors_are_the_network() -> None:
    net = make_net().eval()
    x = torch.rand(8, 3, 16, 16)
    forward = TrainingForward(net, (16, 16), WHOLE, CPU, seed=0, drop_path=0.5, dropout=0.5)
    (run,) = forward._runs.values()
    drops = forward.drops
    assert drops is not None
    ones = torch.ones(8, len(drops.branches)), torch.ones(8, drops.features)
    torch.testing.assert_close(run(x, *ones), net(x))
    without = run(x, torch.zeros_like(ones[0]), ones[1])
    assert not torch.allclose(without, net(x))
    for sum_, (branch, _) in drops.branches.items():  # by hand: every branch times 0
        assert branch in net.graph.nodes[sum_].inputs
    tensors: dict[int, Any] = {0: x}
    for index in range(len(net.graph.nodes)):
        if index in drops.branches:
            tensor = drops.branches[index][0]
            tensors[tensor] = torch.zeros_like(tensors[tensor])
        net.compute(index, tensors)
    torch.testing.assert_close(without, tensors[net.graph.outputs[0]])
    bias = run(x, ones[0], torch.zeros_like(ones[1]))
    torch.testing.assert_close(bias, bias[:1].expand_as(bias))  # nothing of an image is left


def test_images_are_left_out_by_their_place_in_the_batch() -> None:
    net, x = make_net().eval(), torch.rand(8, 3, 16, 16)
    options: dict[str, Any] = {"seed": 3, "drop_path": 0.6, "dropout": 0.3}
    whole = TrainingForward(net, (16, 16), WHOLE, CPU, **options).at(5, 10)(x)
    share = Share(8, (slice(1, 3), slice(5, 8)))
    forward = TrainingForward(net, (16, 16), share, CPU, **options).at(5, 10)
    found = [forward(x[part]) for part in share.slices]
    torch.testing.assert_close(torch.cat(found), torch.cat([whole[part] for part in share.slices]))
    other = TrainingForward(net, (16, 16), WHOLE, CPU, **options).at(6, 10)(x)
    assert not torch.allclose(whole, other)


@pytest.mark.parametrize(("options", "words"), [
    ({"drop_path": 0.1}, "drop_path and dropout need a network that is a graph"),
    ({"dropout": 0.1}, "drop_path and dropout need a network that is a graph"),
])  # fmt: skip
def test_a_network_that_is_no_graph_is_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        TrainingForward(nn.Linear(3, 3), (16, 16), WHOLE, CPU, seed=0, **options)


def test_networks_without_branches_or_head_are_refused() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    plain = TorchGraph(builder.build(builder.add("conv", Conv2d(4), 0)))
    with pytest.raises(TrainingError, match="no residual block whose branch"):
        Drops(plain, 0.1, 0.0)
    with pytest.raises(TrainingError, match="no fully connected layer"):
        Drops(plain, 0.0, 0.1)


# Sizes


def test_sizes_are_the_nearest_at_which_layers_are_the_same() -> None:
    graph = TorchGraph(network("mobilenet_v2").graph())
    assert fitting_size(graph, (224, 224), 160 / 224) == (160, 160)
    assert fitting_size(graph, (224, 224), 176 / 224) == (192, 192)
    assert fitting_size(graph, (224, 224), 1.0) == (224, 224)
    assert fitting_size(nn.Linear(3, 3), (224, 112), 0.5) == (112, 56)
    small = at_size(graph, (160, 160))
    assert small.layers is graph.layers
    with pytest.raises(TrainingError, match="at 170x170 pixels the network's layers are others"):
        at_size(graph, (170, 170))


def test_a_schedule_has_each_size_for_an_equal_part_of_the_steps() -> None:
    forward = TrainingForward(make_net(), (16, 16), WHOLE, CPU, seed=0, resolutions=(0.5, 1.0))
    assert forward.sizes == [(8, 8), (16, 16)]
    assert [forward.size_at(step, 6)[0] for step in range(6)] == [8, 8, 8, 16, 16, 16]
    assert forward.size_at(0, 0) == (8, 8)


def test_a_smaller_image_is_what_interpolation_makes_of_it() -> None:
    net, x = make_net().eval(), torch.rand(8, 3, 16, 16)
    found = TrainingForward(net, (16, 16), WHOLE, CPU, seed=0, resolutions=(0.5,)).at(0, 1)(x)
    small = nn.functional.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    space = load_space("tiny", resolution=8, width=0.5)
    other = TorchGraph(space.architecture(space.reference).graph())
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(found, other.eval()(small))


# Trainings


FULL = TrainConfig(
    epochs=1, batch_size=20, accumulate=2, warmup_epochs=0.5, ema_decay=0.8, optimizer="adamw", learning_rate=0.01,
    dropout=0.2, drop_path=0.3, resolutions=(0.5, 1.0), class_weights="balanced",
    augmentation=RECIPES["imagenet-adamw"]().augmentation,
)  # fmt: skip


def trained_by_a_recipe(ranks: Ranks) -> dict[str, Any]:
    """With all parts of a recipe at once, in float64; in small steps of SGD, as others make rounding grow."""
    net, seen = make_net(ranks.index).double(), list[StepProgress]()
    config = replace(FULL, optimizer="sgd", learning_rate=0.001)
    train(net, digits(), config, seen.append, compute=Float64("cpu", ranks=ranks))
    return {
        "state": net.state_dict(),
        "losses": [one.loss for one in seen],
        "accuracies": [one.accuracy for one in seen],
    }


def test_an_interrupted_training_ends_in_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    data, whole, cut = digits(), make_net(), make_net()
    train(whole, data, FULL, compute=CPU)

    def stop(step: StepProgress) -> None:
        if step.step == step.steps // 2 + 1:  # amid the second size
            raise KeyboardInterrupt

    path = tmp_path / "training.npz"
    with pytest.raises(KeyboardInterrupt):
        train(cut, data, FULL, stop, compute=CPU, checkpointer=Checkpointer(path, {}, every_s=0))
    again = make_net(seed=1)
    train(again, data, FULL, compute=CPU, checkpointer=Checkpointer(path, {}, every_s=0))
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_a_network(name: str) -> None:
    data, net = digits(), make_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    seen: list[StepProgress] = []
    train(net, data, training_recipe(name, epochs=1, batch_size=40, learning_rate=0.01), seen.append, compute=CPU)
    assert len(seen) == 2
    assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())
    assert not all(map(torch.equal, before.values(), net.state_dict().values()))


@pytest.mark.slow
def test_a_compiled_training_is_traced_once_a_size_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[int] = []

    def keep(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        traced.append(len(inputs))
        return module.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: whole(module, backend=keep))
    data, plain, compiled = digits(), make_net(), make_net()
    config = replace(FULL, learning_rate=0.001)
    train(plain, data, config, compute=CPU)
    assert not traced
    train(compiled, data, config, compute=Compute("cpu", compile=True))
    assert len(traced) == 2
    for found, wanted in zip(compiled.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted)
