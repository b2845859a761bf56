"""Judges of whole networks, by which the decoded choice is repaired: stopwatch, predicted interval, prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.records import Measurement
from netlathe.events import Listener
from netlathe.stages import results_first
from netlathe.targets import DeviceTarget, Goal
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph
    from netlathe.predictor import LatencyPredictor
    from netlathe.search.candidates import Limited, Scores
    from netlathe.search.repair import Judge, Repaired
    from netlathe.timing import Stopwatch

COVERAGE = 0.9
MARGIN = 1.25
"""Distance of a measured network from its target, in half-widths of the 90 % interval: 2 standard errors."""
MOST_REPETITIONS = 2
"""Times that a network is timed again where it is not clear whether it keeps the target."""


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
    space: DecisionSpace,
    goal: Goal,
    scores: Scores,
    constraints: Sequence[Limited],
    device: DeviceAtHand | None,
    listener: Listener,
    doubted: Sequence[Limited] | None = None,
) -> tuple[Judged, list[str]]:
    """The most probable network that meets every limit in the judges' eyes, and warnings.

    `constraints` are the goal's targets by predictions, then its other limits; `doubted` the targets by the upper ends
    of intervals, tabulated around the space's reference where they are not given.

    The main target's judge is the stopwatch where its device is at hand; each other target's is the upper end of its
    predictor's 90 % interval, or, where no network that was tried satisfies that, the prediction itself. The stopwatch
    is given networks whose upper ends, at the level that it has shown so far, are within the target: what the predictor
    knows little of comes last. Raises TargetError where nothing fits by the tables.
    """
    case = ChoiceProblem(space, goal, scores, constraints, is_timed=device is not None, doubted=doubted)
    with listener.working("choosing the network"):
        repaired, doubt, judgements = case.foreseen()
    warnings = []
    if doubt is PredictionJudge:
        warnings.append(
            "no network that was tried meets every target with the whole of its 90 % interval, so the prediction "
            f"alone was heeded on {', '.join(target.name for target in case.predicted)}; measure on the device "
            "(--device), or profile more there"
        )
    has_intervals = doubt is UpperEndJudge and any(target.model.has_intervals_ for target in case.predicted)
    by = f"upper end of the {COVERAGE:.0%} interval".replace("%", " %") if has_intervals else "prediction"
    timed: tuple[tuple[str, float, float], ...] = ()
    if device:
        with device.open(goal.main, listener) as watch:
            clock = StopwatchJudge(space, goal.main, watch)
            repaired = case.repaired_by(doubt, clock)
            listener.warn(watch.warnings)
        by, judgements, timed = f"stopwatch on {device.address}", repaired.judgements, clock.timed(repaired.choices)
    judged = Judged(repaired.choices, by, repaired.is_met, judgements, timed)
    return judged, warnings if judged.is_met else [_unmet(judged, case, repaired)]


@dataclass(frozen=True)
class ChoiceProblem:
    """Problem of the repair: scores and limits of a space, and who judges."""

    space: DecisionSpace
    goal: Goal
    scores: Scores
    constraints: Sequence[Limited]
    """By predictions."""
    is_timed: bool
    """Whether the main target's device is at hand."""
    doubted: Sequence[Limited] | None = None
    """The targets by the upper ends of intervals, where they are made already."""

    @property
    def predicted(self) -> tuple[DeviceTarget, ...]:
        """The targets that predictors judge."""
        return self.goal.targets[1 if self.is_timed else 0 :]

    def foreseen(self) -> tuple[Repaired, Doubt, int]:
        """Repair by predictors alone, the kind of judge that it can please, and how many networks that took."""
        from netlathe.search.nearby import NearbyCandidates
        from netlathe.search.repair import Repaired

        if self.is_timed and isinstance(self.scores, NearbyCandidates):  # its origin was found by predictors
            origin = self.scores.origin
            is_met = all(UpperEndJudge(self.space, one)(origin) <= one.limit_ms for one in self.predicted)
            return Repaired(origin, (), (), is_met, 0), UpperEndJudge if is_met else PredictionJudge, 0
        repaired = self.repaired_by(UpperEndJudge)
        if repaired.is_met or not self.predicted:
            return repaired, UpperEndJudge, repaired.judgements
        again = self.repaired_by(PredictionJudge)
        return again, PredictionJudge, repaired.judgements + again.judgements

    def repaired_by(self, doubt: Doubt, clock: StopwatchJudge | None = None) -> Repaired:
        """Repair by this kind of judge of predictions, and by the clock, if it is running yet."""
        from netlathe.search.errors import TargetError
        from netlathe.search.repair import repair

        judges: list[Judge | None] = [doubt(self.space, target) for target in self.predicted]
        judges = [*([clock] if self.is_timed else []), *judges]
        judges += [None] * (len(self.constraints) - len(judges))
        doubted = self.upper_ends if doubt is UpperEndJudge else self.upper_ends[: int(self.is_timed)]
        try:
            found = repair(self.scores, [*doubted, *self.constraints[len(doubted) :]], judges)
        except TargetError:  # by upper ends, the targets contradict each other
            return repair(self.scores, self.constraints, judges)
        is_tried = all(one is other for one, other in zip(doubted, self.constraints, strict=False))
        if found.is_met or clock is None or is_tried:
            return found
        again = repair(self.scores, self.constraints, judges)  # what has a long upper end, and was kept from the clock
        return replace(again if again.is_met else found, judgements=found.judgements + again.judgements)

    @cached_property
    def upper_ends(self) -> list[Limited]:
        """The targets on a table of the upper ends of intervals; on predictions where none of these is short enough,
        or where they do not add up to a table: intervals, unlike latencies, may be wider for the smaller network."""
        from netlathe.search.costs import Constraint, CostTable
        from netlathe.search.errors import TargetError

        if self.doubted is not None:
            return list(self.doubted)
        found: list[Limited] = []
        for target, constraint in zip(self.goal.targets, self.constraints, strict=False):
            if target.model.has_intervals_ and isinstance(constraint, Constraint):
                batch, name = target.model.setup_.batch, constraint.table.name
                with suppress(TargetError):
                    table = CostTable.tabulate(self.space, UpperEnds(target.model), batch=batch, name=name)
                    constraint = constraint if table.base > constraint.limit else replace(constraint, table=table)
            found.append(constraint)
        return found


def _unmet(judged: Judged, case: ChoiceProblem, repaired: Repaired) -> str:
    broken = [
        f"{c.name} is {c.show(value)} where {c.show(c.limit)} are allowed"
        for c, value in zip(case.constraints, repaired.judged, strict=True)
        if value > c.limit
    ]
    return (
        f"none of the {judged.judgements} networks tried meets every limit by the {judged.by}; of the one that comes "
        f"closest, {' and '.join(broken)}; raise the limit, or profile {case.goal.main.name} again"
    )


@dataclass(frozen=True)
class UpperEnds:
    """Latency model of the upper ends of a predictor's 90 % intervals, in ms."""

    model: LatencyPredictor

    def predict(self, items: Sequence[Graph]) -> NDArray[np.float64]:
        return self.model.predict_interval(items, COVERAGE)[1]


@dataclass(frozen=True)
class UpperEndJudge:
    """Judge by the upper end of the predictor's 90 % interval, in ms."""

    space: DecisionSpace
    target: DeviceTarget

    def __call__(self, path: tuple[int, ...]) -> float:
        return float(UpperEnds(self.target.model).predict([_graph(self.space, path, self.target)])[0])


@dataclass(frozen=True)
class PredictionJudge:
    """Judge by the prediction itself, in ms."""

    space: DecisionSpace
    target: DeviceTarget

    def __call__(self, path: tuple[int, ...]) -> float:
        return float(self.target.model.predict([_graph(self.space, path, self.target)])[0])


Doubt = type[UpperEndJudge] | type[PredictionJudge]


@dataclass
class StopwatchJudge:
    """Judge by a stopwatch on the device, in ms: a later measurement is below its answer in all but some 2 % of cases.
    A network is timed again where that decides whether it keeps the target."""

    space: DecisionSpace
    target: DeviceTarget
    watch: Stopwatch
    seen: dict[tuple[int, ...], tuple[str, float, float]] = field(default_factory=dict)
    """(network, predicted ms, measured ms)."""
    answers: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __call__(self, path: tuple[int, ...]) -> float:
        if path not in self.answers:
            self.answers[path] = self._timed(path)
        return self.answers[path]

    def _timed(self, path: tuple[int, ...]) -> float:
        name = self.space.network_name(path)
        graphs = {name: self.space.graph(path, self.target.model.setup_.batch)}
        measured = self.watch.time(graphs)[name]
        rounds, limit_ms = len(measured.rounds), self.target.limit_ms
        for times in range(1, MOST_REPETITIONS + 1):
            if not measured.latency_ms <= limit_ms < next_ms(measured, rounds):
                break
            again = self.watch.time_again(graphs, times)[name]
            measured = Measurement((*measured.rounds, *again.rounds))
        predicted = float(self.target.model.predict([graphs[name]])[0])
        self.watch.listener.note(
            f"  {name}: {milliseconds(predicted)} ms predicted, {milliseconds(measured.latency_ms)} ms "
            f"measured, target {milliseconds(limit_ms)} ms"
        )
        self.seen[path] = (name, predicted, measured.latency_ms)
        return next_ms(measured, rounds)

    def timed(self, last: tuple[int, ...]) -> tuple[tuple[str, float, float], ...]:
        """Networks that were timed, that one last."""
        return (*(one for path, one in self.seen.items() if path != last), self.seen[last])


def next_ms(measured: Measurement, rounds: int) -> float:
    """Upper end, in ms, of what a later measurement of so many rounds shows: MARGIN of the two errors together."""
    interval = measured.interval_ms
    if interval is None:
        return measured.latency_ms
    half_ms = interval[1] - measured.latency_ms
    return measured.latency_ms + MARGIN * half_ms * math.sqrt(1 + len(measured.rounds) / rounds)


def _graph(space: DecisionSpace, path: Choices, target: DeviceTarget) -> Graph:
    return space.graph(path, target.model.setup_.batch)


class NamedNetwork(Protocol):
    """A network that can be timed, as an Architecture is."""

    @property
    def name(self) -> str:
        """Name in errors and reports."""
        ...

    def graph(self, batch: int = 1) -> Graph:
        """The graph, for batches of that many images."""
        ...


def time_file(
    network: NamedNetwork, content: bytes | None, target: DeviceTarget, device: DeviceAtHand, listener: Listener
) -> Measurement:
    """Times the network once more on its device: the exported file itself, where the device accepts models and the
    dtype is the predictor's."""
    graph = network.graph(target.model.setup_.batch)
    with device.open(target, listener, models={graph.key: content} if content else {}) as watch:
        timed = watch.time({network.name: graph})[network.name]
        listener.warn(watch.warnings)
        return timed
