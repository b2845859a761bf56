"""Many graphs on one device, into one profile file: each exactly once, and any time the same call continues."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Kind, Status
from netlathe.profiler.again import Repetition, Which
from netlathe.profiler.devices.base import Device, Event, RoundEnd, Timing, Waiting
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.guess import CAUTIOUS_MS_PER_WORK, LatencyGuess, work
from netlathe.profiler.lock import exclusive
from netlathe.profiler.progress import OnProgress, Pace, Progress
from netlathe.profiler.protocol import (
    ANCHORS,
    FEWEST_ROUNDS,
    Latencies,
    Ledger,
    Plan,
    arrange,
    is_done,
    missing_rounds,
    split,
)
from netlathe.profiler.redo import RedoRule
from netlathe.profiler.summary import CampaignSummary, summarize

__all__ = ["CampaignSummary", "Progress", "WorkItem", "run_campaign"]

FORGIVEN = 1
"""Failed visits of a graph."""

CAUTION = 1.5
"""Times what graphs take that have not run here yet, by the speed of those that have: too long a guess makes rounds
shorter, too short a one makes them longer than a time budget allows."""

OVERHEAD = 1.5
"""A budget over the time that visits need, to be told to a person."""


@dataclass(frozen=True)
class WorkItem:
    """A graph to measure, under the name that its record gets. Equal graphs are measured once, under the first name."""

    name: str
    kind: Kind
    graph: Graph


def run_campaign(
    device: Device,
    items: Sequence[WorkItem],
    profile: ProfileFile,
    plan: Plan | None = None,
    *,
    again: Which | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> CampaignSummary:
    """Measures what is not yet measured on the device's setup, by rounds that are stored as they end.

    Graphs with an ok or unsupported outcome are left alone, failed ones are tried again, stored rounds of unfinished
    ones count. When the budget is out, graphs with at least three rounds are finished and the others stay unfinished;
    where it does not suffice for three rounds of all, the first of the items get theirs.
    The anchors are measured and recorded along with the items.

    `again` measures items in place that have a record already: "unstable" ones, or those whose measurement "failed" or
    was unsupported. A record stays until the stop rule, or the end of the budget after three new rounds, ends its new
    measurement; then it is made of the rounds that tell it best (profiler.again), and all samples are kept. The same
    call continues an interrupted one, and measures nothing a third time, until `profile.forget_again` says that its
    result was told. `seed` orders the rounds; `clock` gives seconds.

    Raises DeviceError when the device is lost (what is stored stays), MeasurementError for graphs of another batch than
    the setup's, ProfilerError when another campaign holds the file.
    """
    refusal = (
        f"{profile.path}: another campaign is measuring this setup into this file; wait for it to end, or name another"
    )
    with exclusive(profile.path, device.setup.key, refusal):
        return _Campaign(device, items, profile, plan or Plan(), again, random.Random(seed)).run(on_progress, clock)


class _Campaign:
    """The state of one call of run_campaign."""

    pace: Pace
    ledger: Ledger

    def __init__(
        self,
        device: Device,
        items: Iterable[WorkItem],
        profile: ProfileFile,
        plan: Plan,
        again: Which | None,
        rng: random.Random,
    ) -> None:
        self.device, self.profile, self.plan, self.rng = device, profile, plan, rng
        self.setup = device.setup
        self.items = unique_items(items, self.setup.batch)
        self.repetition = Repetition(profile, self.setup, again, self.items)
        self.work = {key: work(item.graph) for key, item in self.items.items()}  # and of the anchors
        self.anchors: list[str] = []  # those that run
        self.loaded: set[str] = set()
        self.settled: set[str] = set()
        self.stamps: list[float] = []
        self.redo = RedoRule(plan.redo_drift)
        self.strikes: Counter[str] = Counter()
        self.lost_anchors: list[str] = []
        self.details: dict[str, Mapping[str, float]] = {}
        self._planned_ms: dict[str, float] = {}  # what a visit of each graph is to take
        self._guesses = False  # whether some of those are
        self.inference_s = 0.0

    def run(self, on_progress: OnProgress | None, clock: Callable[[], float]) -> CampaignSummary:
        self.profile.add_setup(self.setup)
        self.profile.add_graphs((item.name, item.kind, item.graph) for item in self.items.values())
        todo = self.repetition.due()
        reused = len(self.items) - len(todo)
        self.pace = Pace(len(self.items), reused, self.plan.budget_s, on_progress, clock)
        if todo:
            self._open_ledger()
            self._collect(self._missed(), until_s=math.inf)
            self.repetition.begin(self._latest)
            self.ledger.since = self.repetition.since
            self._measure(todo)
        else:
            deque(self.device.recovered(), maxlen=0)  # of no use any more, so that the device forgets it
        needed_s = self._needed_s([key for key in todo if key not in self.settled])
        self.pace.expect(0.0)
        self.pace.tell_now()
        return summarize(
            self.profile, self.setup, {key: item.name for key, item in self.items.items()}, self.stamps,
            again=self.repetition.marks, anchors=self.anchors, reused=reused, redone=self.redo.count,
            wall_s=self.pace.elapsed_s, inference_s=self.inference_s, needed_s=needed_s,
        )  # fmt: skip

    def _open_ledger(self) -> None:
        """Loads the anchors: the file's own where it has some, so that its reference stays."""
        anchors = self.profile.anchors(self.setup)
        for block in () if anchors else ANCHORS:
            graph = block.graph(self.setup.batch)
            self.profile.add_graph(block.name, "block", graph)
            anchors[graph.key] = graph
        reason = ""
        for key, graph in anchors.items():
            try:
                self.device.load(key, graph)
                self.anchors.append(key)
            except (UnsupportedGraphError, MeasurementError) as error:
                reason = str(error)
        if not self.anchors:
            raise DeviceError(f"none of the {len(anchors)} anchor blocks runs on this device: {reason}")
        self.work |= {key: work(graph) for key, graph in anchors.items()}
        self.profile.set_anchors(self.setup, anchors)
        self.ledger = Ledger(self.profile.rounds(self.setup), list(anchors))

    def _measure(self, todo: Sequence[str]) -> None:
        """Wave by wave, each with its share of the time left."""
        waiting = list(todo)
        while waiting:
            wave = self._next_wave(waiting)
            share_s = self.pace.budget_left_s * len(wave) / len(waiting)
            waiting = waiting[len(wave) :]
            self._measure_wave(wave, waiting, until_s=self.pace.elapsed_s + share_s)
        for key in self.anchors:
            self._finish(key, ended=True)

    def _next_wave(self, waiting: Sequence[str]) -> list[str]:
        """As many graphs as the memory holds, at least one."""
        wave: list[str] = []
        filled = 0
        for key in waiting:
            graph = self.items[key].graph
            filled += graph.bytes_read() + graph.bytes_written()  # weights once, activations about twice
            if wave and filled > self.plan.loaded_bytes:
                break
            wave.append(key)
        return wave

    def _measure_wave(self, wave: Sequence[str], waiting: Sequence[str], until_s: float) -> None:
        pending = [key for key in wave if not self._finish(key)]
        while pending and self.pace.elapsed_s < until_s:
            latencies = self._latencies_ms((*pending, *self.anchors))
            self._planned_ms = {key: self.plan.cost_ms(ms) for key, ms in latencies.items()}
            self._expect(pending, latencies, waiting)
            parts = self._next_parts(self._affordable(pending, latencies, until_s), latencies)
            loaded = [ready for part in parts if (ready := [key for key in part if self._load(key)])]
            rounds = [arrange(part, self.anchors, latencies, self.plan, self.rng) for part in loaded]
            if rounds and not self._collect(self.device.time_rounds(rounds, after=self._latest), until_s):
                break
            pending = [key for key in pending if key not in self.settled and not self._finish(key)]
        self._end_early(pending)

    def _affordable(self, pending: Sequence[str], latencies: Latencies, until_s: float) -> Sequence[str]:
        """All, if the time left is enough to give each the fewest rounds of a record; if not, the first ones for which
        it is; if for none, those that are to be had for something."""
        left_ms = 1e3 * (until_s - self.pace.elapsed_s) / max(1.0, self.pace.slowness)
        have = {key: self.ledger.count(key) for key in pending}
        lacking = sorted((key for key in pending if have[key] < FEWEST_ROUNDS), key=lambda key: -have[key])
        fitting, visits_ms = 0, 0.0
        for key in lacking:
            visits_ms += (FEWEST_ROUNDS - have[key]) * self.plan.cost_ms(latencies[key])
            if self._rounds_ms(visits_ms, FEWEST_ROUNDS - have[key], latencies) > left_ms:
                break
            fitting += 1
        if fitting == len(lacking):
            return pending
        return lacking[:fitting] or [key for key in pending if have[key] >= FEWEST_ROUNDS] or lacking

    def _rounds_ms(self, visits_ms: float, rounds: float, latencies: Latencies) -> float:
        """What such visits take in so many rounds, or more where those would be too long, with the anchors in each."""
        anchors_ms = sum(self.plan.cost_ms(latencies[key]) for key in self.anchors)
        return visits_ms + max(rounds, visits_ms / (1e3 * self.plan.round_s)) * self.plan.anchor_visits * anchors_ms

    def _next_parts(self, keys: Sequence[str], latencies: Latencies) -> list[list[str]]:
        """Rounds' worth of graphs, until it is time to plan again. Graphs that have not run yet go first, a few rounds
        at a time: their times are guesses, and every round makes the next ones better."""
        fresh = [key for key in keys if self.ledger.latency_ms(key) is None]
        if not fresh:
            return split(keys, latencies, self.plan, self.rng)
        return split(fresh, latencies, self.plan, self.rng)[: max(1, len(self.stamps))]

    def _latencies_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """Of the latest visit, or guessed."""
        known = {key: ms for key in self.work if (ms := self.ledger.latency_ms(key)) is not None}
        guess = LatencyGuess(((self.work[key], CAUTION * ms) for key, ms in known.items()), CAUTIOUS_MS_PER_WORK)
        return {key: known[key] if key in known else guess.latency_ms(self.work[key]) for key in keys}

    def _end_early(self, pending: Iterable[str]) -> None:
        for key in pending:
            if key not in self.settled and not self._finish(key, ended=True):
                self._unload(key)

    def _load(self, key: str) -> bool:
        """Whether the graph is ready; if not, its outcome is stored."""
        item = self.items[key]
        self.pace.tell(item.name)
        if key in self.loaded or key in self.anchors:
            return True
        try:
            self.device.load(key, item.graph)
        except (UnsupportedGraphError, MeasurementError) as error:
            self._settle(key, _status(error), str(error))
            return False
        self.loaded.add(key)
        return True

    @property
    def _latest(self) -> float:
        """When the latest round known started."""
        return max((*self.ledger.drifts, *self.stamps), default=0.0)

    def _missed(self) -> Iterator[Event]:
        """What the device has measured for an interrupted campaign and this profile does not hold yet."""
        known = {info.started_at for info in self.profile.round_log(self.setup)}
        timings: list[Timing] = []
        for event in self.device.recovered():
            if isinstance(event, Timing) and not isinstance(event.outcome, ProfilerError):
                timings += [event] if event.key in self.items or event.key in self.anchors else []
            elif isinstance(event, RoundEnd):
                if event.started_at not in known and any(t.key in self.anchors for t in timings):
                    yield from timings
                    yield event
                timings = []

    def _collect(self, events: Iterator[Event], until_s: float) -> bool:
        """Stores rounds as they end; False when the time was out before the last one. A round that lasts much longer
        than it should is given up then."""
        samples: dict[str, list[float]] = {}
        with closing(events) as stream:  # type: ignore[type-var]  # whatever iterates here is a generator
            for event in stream:
                if isinstance(event, Waiting):
                    self.pace.waits(waiting_words(event))
                elif isinstance(event, Timing):
                    self.pace.goes_on()
                    self._take(event, samples)
                else:
                    self._store_round(event, samples)
                    samples = {}
                if self.pace.elapsed_s >= until_s + (self._longest_round_s() if samples else 0.0):
                    return False
        return True

    def _longest_round_s(self) -> float:
        anchors_ms = sum(self._planned_ms.get(key, 0.0) for key in self.anchors)
        return self.plan.round_s + self.plan.anchor_visits * anchors_ms / 1e3

    def _take(self, timing: Timing, samples: dict[str, list[float]]) -> None:
        """Adds a visit's times to the round's samples, or settles the graph where there are none."""
        times, key = timing.outcome, timing.key
        self.inference_s += timing.inference_ms / 1e3
        if isinstance(times, ProfilerError):
            self.strikes[key] += 1
            # A program may be killed for reasons of its own, so that one failure may be forgiven.
            if isinstance(times, UnsupportedGraphError) or self.strikes[key] > FORGIVEN:
                self._settle(key, _status(times), str(times))
        elif not times or not all(0 < ms < math.inf for ms in times):
            message = f"the device gave {list(times)} where times above zero, in ms, were expected"
            self._settle(key, Status.FAILED, message)
        elif key not in self.settled or key in self.anchors:
            samples.setdefault(key, []).extend(times)
            self.details[key] = timing.details
        self.pace.visited(self._planned_ms.get(key, 0.0))
        self.pace.tell(self.items[key].name if key in self.items else "anchor blocks")

    def _store_round(self, end: RoundEnd, samples: Mapping[str, Sequence[float]]) -> None:
        """Stores the round, or, where it is to be measured again, only what it says about the machine."""
        if not self.anchors:
            raise DeviceError(f"no anchor block runs on this device any more: {'; '.join(self.lost_anchors)}")
        drifts = self.ledger.preview(end.started_at, samples)
        drift = drifts.get(end.started_at, 1.0)
        redo = self.redo.reason(end, [key for key in self.anchors if key not in samples], drifts, self.stamps)
        kept = samples
        if redo:
            self.pace.redone = self.redo.count
            # An odd round still helps to tell the usual speed; a hot one does not.
            kept = {} if end.redo else {key: samples[key] for key in self.anchors if key in samples}
        moved = self.ledger.add(end.started_at, kept) if kept else {}
        conditions = {**end.conditions, "redone": redo} if redo else end.conditions
        # The first rounds move the reference a little: earlier drifts follow, so that the file is always consistent.
        self.profile.add_round(
            self.setup, kept, started_at=end.started_at, drift=drift, conditions=conditions, moved=moved
        )
        self.stamps.append(end.started_at)
        self.pace.rounds, self.pace.drift, self.pace.conditions = len(self.stamps), drift, end.conditions

    def _finish(self, key: str, *, ended: bool = False) -> bool:
        """Stores an ok outcome where the stop rule says so, or where rounds suffice now that measuring has ended."""
        rounds = self.ledger.rounds(key)
        finished = len(rounds) >= FEWEST_ROUNDS and (ended or is_done(rounds, self.plan))
        if finished:
            self._settle(key, Status.OK, "")
        return finished

    def _settle(self, key: str, status: Status, message: str) -> None:
        outcome = status, message, self.details.get(key)
        if key in self.repetition.since:
            self.repetition.settle(key, outcome, self.ledger.rounds(key), self.ledger.drifts)
        else:
            self.profile.set_outcome(self.setup, key, *outcome)
        if status is not Status.OK and key in self.anchors:
            self.anchors.remove(key)
            self.lost_anchors.append(message)
        self._unload(key)
        self.pace.done += key in self.items and key not in self.settled
        self.settled.add(key)

    def _unload(self, key: str) -> None:
        if key not in self.anchors:
            self.device.unload([key])
            self.loaded.discard(key)

    def _expect(self, pending: Sequence[str], latencies: Latencies, waiting: Sequence[str]) -> None:
        """Tells the pace how long the rest will take; graphs that wait for their wave count as the present ones."""
        missing = {key: missing_rounds(self.ledger.rounds(key), self.plan) for key in pending}
        visits_ms = sum(count * self.plan.cost_ms(latencies[key]) for key, count in missing.items())
        whole_ms = self._rounds_ms(visits_ms, max(missing.values()), latencies) * (1 + len(waiting) / len(pending))
        self.pace.expect(whole_ms, anew=self._guesses)
        self._guesses = any(self.ledger.latency_ms(key) is None for key in pending)

    def _needed_s(self, unfinished: Sequence[str]) -> float:
        """About how long it takes until these have a record."""
        if not unfinished:
            return 0.0
        latencies = self._latencies_ms((*unfinished, *self.anchors))
        missing = {key: max(0, FEWEST_ROUNDS - self.ledger.count(key)) for key in unfinished}
        visits_ms = sum(count * self.plan.cost_ms(latencies[key]) for key, count in missing.items())
        planned_ms = self._rounds_ms(visits_ms, max(missing.values()), latencies)
        return OVERHEAD * max(1.0, self.pace.slowness) * planned_ms / 1e3


def waiting_words(event: Waiting) -> str:
    """What the device waits for, since when, and for how long at most: 'cooling for 40 s of at most 10 min: ...'."""
    limit = "" if event.limit_s is None or math.isinf(event.limit_s) else f" of at most {event.limit_s / 60:.0f} min"
    what, colon, reason = event.reason.partition(":")
    return f"{what} for {event.waited_s:.0f} s{limit}{colon}{reason}"


def _status(error: ProfilerError) -> Status:
    return Status.UNSUPPORTED if isinstance(error, UnsupportedGraphError) else Status.FAILED


def unique_items(items: Iterable[WorkItem], batch: int) -> dict[str, WorkItem]:
    """The items by graph key, the first of equal ones. Raises MeasurementError unless all take batches of this size."""
    unique: dict[str, WorkItem] = {}
    for item in items:
        given = item.graph.batch
        if given != batch:
            raise MeasurementError(
                f"{item.name}: the graph takes a batch of {given}, the setup measures {batch}; build it with "
                f"graph(batch={batch})"
            )
        unique.setdefault(item.graph.key, item)
    return unique
