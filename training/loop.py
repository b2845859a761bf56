"""The training loop, which a search's weights go through as well, and the training of one network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from netlathe.training.augmentation import PLAIN, Augmentation
from netlathe.training.batch_norm import Settle, normalising
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.distillation import Teacher
from netlathe.training.errors import TrainingError
from netlathe.training.forward import TrainingForward
from netlathe.training.images import ImageData, ImageSplit
from netlathe.training.sgd import Optimizer, SgdConfig, WeightStep
from netlathe.training.stream import Batch, batches_per_pass, images_per_batch, stream


@dataclass(frozen=True)
class StepProgress:
    """Position of a training or a search after a step."""

    phase: str
    step: int
    steps: int
    loss: float
    accuracy: float
    """Share of the batch just seen that was classified right."""

    def __str__(self) -> str:
        return f"{self.phase}: loss {self.loss:.2f}"


Progress = TypeVar("Progress", bound=StepProgress, covariant=True)
AnyProgress = TypeVar("AnyProgress", bound=StepProgress)
OnStep = Callable[[StepProgress], None]


class Stepper(Protocol[Progress]):
    """Work that goes on in steps, and whose state between two steps is all that it needs to go on."""

    @property
    def step(self) -> int:
        """Steps made so far."""
        ...

    def opened(self) -> AbstractContextManager[None]:
        """Context in which the work has its batches, from the present step on."""
        ...

    def advance(self) -> Progress:
        """Makes the next step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State of the work: all that changes from step to step."""
        ...


def run_steps(
    work: Stepper[AnyProgress],
    last: int,
    on_step: Callable[[AnyProgress], None] | None = None,
    checkpointer: Checkpointer | None = None,
) -> None:
    """Advances the work until `last` steps are made; saves it when the checkpointer is due and at the end, and then
    tells `on_step`, so that whatever stops the process there loses no step. Raises TrainingError when the work does,
    with the place of the last good state."""
    with naming_last_state(checkpointer), work.opened():
        while work.step < last:
            progress = work.advance()
            if checkpointer and (checkpointer.due() or work.step == last):
                checkpointer.save(work.state_dict())
            if on_step:
                on_step(progress)


@contextmanager
def naming_last_state(checkpointer: Checkpointer | None) -> Iterator[None]:
    """Context in which a TrainingError says in which file the last good state is, where there is one."""
    try:
        yield
    except TrainingError as error:
        if checkpointer and checkpointer.path.exists():
            raise TrainingError(f"{error} (the last good state is in {checkpointer.path})") from error
        raise


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SgdConfig):
    """Settings of the training of one network: the recipe of mobile networks, with a cosine schedule.

    Raises TrainingError for values that no training can have.
    """

    recipe: str = ""
    """Name of the published recipe that these are the settings of, as `RECIPES` has it; none for others."""
    epochs: int = 30
    warmup_epochs: float = 0.0
    """The first of `epochs`, while the learning rate grows linearly; may be a fraction."""
    ema_decay: float = 0.0
    """Above 0, the trained weights are an exponential moving average, over about 1 / (1 - ema_decay) steps."""
    optimizer: Optimizer = "sgd"
    """SGD with Nesterov momentum, or AdamW, whose beta1 is `momentum`."""
    dropout: float = 0.0
    """Probability that a value before the last fully connected layer is left out."""
    drop_path: float = 0.0
    """Probability that the last residual branch is left out for an image; of those before, linearly less."""
    resolutions: tuple[float, ...] = (1.0,)
    """Sides of the training images as shares of the network's own, each for an equal part of the epochs: (160 / 224,)
    trains on small images throughout, (0.5, 0.75, 1) on ever larger ones. The nearest size at which the network's
    layers are the same is taken."""
    augmentation: Augmentation = PLAIN

    def __post_init__(self) -> None:
        if isinstance(self.resolutions, list):
            object.__setattr__(self, "resolutions", tuple(self.resolutions))
        super().__post_init__()

    def out_of_range(self) -> dict[str, bool]:
        return {
            "epochs": self.epochs < 0,
            "optimizer": self.optimizer not in get_args(Optimizer),
            "dropout": not 0 <= self.dropout < 1,
            "drop_path": not 0 <= self.drop_path < 1,
            "resolutions": not self.resolutions or not all(0 < one <= 1 for one in self.resolutions),
            "warmup_epochs": not 0 <= self.warmup_epochs <= self.epochs,
            "ema_decay": not 0 <= self.ema_decay < 1,
            **super().out_of_range(),
        }


def learning_rate_at(step: int, steps: int, warmup_steps: float, highest: float) -> float:
    """Learning rate of step 0, 1, ..., `steps` - 1: a linear warm-up to `highest`, then a cosine towards 0. A function
    of the step alone, so that a resumed training has nothing to restore."""
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
    split: ImageSplit | None = None,
    teacher: Teacher | None = None,
) -> None:
    """Trains in place, from the weights that `network` has, on the train and validation splits together, or on another
    `split`; with a `teacher`, from its outputs, too.

    With a checkpointer, it goes on from the saved step, if any, and saves when due and at the end; on the CPU, the
    weights are bit for bit those of an undisturbed training. The network is left in eval mode, on the device it came
    on. Several processes (`compute.ranks`), given the same, train it together, from the leader's weights, to the same
    weights in all. Raises TrainingError when the loss diverges (what was saved last stays), FormatError when the saved
    file cannot be used, DataError for an image that cannot be read.
    """
    config.augmentation.check_packages()
    compute = compute or Compute()
    split = split or data.train.joined(data.validation)
    with compute.visiting(network), compute.visiting(teacher.network.eval()) if teacher else nullcontext():
        training = _Training(
            network, split, config, compute, mirror=data.mirror, teacher=teacher, classes=len(data.classes)
        )
        state = checkpointer.load() if checkpointer else None
        if checkpointer and state is not None:
            checkpointer.resume(training.load_state_dict, state)
        compute.ranks.align(network)
        try:
            run_steps(training, training.steps, on_step, checkpointer)
            with naming_last_state(checkpointer):
                training.finish()
        finally:
            network.eval()


class _Training:
    """Training of one network, step by step."""

    batches: Iterator[Batch]
    settle: Settle

    def __init__(
        self,
        network: nn.Module,
        split: ImageSplit,
        config: TrainConfig,
        compute: Compute,
        *,
        mirror: bool,
        teacher: Teacher | None,
        classes: int,
    ) -> None:
        self.network, self.split, self.config, self.compute, self.mirror = network, split, config, compute, mirror
        self.classes = classes
        self.share = config.share(images_per_batch(split, config.batch_size), compute.ranks)
        weights = config.weights_of(split.labels, classes)
        self.weight_step = WeightStep(network, config, compute, teacher, weights=weights, kind=config.optimizer)
        # BatchNorm's statistics are averaged like the weights that they belong to.
        average = partial(_average, config.ema_decay)
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if config.ema_decay else None
        per_epoch = batches_per_pass(split, config.batch_size)
        self.steps, self.warmup_steps = config.epochs * per_epoch, config.warmup_epochs * per_epoch
        self.step = 0
        network.train()
        _, *pixels = split.shape
        self.forward = TrainingForward(
            network, (pixels[0], pixels[1]), self.share, compute, seed=config.seed, resolutions=config.resolutions,
            drop_path=config.drop_path, dropout=config.dropout,
        )  # fmt: skip

    @contextmanager
    def opened(self) -> Iterator[None]:
        batches = stream(
            self.split, self.config.batch_size, seed=self.config.seed, start=self.step, augment=True,
            mirror=self.mirror, augmentation=self.config.augmentation, classes=self.classes,
            workers=self.compute.workers, share=self.share,
        )  # fmt: skip
        norms = normalising(self.network, self.compute.ranks, self.config.batch_norm)
        with closing(batches), norms as self.settle:
            self.batches = batches
            yield

    def advance(self) -> StepProgress:
        rate = learning_rate_at(self.step, self.steps, self.warmup_steps, self.config.learning_rate)
        where = f"training step {self.step + 1} of {self.steps}"
        forward = self.forward.at(self.step, self.steps)
        loss, accuracy = self.weight_step(next(self.batches), forward, rate, where, self.share)
        self.settle()
        if self.ema:
            self.ema.update_parameters(self.network)
        self.step += 1
        return StepProgress("train", self.step, self.steps, loss, accuracy)

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
            "optimizer": self.weight_step.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.weight_step.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])


@torch.no_grad()
def _average(decay: float, means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """means <- decay * means + (1 - decay) * values, with less decay in the first steps, whose weights are random:
    after n steps at most (1 + n) / (10 + n), as TensorFlow's ExponentialMovingAverage has it with `num_updates`."""
    now = min(decay, (1 + float(count)) / (10 + float(count)))
    get_ema_multi_avg_fn(now)(means, values, count)  # type: ignore[no-untyped-call]
