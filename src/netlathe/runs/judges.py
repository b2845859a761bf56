"""Judges of whole networks, by which the decoded choice is repaired: stopwatch, predicted interval, prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.events import Listener
from netlathe.stages import results_first
from netlathe.targets import DeviceTarget, Goal
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.search.candidates import Evaluated
    from netlathe.search.costs import Constraint
    from netlathe.search.repair import Judge, Repaired
    from netlathe.timing import Stopwatch

COVERAGE = 0.9


@dataclass(frozen=True)
class DeviceAtHand:
    """The main target's device, as far as it can be reached from here."""

    address: str
    """Address of the device, as open_device takes it."""
    profile: Path | None = None
    """Its anchors tell how fast the device is now."""
    benchmark_binary: Path | None = None
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Description that tells this judge from another, for JSON."""
        return {"device": self.address, "profile": str(self.profile) if self.profile else None}

    @contextmanager
    def open(
        self, target: DeviceTarget, listener: Listener, *, models: Mapping[str, bytes] | None = None
    ) -> Iterator[Stopwatch]:
        """A stopwatch there. `models` are .tflite files by graph key, which a device that accepts them runs instead of
        networks with random weights. Raises RecordError where the device is not the predictor's."""
        from netlathe.profiler.device import AcceptsModels
        from netlathe.timing import device_of, plan_for, stopwatch

        with (
            results_first(self.address, listener),
            device_of(self.address, target.model, benchmark_binary=self.benchmark_binary, listener=listener) as device,
        ):
            if isinstance(device, AcceptsModels):
                device.models.update(models or {})
            with stopwatch(device, self.profile, plan=plan_for(device), seed=self.seed, listener=listener) as watch:
                yield watch


@dataclass(frozen=True)
class Judged:
    """Decision of the repair, and its grounds."""

    path: tuple[int, ...]
    by: str
    """Judge of the main target: 'stopwatch on ADDRESS', 'upper end of the 90 % interval', 'prediction'."""
    is_met: bool
    judgements: int
    timed: tuple[tuple[str, float, float], ...] = ()
    """(network, predicted ms, measured ms) of what the stopwatch saw; the last is the one that was taken."""

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "is_met": self.is_met,
            "judgements": self.judgements,
            "timed": [{"name": n, "predicted_ms": p, "measured_ms": m} for n, p, m in self.timed],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Sequence[int]) -> Judged:
        """The judgement of the network of that path. Raises LookupError or TypeError for what is none."""
        timed = tuple((one["name"], one["predicted_ms"], one["measured_ms"]) for one in content["timed"])
        return cls(tuple(path), content["by"], content["is_met"], content["judgements"], timed)


def choose_network(
    space: SearchSpace,
    goal: Goal,
    scores: NDArray[np.float64] | Sequence[Evaluated],
    constraints: Sequence[Constraint],
    device: DeviceAtHand | None,
    listener: Listener,
) -> tuple[Judged, list[str]]:
    """The most probable network that meets every limit in the judges' eyes, and warnings.

    The main target's judge is the stopwatch where its device is at hand; each other target's is the upper end of its
    predictor's 90 % interval, or, where no network that was tried satisfies that, the prediction itself. Raises
    TargetError where nothing fits by the tables.
    """
    if device is None:
        with listener.working("choosing the network"):
            return _choose(ChoiceProblem(space, goal, scores, constraints))
    with device.open(goal.main, listener) as watch:
        clock = StopwatchJudge(space, goal.main, watch)
        found = _choose(ChoiceProblem(space, goal, scores, constraints, clock, f"stopwatch on {device.address}"))
        listener.warn(watch.warnings)
        return found


@dataclass(frozen=True)
class ChoiceProblem:
    """Problem of the repair: scores and limits of a space, and who judges."""

    space: SearchSpace
    goal: Goal
    scores: NDArray[np.float64] | Sequence[Evaluated]
    constraints: Sequence[Constraint]
    clock: StopwatchJudge | None = None
    by_clock: str = ""

    def repaired_by(self, judge: type[UpperEndJudge] | type[PredictionJudge]) -> Repaired:
        """Repair by `judge`, and by the clock on the main target where there is one."""
        from netlathe.search.repair import repair

        judges: list[Judge | None] = [judge(self.space, target) for target in self.goal.targets]
        if self.clock:
            judges[0] = self.clock
        judges += [None] * len(self.goal.limits)
        return repair(self.scores, self.constraints, judges)


def _choose(case: ChoiceProblem) -> tuple[Judged, list[str]]:
    has_intervals = any(target.model.has_intervals_ for target in case.goal.targets)
    by = f"upper end of the {COVERAGE:.0%} interval".replace("%", " %") if has_intervals else "prediction"
    repaired = case.repaired_by(UpperEndJudge)
    judgements, warnings = repaired.judgements, []
    doubtful = [target.name for target in case.goal.targets[1 if case.clock else 0 :]]
    if not repaired.is_met and doubtful:
        middle = case.repaired_by(PredictionJudge)
        judgements += middle.judgements
        if middle.is_met or not case.clock:
            repaired, by = middle, "prediction"
            warnings.append(
                "no network that was tried meets every target with the whole of its 90 % interval, so the prediction "
                f"alone was heeded on {', '.join(doubtful)}; measure on the device (--device), or profile more there"
            )
    clock, path = case.clock, repaired.choices
    judged = Judged(path, case.by_clock or by, repaired.is_met, judgements, clock.timed(path) if clock else ())
    return judged, warnings if judged.is_met else [_unmet(judged, case, repaired)]


def _unmet(judged: Judged, case: ChoiceProblem, repaired: Repaired) -> str:
    broken = [
        f"{c.table.name} is {c.table.show(value)} where {c.table.show(c.limit)} are allowed"
        for c, value in zip(case.constraints, repaired.judged, strict=True)
        if value > c.limit
    ]
    return (
        f"none of the {judged.judgements} networks tried meets every limit by the {judged.by}; of the one that comes "
        f"closest, {' and '.join(broken)}; raise the limit, or profile {case.goal.main.name} again"
    )


@dataclass(frozen=True)
class UpperEndJudge:
    """Judge by the upper end of the predictor's 90 % interval, in ms."""

    space: SearchSpace
    target: DeviceTarget

    def __call__(self, path: tuple[int, ...]) -> float:
        model = self.target.model
        return float(model.predict_interval([_graph(self.space, path, self.target)], COVERAGE)[1][0])


@dataclass(frozen=True)
class PredictionJudge:
    """Judge by the prediction itself, in ms."""

    space: SearchSpace
    target: DeviceTarget

    def __call__(self, path: tuple[int, ...]) -> float:
        return float(self.target.model.predict([_graph(self.space, path, self.target)])[0])


@dataclass
class StopwatchJudge:
    """Judge by a stopwatch on the device, in ms; each network is timed once."""

    space: SearchSpace
    target: DeviceTarget
    watch: Stopwatch
    seen: dict[tuple[int, ...], tuple[str, float, float]] = field(default_factory=dict)

    def __call__(self, path: tuple[int, ...]) -> float:
        if path in self.seen:
            return self.seen[path][2]
        network = self.space.architecture(path)
        graph = network.graph(self.target.model.setup_.batch)
        measured = self.watch.time({network.name: graph})[network.name].latency_ms
        predicted = float(self.target.model.predict([graph])[0])
        self.watch.listener.note(
            f"  {network.name}: {milliseconds(predicted)} ms predicted, {milliseconds(measured)} ms measured, target "
            f"{milliseconds(self.target.limit_ms)} ms"
        )
        self.seen[path] = (network.name, predicted, measured)
        return measured

    def timed(self, last: tuple[int, ...]) -> tuple[tuple[str, float, float], ...]:
        return (*(one for path, one in self.seen.items() if path != last), self.seen[last])


def _graph(space: SearchSpace, path: tuple[int, ...], target: DeviceTarget) -> Any:
    return space.architecture(path).graph(target.model.setup_.batch)


def time_file(
    architecture: Architecture, content: bytes | None, target: DeviceTarget, device: DeviceAtHand, listener: Listener
) -> Measurement:
    """Times the network once more on its device: the exported file itself, where the device accepts models and the
    dtype is the predictor's."""
    graph = architecture.graph(target.model.setup_.batch)
    with device.open(target, listener, models={graph.key: content} if content else {}) as watch:
        timed = watch.time({architecture.name: graph})[architecture.name]
        listener.warn(watch.warnings)
        return timed
