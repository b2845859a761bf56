"""Training a network, interrupting it, and judging it."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.errors import FormatError
from netlathe.training.checkpoint import Checkpointer, load_checkpoint
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.evaluation import evaluate, recalibrate_batch_norm
from netlathe.training.images import ImageData, ImageSplit, MemorySplit
from netlathe.training.loop import OnStep, StepProgress, TrainConfig, learning_rate_at, train
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.sources import load_images
from netlathe.training.stream import batches_per_pass, stream

CPU = Compute("cpu")
SHORT = TrainConfig(epochs=2, batch_size=64, warmup_epochs=0.5, ema_decay=0.8)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=240)


def make_net(*, norm: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    middle = nn.BatchNorm2d(8) if norm else nn.Identity()
    depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), middle, nn.ReLU(), depthwise, nn.Flatten(), nn.Linear(128, 10)
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


class EncodedSplit(ImageSplit):
    """Stands for images that are decoded on demand."""

    def __init__(self, split: ImageSplit) -> None:
        self._split, self.labels = split, split.labels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._split.shape

    def take(self, index: Tensor) -> ImageSplit:
        return EncodedSplit(self._split.take(index))

    def load(self, index: Tensor) -> Tensor:
        return self._split.load(index)


class Stop(Exception):  # noqa: N818
    """What a test throws into a training."""


def stop_at(last: int) -> OnStep:
    def on_step(progress: StepProgress) -> None:
        if progress.step == last:
            raise Stop

    return on_step


# Learning


def test_a_short_training_classifies_digits(digits: ImageData) -> None:
    network = make_net()
    train(network, digits, replace(SHORT, epochs=6, ema_decay=0, warmup_epochs=0), compute=CPU)
    assert not network.training
    assert evaluate(network, digits.test, compute=CPU) > 0.5  # chance is 0.1


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    rates = [learning_rate_at(step, 12, 4, 0.8) for step in range(12)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[3:] == pytest.approx([0.4 * (1 + math.cos(math.pi * k / 9)) for k in range(9)])
    assert learning_rate_at(0, 10, 0, 0.8) == learning_rate_at(0, 10, 1, 0.8) == 0.8
    assert [learning_rate_at(step, 10, 1.5, 0.9) for step in range(2)] == pytest.approx([0.6, 0.9])
    assert learning_rate_at(0, 1, 1, 0.5) == 0.5


def test_training_uses_the_learning_rate_of_each_step(digits: ImageData) -> None:
    """Without momentum, decay and augmentation, one step moves a weight by rate x gradient."""
    network, reference = make_net(norm=False), make_net(norm=False)
    plain = TrainConfig(epochs=1, batch_size=64, momentum=0, weight_decay=0, label_smoothing=0, warmup_epochs=1)
    split = digits.train.joined(digits.validation)
    steps = batches_per_pass(split, 64)
    with pytest.raises(Stop):
        train(network, digits, plain, stop_at(1), compute=CPU)
    x, labels = next(stream(split, 64, seed=0, augment=True, mirror=digits.mirror))
    F.cross_entropy(reference(x), labels).backward()
    for p, q in zip(network.parameters(), reference.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p, q - 0.1 / steps * q.grad)


def test_accumulation_gives_the_large_batch_without_batch_norm(digits: ImageData) -> None:
    whole, parts = make_net(norm=False), make_net(norm=False)
    rows: list[list[StepProgress]] = [[], []]
    for network, accumulate, seen in zip((whole, parts), (1, 5), rows, strict=True):  # 64 = 4 x 13 + 12
        train(network, digits, replace(SHORT, ema_decay=0, accumulate=accumulate), seen.append, compute=CPU)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    for a, b in zip(*rows, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        assert a.accuracy == pytest.approx(b.accuracy, abs=0.02)


def test_the_moving_average_is_the_geometric_mean_of_the_steps_weights_and_statistics(digits: ImageData) -> None:
    network, averaged = make_net(), make_net()
    expected: dict[str, Tensor] = {}

    def follow(progress: StepProgress) -> None:
        seen = progress.step - 1
        decay = min(0.8, (1 + seen) / (10 + seen))  # less in the first steps, whose weights are random
        for name, value in network.state_dict().items():
            old = expected.get(name)
            expected[name] = value.clone() if old is None else torch.lerp(value, old, decay) if value.dim() else value

    train(network, digits, replace(SHORT, ema_decay=0), follow, compute=CPU)
    train(averaged, digits, SHORT, compute=CPU)
    found = averaged.state_dict()
    assert not torch.equal(found["0.weight"], network.state_dict()["0.weight"])
    for name in ("0.weight", "1.bias", "1.running_mean", "1.running_var", "5.bias"):
        torch.testing.assert_close(found[name], expected[name])


def test_progress_counts_every_step_once_and_reports_the_batch(digits: ImageData) -> None:
    seen: list[StepProgress] = []
    train(make_net(), digits, SHORT, seen.append, compute=CPU)
    steps = 2 * (len(digits.train.joined(digits.validation)) // 64)
    assert [(p.phase, p.step, p.steps) for p in seen] == [("train", k, steps) for k in range(1, steps + 1)]
    assert seen[0].loss == pytest.approx(math.log(10), rel=0.2)
    assert all(0 <= p.accuracy <= 1 and (64 * p.accuracy) % 1 < 1e-4 for p in seen)


def test_bfloat16_trains_float32_weights(digits: ImageData) -> None:
    network, kinds = make_net(), set()
    network[5].register_forward_hook(lambda module, x, y: kinds.add(y.dtype))
    train(network, digits, replace(SHORT, epochs=1), compute=Compute("cpu", "bfloat16"))
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_worker_processes_change_nothing(digits: ImageData) -> None:
    alone, helped = make_net(), make_net()
    train(alone, digits, SHORT, compute=CPU)
    train(helped, digits, SHORT, compute=Compute("cpu", workers=1))
    assert same(alone, helped)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1), ("batch_size", 0), ("learning_rate", math.nan), ("learning_rate", 0), ("momentum", 1),
        ("weight_decay", -1), ("label_smoothing", 1), ("warmup_epochs", 31), ("ema_decay", 1), ("accumulate", 65),
    ],
)  # fmt: skip
def test_settings_that_make_no_training_are_named(name: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"{name} = {value} is out of range"):
        replace(TrainConfig(), **{name: value})  # type: ignore[arg-type]


# Stopping and going on


@pytest.mark.parametrize("stops", [[1], [3, 4], [2, 5, 6]])
def test_an_interrupted_training_ends_in_the_same_weights_bit_for_bit(
    digits: ImageData, tmp_path: Path, stops: list[int]
) -> None:
    straight, network = make_net(), make_net()
    train(straight, digits, SHORT, compute=CPU)
    for last in stops:
        every_s = 0.0 if last % 2 else math.inf  # saved just now, or never: begins again where the last file stands
        with pytest.raises(Stop):
            train(
                network, digits, SHORT, stop_at(last), compute=CPU,
                checkpointer=Checkpointer(tmp_path / "a.npz", {}, every_s=every_s),
            )  # fmt: skip
        network = make_net() if not (tmp_path / "a.npz").exists() else make_net(seed=last)  # a new process has another
    seen: list[StepProgress] = []
    train(network, digits, SHORT, seen.append, compute=CPU, checkpointer=Checkpointer(tmp_path / "a.npz", {}))
    assert seen[0].step == max((last for last in stops if last % 2), default=0) + 1
    assert same(straight, network)


def test_a_finished_training_is_not_trained_again(digits: ImageData, tmp_path: Path) -> None:
    network, again, seen = make_net(), make_net(seed=1), []
    train(network, digits, SHORT, compute=CPU, checkpointer=Checkpointer(tmp_path / "a.npz", {}))
    train(again, digits, SHORT, seen.append, compute=CPU, checkpointer=Checkpointer(tmp_path / "a.npz", {}))
    assert seen == []
    assert same(network, again)


def test_a_checkpoint_of_another_training_is_refused_before_any_step(digits: ImageData, tmp_path: Path) -> None:
    train(make_net(), digits, SHORT, compute=CPU, checkpointer=Checkpointer(tmp_path / "a.npz", {"epochs": 2}))
    with pytest.raises(FormatError, match="epochs: 3 here, 2 in the checkpoint"):
        train(make_net(), digits, SHORT, compute=CPU, checkpointer=Checkpointer(tmp_path / "a.npz", {"epochs": 3}))


@pytest.mark.parametrize("saved", [{"found": 1}, {"step": 1, "network": nn.Linear(1, 1).state_dict()}])
def test_a_checkpoint_of_something_else_is_refused(digits: ImageData, tmp_path: Path, saved: dict[str, Any]) -> None:
    checkpointer = Checkpointer(tmp_path / "a.npz", {})
    checkpointer.save(saved)
    with pytest.raises(FormatError, match=r"a\.npz: does not fit this run \(.*remove it to start anew"):
        train(make_net(), digits, SHORT, compute=CPU, checkpointer=checkpointer)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(digits: ImageData, tmp_path: Path) -> None:
    network, path = make_net(), tmp_path / "a.npz"

    def spoil(progress: StepProgress) -> None:
        if progress.step == 3:
            with torch.no_grad():
                network[5].bias.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"step 4 of \d+: the loss became nan.*last good state is in .*a\.npz"):
        train(network, digits, SHORT, spoil, compute=CPU, checkpointer=Checkpointer(path, {}, every_s=0))
    state = load_checkpoint(path, {})
    assert state["step"] == 3
    assert bool(torch.isfinite(state["network"]["5.bias"]).all())


def test_a_diverged_training_without_checkpoints_names_none(digits: ImageData) -> None:
    network = make_net()
    with pytest.raises(TrainingError, match=r"lower the learning rate$"):
        train(network, digits, replace(SHORT, learning_rate=1e20, warmup_epochs=0), compute=CPU)
    assert not network.training


def test_weights_spoiled_by_the_last_step_are_not_handed_out(digits: ImageData) -> None:
    network = make_net()

    def spoil(progress: StepProgress) -> None:
        if progress.step == progress.steps:
            with torch.no_grad():
                network[5].bias.fill_(math.inf)

    with pytest.raises(TrainingError, match=r"5\.bias holds NaN or infinity"):
        train(network, digits, replace(SHORT, ema_decay=0), spoil, compute=CPU)


TRAINER = """
import sys, time
from pathlib import Path
from netlathe.training.checkpoint import Checkpointer, save_checkpoint
from netlathe.training.sources import load_images
from test_training import CPU, SHORT, make_net, train
from dataclasses import replace
folder, pause_s, config = Path(sys.argv[1]), float(sys.argv[2]), replace(SHORT, epochs=60)
class Pausing(Checkpointer):
    def save(self, state):
        super().save(state)
        time.sleep(pause_s)
network, digits = make_net(), load_images("digits", (8, 8), limit=240)
train(network, digits, config, compute=CPU, checkpointer=Pausing(folder / "a.npz", {}, every_s=0.02))
save_checkpoint(folder / "final.npz", network.state_dict(), {})
"""


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_in_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    def start(folder: Path, pause_s: float = 0.0) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{TRAINER}"
        return subprocess.Popen([sys.executable, "-c", code, str(folder), str(pause_s)])

    undisturbed = start(tmp_path / "straight")
    generator, saved = random.Random(0), tmp_path / "killed" / "a.npz"
    for _ in range(4):
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        # It pauses after each checkpoint, so that it cannot end before it is killed, however fast the machine is.
        with start(tmp_path / "killed", pause_s=0.1) as process:
            while (saved.stat().st_mtime_ns if saved.exists() else 0) == before:
                assert process.poll() is None
                time.sleep(0.01)  # until it has gone on
            time.sleep(generator.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert start(tmp_path / "killed").wait() == undisturbed.wait() == 0
    straight, resumed = (load_checkpoint(tmp_path / name / "final.npz", {}) for name in ("straight", "killed"))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


# Judging


def test_accuracy_is_the_share_of_right_answers_for_both_kinds_of_splits_and_any_batch_size() -> None:
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    split = MemorySplit(images, labels)
    right = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    answers = torch.where(right == 1, labels, 1 - labels)

    def oracle(x: Tensor) -> Tensor:
        index = [int((SYMMETRIC(images) == image).flatten(1).all(1).nonzero()) for image in x]
        return F.one_hot(answers[index], 2)

    for kind in (split, EncodedSplit(split)):
        for batch_size in (1, 3, 10, 99):
            assert evaluate(oracle, kind, batch_size=batch_size, compute=CPU) == 0.7
    assert evaluate(oracle, split, batch_size=4, compute=Compute("cpu", workers=1)) == 0.7


def test_recalibration_gives_the_statistics_of_clean_images(digits: ImageData) -> None:
    for kind in (digits.train, EncodedSplit(digits.train)):
        network = make_net()
        recalibrate_batch_norm(network, kind, batch_size=len(digits.train), compute=CPU)
        x = SYMMETRIC(digits.train.load(torch.arange(len(digits.train))))
        y = network[0](x)
        norm = network[1]
        torch.testing.assert_close(norm.running_mean, y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, y.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
        assert norm.momentum == 0.1
        assert not network.training


def test_recalibration_takes_so_many_batches_and_no_more(digits: ImageData) -> None:
    network = make_net()
    for limit, expected in ((2, 2), (99, len(digits.train) // 50)):
        recalibrate_batch_norm(network, digits.train, batch_size=50, batch_limit=limit, compute=CPU)
        assert int(network[1].num_batches_tracked) == expected


def test_a_failed_recalibration_leaves_the_momentum_as_it_was(digits: ImageData) -> None:
    network = make_net()
    network[5] = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(network, digits.train, compute=CPU)
    assert network[1].momentum == 0.1
    assert not network.training


def test_training_recalibration_and_judging_only_visit_the_device(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[nn.Module] = []

    @contextmanager
    def visiting(self: Compute, module: nn.Module) -> Iterator[nn.Module]:
        visits.append(module)
        yield module

    monkeypatch.setattr(Compute, "visiting", visiting)
    network = make_net()
    train(network, digits, replace(SHORT, epochs=1), compute=CPU)
    recalibrate_batch_norm(network, digits.train, compute=CPU)
    evaluate(network, digits.test, compute=CPU)
    assert visits == [network] * 3
