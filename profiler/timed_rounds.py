"""Times what is loaded on a device, files as well as graphs, in rounds beside the anchors and without a profile."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import RoundConditions
from netlathe.archspace.records import Measurement, Round
from netlathe.profiler.campaign import FORGIVEN_FAILURES, waiting_words
from netlathe.profiler.device import Device, DeviceEvent, RoundEnd, Timing, Waiting
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.progress import OnProgress, Pace, Progress
from netlathe.profiler.protocol import (
    ANCHORS,
    FEWEST_ROUNDS,
    Plan,
    arrange,
    is_done,
    missing_rounds,
    split,
)
from netlathe.profiler.redo import RedoRule
from netlathe.profiler.summary import machine_warnings, redo_warnings

UNKNOWN_MS = 1000.0
"""A file of unknown latency gets a single run in its first visit."""


@dataclass
class RoundsTaken:
    """Measurements of the rounds, by key of what was loaded."""

    measured: dict[str, Measurement] = field(default_factory=dict)
    """With at least three rounds."""
    details: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    """Statistics that the runtime told at each visit beside the times."""
    errors: dict[str, ProfilerError] = field(default_factory=dict)
    """Why there is no time."""
    warnings: list[str] = field(default_factory=list)
    is_interrupted: bool = False
    """Whether this is what there was at Ctrl-C."""
    is_done: bool = False
    """Whether the stop rule was met for each."""


Taken = Callable[[], Mapping[str, Measurement]]
"""Measurements so far, by key."""


def take_rounds(
    device: Device,
    names: Mapping[str, str],
    plan: Plan,
    *,
    guesses_ms: Mapping[str, float] | None = None,
    anchors: Mapping[str, Graph] | None = None,
    stored: Mapping[str, Sequence[Round]] | None = None,
    seed: int = 0,
    on_round: Callable[[Progress, Taken], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RoundsTaken:
    """Times what is loaded under these keys, {key: name}, until the plan's stop rule or budget ends it, but at least
    three rounds of each; Ctrl-C ends it with the rounds so far.

    `guesses_ms` are what runs may take. `anchors` and their `stored` rounds are those of a profile, whose speed is the
    usual one then. Raises DeviceError when the device is lost, or runs no anchor.
    """
    run = _Run(device, names, plan, guesses_ms or {}, dict(stored or {}), random.Random(seed))
    run.pace = Pace(len(names), 0, plan.budget_s, _progress(run, on_round), clock)
    run.load_anchors(anchors)
    try:
        run.measure()
    except KeyboardInterrupt:
        run.taken.is_interrupted = True
    return run.result()


def _progress(run: _Run, on_round: Callable[[Progress, Taken], None] | None) -> OnProgress | None:
    return None if on_round is None else lambda progress: on_round(progress, run.measured)


class _Run:
    """The state of one call of take_rounds."""

    pace: Pace

    def __init__(
        self,
        device: Device,
        names: Mapping[str, str],
        plan: Plan,
        guesses_ms: Mapping[str, float],
        stored: dict[str, Sequence[Round]],
        rng: random.Random,
    ) -> None:
        self.device, self.names, self.plan, self.guesses_ms, self.rng = device, names, plan, guesses_ms, rng
        self.stored = stored
        self.taken = RoundsTaken()
        self.redo = RedoRule(plan.redo_drift)
        self.log: list[RoundConditions] = []
        self.stamps: list[float] = []
        self.failures: Counter[str] = Counter()
        self.since = max((one.started_at for rounds in stored.values() for one in rounds), default=-math.inf)

    def load_anchors(self, given: Mapping[str, Graph] | None) -> None:
        """Those of a profile, or the usual ones."""
        batch = self.device.setup.batch
        anchors = dict(given or {}) or {graph.key: graph for graph in (block.graph(batch) for block in ANCHORS)}
        self.anchors: list[str] = []
        reason = ""
        for key, graph in anchors.items():
            try:
                self.device.load(key, graph)
                self.anchors.append(key)
            except (UnsupportedGraphError, MeasurementError) as error:
                reason = str(error)
        if not self.anchors:
            raise DeviceError(f"none of the {len(anchors)} anchor blocks runs on this device: {reason}")
        self.ledger = Ledger(self.stored, self.anchors)

    def measure(self) -> None:
        while pending := self._pending():
            latencies = {key: self._latency_ms(key) for key in (*pending, *self.anchors)}
            self._expect(pending, latencies)
            parts = split(pending, latencies, self.plan, self.rng)
            if self._is_late():  # each round may be the last that is needed
                parts = [[key for key in part if len(self._rounds(key)) < FEWEST_ROUNDS] for part in parts]
            rounds = [arrange(part, self.anchors, latencies, self.plan, self.rng) for part in parts if part]
            self._collect(self.device.time_rounds(rounds, after=max([*self.stamps, self.since, 0.0])))

    def _pending(self) -> list[str]:
        """Keys that need more rounds: by the stop rule, and when the time is up, for the fewest that make a time."""
        least = [key for key in self.names if key not in self.taken.errors]
        if self._is_late():
            return [key for key in least if len(self._rounds(key)) < FEWEST_ROUNDS]
        return [key for key in least if not is_done(self._rounds(key), self.plan)]

    def _is_late(self) -> bool:
        return self.pace.budget_left_s <= 0

    def _rounds(self, key: str) -> tuple[Round, ...]:
        return tuple(one for one in self.ledger.rounds(key) if one.started_at > self.since)

    def _latency_ms(self, key: str) -> float:
        known = self.ledger.latency_ms(key)
        return self.guesses_ms.get(key, UNKNOWN_MS if key in self.names else 1.0) if known is None else known

    def _expect(self, pending: Sequence[str], latencies: Mapping[str, float]) -> None:
        missing = {key: missing_rounds(self._rounds(key), self.plan) for key in pending}
        anchors_ms = self.plan.anchor_visits * sum(self.plan.cost_ms(latencies[key]) for key in self.anchors)
        visits_ms = sum(count * self.plan.cost_ms(latencies[key]) for key, count in missing.items())
        self.pace.expect(visits_ms + max(missing.values()) * anchors_ms)

    def _collect(self, events: Iterator[DeviceEvent]) -> None:
        """Enters rounds as they end; stops midway once the time is up and each has its fewest rounds."""
        samples: dict[str, list[float]] = {}
        with closing(events) as stream:  # type: ignore[type-var]  # whatever iterates here is a generator
            for event in stream:
                if isinstance(event, Waiting):
                    self.pace.waits(waiting_words(event))
                elif isinstance(event, Timing):
                    self.pace.goes_on()
                    self._take(event, samples)
                else:
                    self._end_round(event, samples)
                    samples = {}
                    if self._is_late() and not self._pending():
                        return

    def _take(self, timing: Timing, samples: dict[str, list[float]]) -> None:
        times, key = timing.outcome, timing.key
        if isinstance(times, ProfilerError):
            self.failures[key] += 1
            if isinstance(times, UnsupportedGraphError) or self.failures[key] > FORGIVEN_FAILURES:
                self._fail(key, times)
        elif not times or not all(0 < ms < math.inf for ms in times):
            self._fail(key, MeasurementError(f"the device gave {list(times)} where times above zero were expected"))
        elif key not in self.taken.errors:
            samples.setdefault(key, []).extend(times)
            self.taken.details.setdefault(key, []).append(timing.details)
        self.pace.visited(self.plan.cost_ms(self._latency_ms(key)))
        self.pace.tell(self.names.get(key, "anchor blocks"))

    def _fail(self, key: str, error: ProfilerError) -> None:
        if key in self.anchors:
            self.anchors.remove(key)
            if not self.anchors:
                raise DeviceError(f"no anchor block runs on this device any more: {error}")
        else:
            self.taken.errors[key] = error

    def _end_round(self, end: RoundEnd, samples: Mapping[str, Sequence[float]]) -> None:
        drifts = self.ledger.preview(end.started_at, samples)
        missing = [key for key in self.anchors if key not in samples]
        redo = self.redo.reason(end, missing, drifts, self.stamps)
        kept = samples
        if redo:
            self.pace.redone = self.redo.count
            kept = {} if end.redo else {key: samples[key] for key in self.anchors if key in samples}
        if kept:
            self.ledger.add(end.started_at, kept)
        self.stamps.append(end.started_at)
        if not redo:
            self.log.append(RoundConditions(end.started_at, drifts.get(end.started_at, 1.0), end.conditions))
        self.pace.rounds, self.pace.drift = len(self.stamps), drifts.get(end.started_at, 1.0)
        self.pace.conditions = end.conditions
        self.pace.done = sum(is_done(self._rounds(key), self.plan) for key in self.names)

    def measured(self) -> dict[str, Measurement]:
        """Measurements so far, with the drifts as known now."""
        found = {key: self._rounds(key) for key in self.names if key not in self.taken.errors}
        return {key: Measurement(rounds) for key, rounds in found.items() if rounds}

    def result(self) -> RoundsTaken:
        measured = {key: one for key, one in self.measured().items() if len(one.rounds) >= FEWEST_ROUNDS}
        done = len(measured) == len(self.names) and all(is_done(one.rounds, self.plan) for one in measured.values())
        warnings = [*machine_warnings(self.log), *redo_warnings(self.redo.count, len(self.stamps))]
        self.pace.expect(0.0)
        self.pace.tell_now()
        return replace(self.taken, measured=measured, is_done=done, warnings=warnings)
