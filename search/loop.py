"""The search: path-binarized, differentiable, with a latency target (ProxylessNAS, arXiv:1812.00332)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from archspace.spaces import Architecture, SearchSpace
from search.errors import DataError
from search.images import ImageData, augment, batches, endless
from search.latency import LatencyTable, decode
from search.parameters import ArchitectureParameters, Gate, Path, plain_gates, rescale_pairs
from search.supernet import SuperNet
from search.training import OnStep, StepProgress, batch_accuracy, check_finite, make_optimizer


@dataclass(frozen=True)
class SearchConfig:
    """Weight steps on one sampled path; after the warm-up also architecture steps on two, from the validation split."""

    epochs: int = 40
    warmup_epochs: int = 10
    """Of `epochs`: weights only, paths drawn uniformly."""
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    alpha_learning_rate: float = 0.02
    multiplier_gain: float = 1.0
    """Proportional gain: weight of log(E / target) in the loss per unit of excess."""
    multiplier_rate: float = 0.05
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
        self, space: SearchSpace, data: ImageData, table: LatencyTable, target_ms: float, config: SearchConfig
    ) -> None:
        self.data, self.table, self.target_ms, self.config = data, table, target_ms, config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.supernet = SuperNet(space, generator=self.generator)
        self.parameters = ArchitectureParameters([len(space.positions[i]) for i in space.searchable])
        self.multiplier = Multiplier(config.multiplier_gain, config.multiplier_rate)
        self.weight_optimizer = make_optimizer(
            self.supernet, config.learning_rate, config.momentum, config.weight_decay
        )
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

    def row(self, epoch: int, losses: list[float], accuracies: list[float]) -> EpochRow:
        with torch.no_grad():
            p = self.parameters.probabilities()
            entropy = -torch.xlogy(p, p).sum(1).mean()
            expected = self.table.expected_ms(p)
        return EpochRow(
            epoch=epoch,
            loss=sum(losses) / len(losses),
            accuracy=sum(accuracies) / len(accuracies),
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
    run = _Search(space, data, table, target_ms, config)
    history: list[EpochRow] = []
    per_epoch = max(1, len(data.train) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(run.weight_optimizer, config.epochs * per_epoch)
    for epoch in range(config.epochs):
        warming_up = epoch < config.warmup_epochs
        losses, accuracies = [], []
        for index, (x, labels) in enumerate(batches(data.train, config.batch_size, run.generator)):
            step = epoch * per_epoch + index + 1
            draw = run.parameters.uniform_path if warming_up else run.parameters.sample_path
            loss, accuracy = run.weight_step(x, labels, draw(run.generator), f"search step {step}")
            schedule.step()
            if not warming_up:
                run.architecture_step(f"architecture step {step}")
            losses.append(loss)
            accuracies.append(accuracy)
            if on_step:
                expected = float(table.expected_ms(run.parameters.probabilities().detach()))
                phase = "warm-up" if warming_up else "search"
                on_step(StepProgress(phase, step, config.epochs * per_epoch, loss, accuracy, expected))
        history.append(run.row(epoch, losses, accuracies))
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
    """Raises DataError when the images are not of the space's size or have more classes than its head."""
    if data.input_shape != space.input_shape:
        raise DataError(f"images are {data.input_shape}, space {space.name!r} takes {space.input_shape}")
    if len(data.classes) > space.classes:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, the head of space {space.name!r} {space.classes}"
        )
