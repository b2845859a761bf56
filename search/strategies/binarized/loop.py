"""The search: path-binarized, differentiable, under hard limits (ProxylessNAS, arXiv:1812.00332)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from netlathe.archspace.decisions import Choices
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.costs import Constraint
from netlathe.search.decode import check_limits, decode, dispensable
from netlathe.search.errors import TargetError
from netlathe.search.final_choice import (
    Compared,
    Memory,
    OnCompared,
    ValidationLoss,
    candidate_scores,
    compare_networks,
    remembering,
)
from netlathe.search.strategies.binarized.architecture_step import ArchitectureStep
from netlathe.search.strategies.binarized.objectives import Objective, PIObjective
from netlathe.search.strategies.binarized.outcome import EpochRow, SearchProgress, SearchResult, check_data
from netlathe.search.strategies.binarized.parameters import (
    ArchitectureParameters,
    Gate,
    of_all_ranks,
    plain_gates,
)
from netlathe.search.strategies.binarized.settings import Phase, Schedule, SearchConfig
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.search.strategies.binarized.updates import GradientUpdate, UpdateRule
from netlathe.search.strategies.binarized.validation import make_validation_loss
from netlathe.training.batch_norm import Settle, normalising
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.images import ImageData
from netlathe.training.loop import run_steps
from netlathe.training.losses import cross_entropy
from netlathe.training.sgd import WeightStep
from netlathe.training.stream import Batch, batches_per_pass, images_per_batch, stream

OnStep = Callable[[SearchProgress], None]


class Searcher:
    """A path-binarized search, step by step; nothing of it lives outside this object and what it was given.

    Equal arguments give equal results on equal machines, however often the search was interrupted in between. Several
    processes (`compute.ranks`), given the same, search together: each computes a share of every batch, on the path that
    all draw alike, and all have the same weights and architecture parameters after each step. Raises TargetError when
    no network keeps the limits, DataError when images and space do not fit, TrainingError where a batch is too small
    for the processes, or these do not compute alike.
    """

    _batches: Generator[Batch, None, None]
    """Training batches, for the weights."""
    _validation: Generator[Batch, None, None]
    """Validation batches, for the architecture."""
    _settle: Settle

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        constraints: Sequence[Constraint],
        config: SearchConfig | None = None,
        *,
        compute: Compute | None = None,
        rule: UpdateRule | None = None,
        objective: Objective | None = None,
    ) -> None:
        config, compute = config or SearchConfig(), compute or Compute()
        check_data(space, data)
        check_limits(space, constraints)
        self.space, self.data, self.constraints = space, data, tuple(constraints)
        self.config, self.compute = config, compute
        # On the CPU and in float32 whatever computes the networks: they are few, and decide everything.
        self.parameters = ArchitectureParameters(space.option_counts)
        objective = objective or PIObjective(len(constraints), config.multiplier_gain, config.multiplier_rate)
        self.architecture_step = ArchitectureStep(
            self.parameters, self.constraints, rule or GradientUpdate(), objective, config.alpha_learning_rate
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.supernet = compute.place(SuperNet(space, generator=self.generator))
        for candidates in self.supernet.positions:
            for candidate in candidates.children():
                compute.maybe_compile(candidate)
        compute.ranks.align(self.supernet)
        self.weights = config.weights_of(data.train.labels, len(data.classes))
        self.weight_step = WeightStep(self.supernet, config, compute, weights=self.weights)
        self._share, self._validation_share = (
            config.share(images_per_batch(split, config.batch_size), compute.ranks)
            for split in (data.train, data.validation)
        )
        self.step = 0
        self.schedule = Schedule(config, batches_per_pass(data.train, config.batch_size))
        self.history: list[EpochRow] = []
        self._epoch: list[tuple[float, float]] = []

    @property
    def steps(self) -> int:
        """Steps of all three phases."""
        return self.schedule.steps

    def run(
        self,
        on_step: OnStep | None = None,
        *,
        until: Literal["warm", "end"] = "end",
        checkpointer: Checkpointer | None = None,
    ) -> Searcher:
        """Goes on from the step where it stands, to the end or to where the architecture would start to move. Raises
        TrainingError when the loss is no longer a number."""
        run_steps(self, self.schedule.warm_steps if until == "warm" else self.steps, on_step, checkpointer)
        return self

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Context with batches for weights and for the architecture, from the present step on."""
        seed, size, workers = self.config.seed, self.config.batch_size, self.compute.workers
        mirror, asked = self.data.mirror, self.schedule.architecture_steps(self.step)
        self._batches = stream(
            self.data.train, size, seed=2 * seed, start=self.step, augment=True, mirror=mirror, workers=workers,
            share=self._share,
        )  # fmt: skip
        self._validation = stream(
            self.data.validation, size, seed=2 * seed + 1, start=asked, workers=workers, share=self._validation_share
        )
        norms = normalising(self.supernet, self.compute.ranks, self.config.batch_norm)
        with closing(self._batches), closing(self._validation), norms as self._settle:
            yield

    def advance(self) -> SearchProgress:
        """Makes the next step: of the weights, and in the last phase of the architecture, too."""
        phase = self.schedule.phase(self.step)
        if self.step == self.schedule.start_steps > 0:
            self.supernet.share_weights(self.space.main_path)
            self.weight_step.forget_momentum()
        where, rate = f"step {self.step + 1} ({phase})", self.schedule.learning_rate(self.step)
        forward = partial(self.supernet, gates=plain_gates(self._draw(phase)))
        seen = self.weight_step(next(self._batches), forward, rate, where, self._share)
        if self.schedule.moves_architecture(self.step):
            run = partial(self._cross_entropy, next(self._validation))
            self.architecture_step(run, self.generator, f"architecture {where}")
            self.compute.ranks.check_same(self.parameters.alpha, f"architecture parameters after {where}")
        self._settle()
        self._epoch.append(seen)
        self.step += 1
        if self.step % self.schedule.per_epoch == 0:
            self._end_epoch(phase)
        expected = tuple(float(cost.detach()) for cost in self.architecture_step.expected())
        return SearchProgress(phase, self.step, self.steps, *seen, self.constraints, expected)

    def _draw(self, phase: Phase) -> Choices:
        """The path of a weight step."""
        match phase:
            case "start":
                return self.space.main_path
            case "warm-up":
                return self.parameters.uniform_path(self.generator)
            case "search":
                return self.parameters.sample_path(self.generator)

    def _cross_entropy(self, batch: Batch, gates: Sequence[Gate]) -> Iterator[Tensor]:
        """Cross-entropy of a batch through these gates, in parts that add up to the batch's mean. Losses and gates'
        gradients are those of all processes' images, so that update rules need not know of them."""
        ranks = self.compute.ranks
        gates = of_all_ranks(gates, ranks)
        x, labels = self.compute.put(*batch)
        for images, wanted, weight in self._validation_share.parts(x, labels):
            with self.compute.autocast():
                logits = self.supernet(images, gates)
            yield ranks.total(weight * cross_entropy(logits, wanted, weights=self.weights))

    def _end_epoch(self, phase: Phase) -> None:
        if phase == "search" and self.config.prune_below > 0:
            log_p = self._log_probabilities().numpy()
            for position, candidate in dispensable(log_p, self.config.prune_below, self.constraints):
                self._drop(position, candidate)
        losses, accuracies = zip(*self._epoch, strict=True)
        self._epoch.clear()
        epoch, standing = self.step // self.schedule.per_epoch - 1, self.architecture_step.standing()
        self.history.append(EpochRow(epoch, phase, fmean(losses), fmean(accuracies), **standing))

    def _log_probabilities(self) -> Tensor:
        return self.parameters.log_probabilities().detach().double()

    def _drop(self, position: int, candidate: int) -> None:
        self.parameters.drop(position, candidate)
        self.weight_step.drop(self.supernet.drop(self.space.searchable[position], candidate))

    def retarget(self, constraints: Sequence[Constraint], *, objective: Objective | None = None) -> Searcher:
        """A search for other limits that goes on from the warm weights of this one, which stays as it is. Raises
        TargetError once this one's architecture has moved."""
        if self.step > self.schedule.warm_steps:
            raise TargetError("only a search whose architecture has not moved yet can change its limits")
        rule = copy.deepcopy(self.architecture_step.rule)
        other = Searcher(
            self.space, self.data, constraints, self.config, compute=self.compute, rule=rule, objective=objective
        )
        state = copy.deepcopy(self.state_dict())
        other.load_state_dict({**state, "objective": other.architecture_step.objective.state_dict()})
        other.history = [replace(row, **other.architecture_step.standing()) for row in self.history]
        return other

    def result(
        self,
        on_compared: OnCompared | None = None,
        *,
        loss: Callable[[Choices], float] | None = None,
        memory: Memory | None = None,
        offered: Sequence[Choices] = (),
        earlier: Sequence[Mapping[Choices, float]] = (),
    ) -> SearchResult:
        """The best network within the limits, as things stand. Finalists are compared by their cross-entropy on
        validation images, or by a `loss` of choices, the lower the better; what `memory` holds is not computed again.
        Networks that are `offered` are among them, and what `earlier` comparisons by other weights saw counts, too.
        Raises TrainingError when the supernet's weights are no good, or a loss is no number."""
        log_probabilities = self._log_probabilities()
        log_p, rng = log_probabilities.numpy(), np.random.default_rng(self.config.seed)
        validation_loss, parts = self._validation_loss(loss, rng)
        validation_loss = remembering(validation_loss, {} if memory is None else memory)
        compared = Compared(parts)
        if self.config.finalists:
            compared = compare_networks(
                log_p, self.constraints, validation_loss, finalists=self.config.finalists, rng=rng, parts=parts,
                offered=offered, earlier=earlier, on_compared=on_compared,
            )  # fmt: skip
        scores = candidate_scores(log_p, self.constraints, compared, earlier)
        path = decode(scores, self.constraints)
        return SearchResult(
            architecture=self.space.architecture(path),
            path=path,
            constraints=self.constraints,
            costs=tuple(c.table.cost(path) for c in self.constraints),
            history=list(self.history),
            supernet=self.supernet,
            log_probabilities=log_probabilities,
            scores=scores,
            examined=compared.means(),
        )

    def _validation_loss(
        self, loss: Callable[[Choices], float] | None, rng: np.random.Generator
    ) -> tuple[ValidationLoss, int]:
        """Loss that finalists are compared by, and in how many parts."""
        if loss is not None:
            return (lambda choices, part: loss(choices)), 1
        return make_validation_loss(
            self.supernet, self.data.validation, self.config.finalist_images, self.compute, rng, weights=self.weights
        )

    def state_dict(self) -> dict[str, Any]:
        """State of the search: all that changes from step to step."""
        step = self.architecture_step
        return {
            "step": self.step,
            "mask": self.parameters.mask,
            "alpha": self.parameters.alpha.detach(),
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_step.optimizer.state_dict(),
            "alpha_optimizer": step.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "objective": step.objective.state_dict(),
            "rule": step.rule.state_dict(),
            "history": [asdict(row) for row in self.history],
            "epoch": [list(seen) for seen in self._epoch],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back, or forth, to where `state` was taken. Both searches must be of the same arguments."""
        for position, candidate in (self.parameters.mask & ~state["mask"]).nonzero().tolist():
            self._drop(position, candidate)
        with torch.no_grad():
            self.parameters.alpha.copy_(state["alpha"])
        self.supernet.load_state_dict(state["supernet"])
        self.weight_step.optimizer.load_state_dict(state["weight_optimizer"])
        self.architecture_step.optimizer.load_state_dict(state["alpha_optimizer"])
        self.generator.set_state(state["generator"])
        self.architecture_step.objective.load_state_dict(state["objective"])
        self.architecture_step.rule.load_state_dict(state["rule"])
        self.step = state["step"]
        self.history = [EpochRow.from_json(row) for row in state["history"]]
        self._epoch = [(loss, accuracy) for loss, accuracy in state["epoch"]]


def search(
    space: SearchSpace,
    data: ImageData,
    constraints: Sequence[Constraint],
    config: SearchConfig | None = None,
    on_step: OnStep | None = None,
    *,
    compute: Compute | None = None,
    rule: UpdateRule | None = None,
    objective: Objective | None = None,
) -> SearchResult:
    """Finds the architecture of `space` that classifies `data` best within all limits, in one run.

    Raises TargetError when no network keeps them, DataError when images and space do not fit, TrainingError when the
    loss diverges. Equal seeds give equal results on equal machines.
    """
    searcher = Searcher(space, data, constraints, config, compute=compute, rule=rule, objective=objective)
    return searcher.run(on_step).result()
