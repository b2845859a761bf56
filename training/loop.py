"""Training one network, judging it, and setting its BatchNorm statistics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError, refuse
from netlathe.training.images import ImageData, ImageSplit, to_input
from netlathe.training.stream import batches_per_pass, chunks, stream


@dataclass(frozen=True)
class StepProgress:
    """Where a training or search stands."""

    phase: str
    step: int
    steps: int
    loss: float
    accuracy: float
    """Of the batch just seen."""
    expected_ms: float | None = None
    """E[latency] under the architecture parameters, during a search."""


OnStep = Callable[[StepProgress], None]


@dataclass(frozen=True)
class TrainConfig:
    """SGD with Nesterov momentum, cosine schedule, label smoothing: the recipe of mobile networks.

    Raises TrainingError for values that no training can have.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.1
    """The highest: after the warm-up, from where it falls towards 0 along a cosine."""
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    warmup_epochs: float = 0.0
    """Of `epochs`; the learning rate grows linearly meanwhile. May be a fraction."""
    ema_decay: float = 0.0
    """Above 0, the trained weights are an exponential moving average, over about 1 / (1 - ema_decay) steps."""
    accumulate: int = 1
    """Parts that a batch is computed in: as much less memory, the same gradients except for BatchNorm's statistics."""
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "epochs": self.epochs < 0,
            "batch_size": self.batch_size < 1,
            "learning_rate": not 0 < self.learning_rate < math.inf,
            "momentum": not 0 <= self.momentum < 1,
            "weight_decay": not 0 <= self.weight_decay < math.inf,
            "label_smoothing": not 0 <= self.label_smoothing < 1,
            "warmup_epochs": not 0 <= self.warmup_epochs <= self.epochs,
            "ema_decay": not 0 <= self.ema_decay < 1,
            "accumulate": not (self.accumulate == 1 or 1 < self.accumulate <= self.batch_size // 2),
        }
        refuse(self, wrong)


def make_optimizer(module: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD that decays weights, but neither biases nor BatchNorm."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def check_finite(loss: Tensor | float, where: str) -> float:
    """The loss as a number. Raises TrainingError when it is none."""
    value = float(loss.detach()) if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        raise TrainingError(f"{where}: the loss became {value}; lower the learning rate")
    return value


def learning_rate_at(step: int, steps: int, warmup_steps: float, highest: float) -> float:
    """Of step 0, 1, ..., `steps` - 1: a linear warm-up to `highest`, then a cosine towards 0. A function of the step
    alone, so that a resumed training has nothing to restore."""
    if step + 1 < warmup_steps:
        return highest * (step + 1) / warmup_steps
    first = max(0, math.ceil(warmup_steps) - 1)
    return 0.5 * highest * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def train(
    network: nn.Module,
    data: ImageData,
    config: TrainConfig,
    on_step: OnStep | None = None,
    *,
    compute: Compute | None = None,
    checkpointer: Checkpointer | None = None,
) -> None:
    """Trains in place, from the weights that `network` has, on the train and validation splits together.

    With a checkpointer, it goes on from the saved step, if any, and saves when due and at the end; on the CPU, the
    weights are bit for bit those of an undisturbed training. The network is left in eval mode, on the device it came
    on. Raises TrainingError when the loss diverges (what was saved last stays), FormatError when the saved file cannot
    be used, DataError for an image that cannot be read.
    """
    compute = compute or Compute()
    split = data.train.joined(data.validation)
    with compute.visiting(network):
        training = _Training(network, config, compute, batches_per_pass(split, config.batch_size))
        state = checkpointer.load() if checkpointer else None
        if checkpointer and state is not None:
            checkpointer.resume(training.load_state_dict, state)
        try:
            _run(training, split, data.mirror, on_step, checkpointer)
            training.finish()
        except TrainingError as error:
            if checkpointer and checkpointer.path.exists():
                raise TrainingError(f"{error} (the last good state is in {checkpointer.path})") from error
            raise
        finally:
            network.eval()


def _run(
    training: _Training, split: ImageSplit, mirror: bool, on_step: OnStep | None, checkpointer: Checkpointer | None
) -> None:
    config, workers, steps = training.config, training.compute.workers, training.steps
    batches = stream(
        split, config.batch_size, seed=config.seed, start=training.step, augment=True, mirror=mirror, workers=workers
    )
    with closing(batches):
        for x, labels in itertools.islice(batches, steps - training.step):
            loss, accuracy = training.learn(x, labels)
            if checkpointer and (checkpointer.due() or training.step == steps):
                checkpointer.save(training.state_dict())
            if on_step:
                on_step(StepProgress("train", training.step, steps, loss, accuracy))


class _Training:
    """A network being trained: all that changes from step to step."""

    def __init__(self, network: nn.Module, config: TrainConfig, compute: Compute, per_epoch: int) -> None:
        self.network, self.config, self.compute = network, config, compute
        self.optimizer = make_optimizer(network, config.learning_rate, config.momentum, config.weight_decay)
        # BatchNorm's statistics are averaged like the weights that they belong to.
        average = partial(_average, config.ema_decay)
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if config.ema_decay else None
        self.steps, self.warmup_steps = config.epochs * per_epoch, config.warmup_epochs * per_epoch
        self.step = 0
        network.train()
        # Beside the network, not in place: judging and exporting it afterwards need no compiled form.
        self.forward: Callable[[Tensor], Tensor] = torch.compile(network) if compute.compile else network

    def learn(self, x: Tensor, labels: Tensor) -> tuple[float, float]:
        """One step; returns the batch's loss and accuracy."""
        config = self.config
        rate = learning_rate_at(self.step, self.steps, self.warmup_steps, config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        x, labels = self.compute.put(x, labels)
        totals = torch.zeros(2, device=labels.device)
        for part, wanted in parts_of(x, labels, config.accumulate):
            with self.compute.autocast():
                logits = self.forward(part)
            loss = F.cross_entropy(logits.float(), wanted, label_smoothing=config.label_smoothing)
            loss = loss * (len(wanted) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            totals += torch.stack([loss.detach(), (logits.detach().argmax(1) == wanted).sum() / len(labels)])
        value, accuracy = totals.tolist()  # the one moment that waits for a GPU
        check_finite(value, f"training step {self.step + 1} of {self.steps}")
        self.optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.network)
        self.step += 1
        return value, accuracy

    def finish(self) -> None:
        """Gives the network its final weights. Raises TrainingError when they are no numbers."""
        if self.ema and self.step:
            self.network.load_state_dict(self.ema.module.state_dict())
        for name, value in self.network.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"after {self.step} steps {name} holds NaN or infinity; lower the learning rate")

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])


def parts_of(x: Tensor, labels: Tensor, count: int) -> Iterable[tuple[Tensor, Tensor]]:
    """A batch in so many parts of nearly equal size: never one of a single image, which BatchNorm cannot normalize."""
    return zip(torch.tensor_split(x, count), torch.tensor_split(labels, count), strict=True)


@torch.no_grad()
def _average(decay: float, means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """means <- decay * means + (1 - decay) * values, with less decay in the first steps, whose weights are random:
    after n steps at most (1 + n) / (10 + n), as TensorFlow's ExponentialMovingAverage has it with `num_updates`."""
    now = min(decay, (1 + float(count)) / (10 + float(count)))
    get_ema_multi_avg_fn(now)(means, values, count)  # type: ignore[no-untyped-call]


@torch.no_grad()
def recalibrate_batch_norm(
    network: nn.Module,
    split: ImageSplit,
    *,
    batch_size: int = 256,
    batch_limit: int = 32,
    compute: Compute | None = None,
) -> None:
    """Sets BatchNorm's running statistics to those of clean (not augmented) images, averaged over batches, in float32.
    The network is left in eval mode, on the device it came on."""
    compute = compute or Compute()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    count = min(batch_limit, batches_per_pass(split, batch_size))
    batches = stream(split, batch_size, seed=0, workers=compute.workers)
    with compute.visiting(network), closing(batches):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's word for a cumulative average
            network.train()
            for x, labels in itertools.islice(batches, count):
                network(compute.put(x, labels)[0])
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            network.eval()


@torch.no_grad()
def evaluate(
    network: Callable[[Tensor], Tensor], split: ImageSplit, *, batch_size: int = 256, compute: Compute | None = None
) -> float:
    """Share of images classified right, in 0..1; computed in float32. A module is put into eval mode and left on the
    device it came on; another callable gets images on the device of `compute`."""
    compute = compute or Compute()
    right = torch.zeros((), dtype=torch.int64, device=compute.torch_device)
    parts = chunks(split, batch_size, workers=compute.workers)
    visit = compute.visiting(network.eval()) if isinstance(network, nn.Module) else nullcontext()
    with visit, closing(parts):
        for images, labels in parts:
            x, wanted = compute.put(to_input(images), labels)
            right += (network(x).argmax(1) == wanted).sum()
    return int(right) / len(split)
