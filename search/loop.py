"""The search: path-binarized, differentiable, under hard limits (ProxylessNAS, arXiv:1812.00332)."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from netlathe.archspace.spaces import SearchSpace
from netlathe.search.costs import Constraint, check_limits, decode, dispensable
from netlathe.search.errors import TargetError
from netlathe.search.objectives import Objective, PIObjective
from netlathe.search.outcome import EpochRow, Phase, Schedule, SearchConfig, SearchResult, check_data
from netlathe.search.parameters import ArchitectureParameters, Gate, Path, plain_gates
from netlathe.search.quality import OnLook, examiner, look, quality
from netlathe.search.supernet import SuperNet, main_path
from netlathe.search.updates import GradientUpdate, UpdateRule
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.images import ImageData
from netlathe.training.loop import OnStep, StepProgress, check_finite, make_optimizer, parts_of
from netlathe.training.stream import batches_per_pass, stream

Batches = Generator[tuple[Tensor, Tensor], None, None]


class Searcher:
    """One search, step by step; nothing of it lives outside this object and what it was given.

    Equal arguments give equal results on equal machines, however often the search was interrupted in between.
    Raises TargetError when no network keeps the limits, DataError when images and space do not fit.
    """

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
        self.rule = rule or GradientUpdate()
        self.objective = objective or PIObjective(len(constraints), config.multiplier_gain, config.multiplier_rate)
        # Asked once, so that what it cannot join shows before hours of work.
        ones = torch.ones(1 + len(constraints)).unbind()
        self.objective.loss(ones[0], ones[1:], [1.0] * len(constraints))
        self.generator = torch.Generator().manual_seed(config.seed)
        self.supernet = compute.place(SuperNet(space, generator=self.generator))
        for candidates in self.supernet.positions:
            for candidate in candidates.children():
                compute.maybe_compile(candidate)
        # On the CPU and in float32 whatever computes the networks: they are few, and decide everything.
        self.parameters = ArchitectureParameters([len(space.positions[i]) for i in space.searchable])
        self.weight_optimizer = make_optimizer(
            self.supernet, config.learning_rate, config.momentum, config.weight_decay
        )
        # beta1 = 0: a pair that was not sampled must not move on momentum (ProxylessNAS's setting).
        self.alpha_optimizer = torch.optim.Adam(
            self.parameters.parameters(), lr=config.alpha_learning_rate, betas=(0.0, 0.999)
        )
        self.step = 0
        self.schedule = Schedule(config, batches_per_pass(data.train, config.batch_size))
        self.history: list[EpochRow] = []
        self._epoch: list[tuple[float, float]] = []

    @property
    def steps(self) -> int:
        """Of all three phases."""
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
        last = self.schedule.warm_steps if until == "warm" else self.steps
        try:
            with ExitStack() as stack:
                training, validation = self._streams(stack)
                while self.step < last:
                    progress = self._one_step(training, validation)
                    if checkpointer and (checkpointer.due() or self.step == last):
                        checkpointer.save(self.state_dict())
                    if on_step:
                        on_step(progress)
        except TrainingError as error:
            if checkpointer and checkpointer.path.exists():
                raise TrainingError(f"{error} (the last good state is in {checkpointer.path})") from error
            raise
        return self

    def _streams(self, stack: ExitStack) -> tuple[Batches, Batches]:
        """Batches for weights and for the architecture, from where they were left."""
        seed, size, workers = self.config.seed, self.config.batch_size, self.compute.workers
        mirror, asked = self.data.mirror, max(0, self.step - self.schedule.warm_steps)
        training = stream(
            self.data.train, size, seed=2 * seed, start=self.step, augment=True, mirror=mirror, workers=workers
        )
        validation = stream(self.data.validation, size, seed=2 * seed + 1, start=asked, workers=workers)
        return stack.enter_context(closing(training)), stack.enter_context(closing(validation))

    def _one_step(self, training: Batches, validation: Batches) -> StepProgress:
        phase = self.schedule.phase(self.step)
        if self.step == self.schedule.start_steps > 0:
            self.supernet.spread(main_path(self.space))
            self.weight_optimizer.state.clear()  # momentum of before does not fit the new weights
        where = f"step {self.step + 1} ({phase})"
        seen = self._weight_step(next(training), self._draw(phase), where)
        if phase == "search":
            self._architecture_step(next(validation), f"architecture {where}")
        self._epoch.append(seen)
        self.step += 1
        if self.step % self.schedule.per_epoch == 0:
            self._end_epoch(phase)
        in_ms = self.constraints and self.constraints[0].table.unit == "ms"
        expected_ms = float(self._expected()[0].detach()) if in_ms else None
        return StepProgress(phase, self.step, self.steps, *seen, expected_ms)

    def _draw(self, phase: Phase) -> Path:
        """The path of a weight step."""
        match phase:
            case "start":
                return main_path(self.space)
            case "warm-up":
                return self.parameters.uniform_path(self.generator)
            case "search":
                return self.parameters.sample_path(self.generator)

    def _weight_step(self, batch: tuple[Tensor, Tensor], path: Path, where: str) -> tuple[float, float]:
        """Returns loss and batch accuracy."""
        for group in self.weight_optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(self.step)
        # Weights off the path get no gradient at all, so neither momentum nor decay moves them.
        self.weight_optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(2, device=self.compute.torch_device)
        for logits, labels, share in self._forward(batch, plain_gates(path)):
            loss = share * F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            right = (logits.detach().argmax(1) == labels).float().mean()
            totals += torch.stack([loss.detach(), share * right])
        value, accuracy = totals.tolist()  # the one moment that waits for a GPU
        check_finite(value, where)
        self.weight_optimizer.step()
        return value, accuracy

    def _architecture_step(self, batch: tuple[Tensor, Tensor], where: str) -> None:
        def run(gates: Sequence[Gate]) -> Iterator[Tensor]:
            for logits, labels, share in self._forward(batch, gates):
                yield share * F.cross_entropy(logits, labels)

        before = self.parameters.alpha.detach().clone()
        value, slope, gates = self.rule.estimate(self.parameters, run, self.generator)
        # The loss as a function of the task's value and of alpha: its slopes join the task's with the costs'.
        task = torch.tensor(value, requires_grad=True)
        loss = self.objective.loss(task, self._expected(), [c.limit for c in self.constraints])
        check_finite(loss, where)
        by_task, by_costs = torch.autograd.grad(loss, [task, self.parameters.alpha], allow_unused=True)
        gradient = by_task * slope + (0 if by_costs is None else by_costs)
        check_finite(gradient.abs().max(), where)
        self.parameters.alpha.grad = gradient
        self.alpha_optimizer.step()
        self.rule.finish(self.parameters, before, gates)
        # The dual step looks at the network that would be taken, not at the mixture, which can meet the limit alone.
        likeliest = self.parameters.likeliest()
        self.objective.observe([c.excess(likeliest) for c in self.constraints])

    def _forward(self, batch: tuple[Tensor, Tensor], gates: Sequence[Gate]) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Logits, labels and share of the batch, part by part."""
        x, labels = self.compute.put(*batch)
        for images, wanted in parts_of(x, labels, self.config.accumulate):
            with self.compute.autocast():
                logits = self.supernet(images, gates)
            yield logits.float(), wanted, len(wanted) / len(labels)

    def _expected(self) -> list[Tensor]:
        probabilities = self.parameters.probabilities()
        return [c.table.expected(probabilities) for c in self.constraints]

    def _end_epoch(self, phase: Phase) -> None:
        if phase == "search" and self.config.prune_below > 0:
            log_p = self._log_probabilities().numpy()
            for position, candidate in dispensable(log_p, self.config.prune_below, self.constraints):
                self._drop(position, candidate)
        losses, accuracies = zip(*self._epoch, strict=True)
        self._epoch.clear()
        epoch = self.step // self.schedule.per_epoch - 1
        self.history.append(
            EpochRow(epoch=epoch, phase=phase, loss=fmean(losses), accuracy=fmean(accuracies), **self._standing())
        )

    @torch.no_grad()
    def _standing(self) -> dict[str, Any]:
        """What an EpochRow says of the architecture as it is now."""
        p, likeliest = self.parameters.probabilities(), self.parameters.likeliest()
        return {
            "expected": tuple(float(e) for e in self._expected()),
            "likeliest": tuple(c.table.cost(likeliest) for c in self.constraints),
            "multipliers": self.objective.multipliers,
            "entropy": float(-torch.xlogy(p, p).sum(1).mean()),
            "candidates": int(self.parameters.mask.sum()),
        }

    def _log_probabilities(self) -> Tensor:
        return self.parameters.log_probabilities().detach().double()

    def _drop(self, position: int, candidate: int) -> None:
        self.parameters.drop(position, candidate)
        gone = {id(p) for p in self.supernet.drop(self.space.searchable[position], candidate)}
        for group in self.weight_optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in gone:
                    self.weight_optimizer.state.pop(parameter, None)
            group["params"] = [p for p in group["params"] if id(p) not in gone]

    def retarget(self, constraints: Sequence[Constraint], *, objective: Objective | None = None) -> Searcher:
        """A search for other limits that goes on from the warm weights of this one, which stays as it is. Raises
        TargetError once this one's architecture has moved."""
        if self.step > self.schedule.warm_steps:
            raise TargetError("only a search whose architecture has not moved yet can change its limits")
        other = Searcher(
            self.space, self.data, constraints, self.config,
            compute=self.compute, rule=copy.deepcopy(self.rule), objective=objective,
        )  # fmt: skip
        state = copy.deepcopy(self.state_dict())
        other.load_state_dict({**state, "objective": other.objective.state_dict()})
        other.history = [replace(row, **other._standing()) for row in self.history]
        return other

    def result(self, on_look: OnLook | None = None) -> SearchResult:
        """The best network within the limits, as things stand. Raises TrainingError when the supernet's weights are no
        good."""
        log_probabilities = self._log_probabilities()
        examined, scores = self._examined(log_probabilities.numpy(), on_look)
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
            examined=examined,
        )

    def _examined(
        self, log_p: NDArray[np.float64], on_look: OnLook | None
    ) -> tuple[dict[Path, float], NDArray[np.float64]]:
        """What was looked at, and what to decode by: the candidates' measured quality, or their probabilities."""
        if self.config.looks == 0:
            return {}, log_p
        rng = np.random.default_rng(self.config.seed)
        examine = examiner(self.supernet, self.data.validation, self.config.look_images, self.compute, rng)
        found = look(log_p, self.constraints, examine, looks=self.config.looks, rng=rng, on_look=on_look)
        return found, quality(log_p, self.constraints, found)

    def state_dict(self) -> dict[str, Any]:
        """All that changes from step to step."""
        return {
            "step": self.step,
            "mask": self.parameters.mask,
            "alpha": self.parameters.alpha.detach(),
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "objective": self.objective.state_dict(),
            "rule": self.rule.state_dict(),
            "history": [asdict(row) for row in self.history],
            "epoch": [list(seen) for seen in self._epoch],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stands where `state` was taken. Both searches must be of the same arguments."""
        for position, candidate in (self.parameters.mask & ~state["mask"]).nonzero().tolist():
            self._drop(position, candidate)
        with torch.no_grad():
            self.parameters.alpha.copy_(state["alpha"])
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.generator.set_state(state["generator"])
        self.objective.load_state_dict(state["objective"])
        self.rule.load_state_dict(state["rule"])
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
