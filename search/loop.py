"""The search: path-binarized, differentiable, with a latency target (ProxylessNAS, arXiv:1812.00332)."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from archspace.spaces import Architecture, SearchSpace
from search.errors import DataError
from search.images import ImageData, augment, batches, endless
from search.latency import LatencyTable, decode
from search.parameters import ArchitectureParameters, Gate, Path, plain_gates, rescale_pairs
from search.supernet import SuperNet, main_path
from search.training import OnStep, StepProgress, batch_accuracy, check_finite, make_optimizer

Phase = Literal["start", "warm-up", "search"]


@dataclass(frozen=True)
class SearchConfig:
    """Three phases: the widest network alone, whose weights the other candidates then start from; weights along random
    paths; and weights and architecture in turn, the one on a sampled path, the other on two, from the validation split.
    """

    start_epochs: int = 4
    """Before the others."""
    warmup_epochs: int = 6
    epochs: int = 20
    """Of the third phase."""
    batch_size: int = 32
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    alpha_learning_rate: float = 0.02
    multiplier_gain: float = 1.0
    """Proportional gain: weight of log(E / target) in the loss per unit of excess."""
    multiplier_rate: float = 0.03
    """Integral gain per architecture step."""
    seed: int = 0


class Multiplier:
    """The price of latency: a PI controller on h = log(latency / target), never below zero.

    The loss is cross-entropy + value * h. The integral part is dual ascent on the constraint h <= 0; the
    proportional part damps it (Stooke et al., arXiv:2007.03964).
    """

    def __init__(self, gain: float, rate: float) -> None:
        self.gain = gain
        self.rate = rate
        self.integral = 0.0
        self.value = 0.0

    def update(self, h: float) -> float:
        self.integral = max(0.0, self.integral + self.rate * h)
        self.value = max(0.0, self.integral + self.gain * h)
        return self.value


@dataclass(frozen=True)
class EpochRow:
    """One line of the search's log."""

    epoch: int
    phase: Phase
    loss: float
    accuracy: float
    """Of the sampled paths on their training batches."""
    expected_ms: float
    likeliest_ms: float
    """Predicted latency of the most probable network."""
    multiplier: float
    entropy: float
    """Mean over positions, in nats; log(candidates) at the start, 0 when decided."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found; `supernet` still holds the weights of every candidate."""

    architecture: Architecture
    path: Path
    target_ms: float
    predicted_ms: float
    history: list[EpochRow]
    supernet: SuperNet
    probabilities: Tensor
    """(positions, candidates)."""

    def summary(self) -> dict[str, object]:
        """All but the weights, for JSON."""
        return {
            "target_ms": self.target_ms,
            "predicted_ms": self.predicted_ms,
            "choices": list(self.path),
            "probabilities": [[round(p, 6) for p in row] for row in self.probabilities.tolist()],
            "history": [asdict(row) for row in self.history],
        }


class _Search:
    """The state of one search and its two kinds of steps."""

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        table: LatencyTable,
        target_ms: float,
        config: SearchConfig,
        on_step: OnStep | None,
    ) -> None:
        self.data, self.table, self.target_ms, self.config, self.on_step = data, table, target_ms, config, on_step
        self.generator = torch.Generator().manual_seed(config.seed)
        self.supernet = SuperNet(space, generator=self.generator)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.main = main_path(space)
        self.parameters = ArchitectureParameters([len(space.positions[i]) for i in space.searchable])
        self.multiplier = Multiplier(config.multiplier_gain, config.multiplier_rate)
        self.epochs = config.start_epochs + config.warmup_epochs + config.epochs
        self.step = 0
        self.steps = self.epochs * max(1, len(data.train) // config.batch_size)
        self.weight_optimizer = make_optimizer(
            self.supernet, config.learning_rate, config.momentum, config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.weight_optimizer, self.steps)
        # beta1 = 0: a pair that was not sampled must not move on momentum (ProxylessNAS's setting).
        self.alpha_optimizer = torch.optim.Adam(
            self.parameters.parameters(), lr=config.alpha_learning_rate, betas=(0.0, 0.999)
        )
        self.validation = endless(data.validation, config.batch_size, self.generator)

    def weight_step(self, x: Tensor, labels: Tensor, path: Path, where: str) -> tuple[float, float]:
        """Returns loss and batch accuracy."""
        logits = self.supernet(augment(x, self.generator, mirror=self.data.mirror), plain_gates(path))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        value = check_finite(loss, where)
        # Weights off the path get no gradient at all, so neither momentum nor decay moves them.
        self.weight_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.weight_optimizer.step()
        return value, batch_accuracy(logits, labels)

    def architecture_step(self, where: str) -> None:
        x, labels = next(self.validation)
        gates: list[Gate] = self.parameters.sample_pairs(self.generator)
        before = self.parameters.alpha.detach().clone()
        h = torch.log(self.table.expected_ms(self.parameters.probabilities()) / self.target_ms)
        loss = F.cross_entropy(self.supernet(x, gates), labels) + self.multiplier.value * h
        check_finite(loss, where)
        self.alpha_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.alpha_optimizer.step()
        rescale_pairs(self.parameters, before, gates)
        # The dual step looks at the network that would be taken, not at the mixture, which can meet the target alone.
        self.multiplier.update(math.log(self.table.latency_ms(self._likeliest()) / self.target_ms))

    def _likeliest(self) -> Path:
        return tuple(self.parameters.log_probabilities().argmax(1).tolist())

    def epoch(self, index: int) -> EpochRow:
        """One pass over the training split, in the phase that is on."""
        config = self.config
        phase = self.phase(index)
        if index == config.start_epochs:
            self.supernet.spread(self.main)
            self.weight_optimizer.state.clear()  # momentum of before does not fit the new weights
        losses, accuracies = [], []
        for x, labels in batches(self.data.train, config.batch_size, self.generator):
            self.step += 1
            loss, accuracy = self.weight_step(x, labels, self.draw(phase), f"step {self.step} ({phase})")
            if phase == "search":
                self.architecture_step(f"architecture step {self.step}")
            self.schedule.step()
            losses.append(loss)
            accuracies.append(accuracy)
            if self.on_step:
                expected = float(self.table.expected_ms(self.parameters.probabilities().detach()))
                self.on_step(StepProgress(phase, self.step, self.steps, loss, accuracy, expected))
        return self.row(index, phase, statistics.fmean(losses), statistics.fmean(accuracies))

    def phase(self, epoch: int) -> Phase:
        if epoch < self.config.start_epochs:
            return "start"
        return "warm-up" if epoch < self.config.start_epochs + self.config.warmup_epochs else "search"

    def draw(self, phase: Phase) -> Path:
        """The path of a weight step."""
        match phase:
            case "start":
                return self.main
            case "warm-up":
                return self.parameters.uniform_path(self.generator)
            case "search":
                return self.parameters.sample_path(self.generator)

    def row(self, epoch: int, phase: Phase, loss: float, accuracy: float) -> EpochRow:
        with torch.no_grad():
            p = self.parameters.probabilities()
            entropy = -torch.xlogy(p, p).sum(1).mean()
            expected = self.table.expected_ms(p)
        return EpochRow(
            epoch=epoch,
            phase=phase,
            loss=loss,
            accuracy=accuracy,
            expected_ms=float(expected),
            likeliest_ms=self.table.latency_ms(self._likeliest()),
            multiplier=self.multiplier.value,
            entropy=float(entropy),
        )


def search(
    space: SearchSpace,
    data: ImageData,
    table: LatencyTable,
    target_ms: float,
    config: SearchConfig | None = None,
    on_step: OnStep | None = None,
) -> SearchResult:
    """Finds the architecture of `space` that classifies `data` best with a predicted latency of at most target_ms.

    Raises TargetError when no network is that fast, DataError when images and space do not fit, TrainingError when
    the loss diverges. Equal seeds give equal results on equal machines.
    """
    config = config or SearchConfig()
    table.check_target(target_ms)
    check_data(space, data)
    run = _Search(space, data, table, target_ms, config, on_step)
    history = [run.epoch(index) for index in range(run.epochs)]
    log_probabilities = run.parameters.log_probabilities().detach()
    path = decode(log_probabilities.double().numpy(), table, target_ms)
    return SearchResult(
        architecture=space.architecture(path),
        path=path,
        target_ms=target_ms,
        predicted_ms=table.latency_ms(path),
        history=history,
        supernet=run.supernet,
        probabilities=log_probabilities.exp(),
    )


def check_data(space: SearchSpace, data: ImageData) -> None:
    """Raises DataError when the space leaves no choice or has no head, or when the images are not of its size or have
    more classes than its head."""
    if not space.searchable:
        raise DataError(f"space {space.name!r} has one candidate at every position: there is nothing to search")
    if len(space.positions[-1][0].output_shape) != 1:
        raise DataError(f"space {space.name!r} must end in a linear head, not in {space.positions[-1][0]}")
    if data.input_shape != space.input_shape:
        raise DataError(f"images are {data.input_shape}, space {space.name!r} takes {space.input_shape}")
    if len(data.classes) > space.classes:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, the head of space {space.name!r} {space.classes}"
        )
