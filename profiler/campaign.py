"""Campaign of many graphs on one device, into one profile file: each exactly once, and any time the same call
continues."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Kind, Status
from netlathe.profiler.again import Repetition, Which
from netlathe.profiler.device import Device, DeviceEvent, RoundEnd, Timing, Waiting
from netlathe.profiler.errors import MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.lock import exclusive
from netlathe.profiler.progress import OnProgress, Pace, Progress
from netlathe.profiler.protocol import FEWEST_ROUNDS, Latencies, Plan, is_done
from netlathe.profiler.round_store import RoundStore, discard_recovered, load_anchors
from netlathe.profiler.schedule import Schedule
from netlathe.profiler.summary import CampaignSummary, Effort, summarize

__all__ = ["CampaignSummary", "Progress", "WorkItem", "run_campaign"]

FORGIVEN_FAILURES = 1
"""Visits of a graph that may fail before the graph counts as failed: a program may be killed for reasons of its own."""

OVERHEAD = 1.5
"""Factor on the time that visits need, for the budget that a person is told."""


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
    plan = plan or Plan()
    with exclusive(profile.path, device.setup.key, refusal):
        unique = unique_items(items, device.setup.batch)
        repetition = Repetition(profile, device.setup, again, unique)
        profile.add_setup(device.setup)
        profile.add_graphs((item.name, item.kind, item.graph) for item in unique.values())
        due = repetition.due()
        pace = Pace(len(unique), len(unique) - len(due), plan.budget_s, on_progress, clock)
        effort = Effort()
        if due:
            effort = _measure(device, unique, due, profile, repetition, plan, pace, random.Random(seed))
        else:
            discard_recovered(device.recovered())
        pace.expect(0.0)
        pace.tell_now()
        names = {key: item.name for key, item in unique.items()}
        return summarize(
            profile, device.setup, names, effort, again=repetition.marks, reused=len(unique) - len(due),
            wall_s=pace.elapsed_s,
        )  # fmt: skip


def _measure(
    device: Device,
    items: Mapping[str, WorkItem],
    due: Sequence[str],
    profile: ProfileFile,
    repetition: Repetition,
    plan: Plan,
    pace: Pace,
    rng: random.Random,
) -> Effort:
    """Measures the graphs that are due, and returns what that cost."""
    anchors = load_anchors(device, profile)
    store = RoundStore(profile, repetition, anchors, plan.redo_drift)
    graphs = {**{key: item.graph for key, item in items.items()}, **anchors.graphs}
    schedule = Schedule(plan, store.ledger, anchors.running, graphs, rng)
    campaign = _Campaign(device, items, plan, store, schedule, pace)
    campaign.store_rounds(store.recovered_rounds(device, items), until_s=math.inf)
    store.begin_repetition()
    campaign.measure(due)
    unfinished = [key for key in due if key not in campaign.ended]
    needed_s = OVERHEAD * max(1.0, pace.slowness) * schedule.time_to_record_ms(unfinished) / 1e3
    return Effort(store.round_starts, anchors.running, store.redo.count, campaign.inference_s, needed_s)


class _Campaign:
    """A campaign under way: has the device make the rounds that the schedule plans, until each graph has an outcome."""

    def __init__(
        self,
        device: Device,
        items: Mapping[str, WorkItem],
        plan: Plan,
        store: RoundStore,
        schedule: Schedule,
        pace: Pace,
    ) -> None:
        self.device, self.items, self.plan, self.pace = device, items, plan, pace
        self.store, self.schedule = store, schedule
        self.ended: set[str] = set()
        """Keys of graphs that got an outcome."""
        self.inference_s = 0.0
        self._loaded: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._details: dict[str, Mapping[str, float]] = {}
        self._planned_ms: dict[str, float] = {}  # what a visit of each graph is to take
        self._is_guessed = False  # whether some of those are

    def measure(self, due: Sequence[str]) -> None:
        """Measures wave by wave, each with its share of the time left."""
        waiting = list(due)
        while waiting:
            wave = self.schedule.next_wave(waiting)
            share_s = self.pace.budget_left_s * len(wave) / len(waiting)
            waiting = waiting[len(wave) :]
            self._measure_wave(wave, len(waiting), until_s=self.pace.elapsed_s + share_s)
        for key in list(self._anchors):
            self._record_if_done(key, is_over=True)

    def _measure_wave(self, wave: Sequence[str], waiting: int, until_s: float) -> None:
        """Makes rounds of the wave until its time is out; `waiting` graphs come after it."""
        pending = [key for key in wave if not self._record_if_done(key)]
        while pending and self.pace.elapsed_s < until_s:
            latencies = self.schedule.latencies_ms(pending)
            self._planned_ms = {key: self.plan.cost_ms(ms) for key, ms in latencies.items()}
            self._tell_time_left(pending, latencies, waiting)
            left_ms = 1e3 * (until_s - self.pace.elapsed_s) / max(1.0, self.pace.slowness)
            chosen = self.schedule.affordable(pending, latencies, left_ms)
            planned = self.schedule.next_rounds(chosen, latencies, made=len(self.store.round_starts))
            loaded = [ready for keys in planned if (ready := [key for key in keys if self._load(key)])]
            rounds = [self.schedule.visits(keys, latencies) for keys in loaded]
            events = self.device.time_rounds(rounds, after=self.store.latest_start) if rounds else None
            if events and not self.store_rounds(events, until_s):
                break
            pending = [key for key in pending if key not in self.ended and not self._record_if_done(key)]
        for key in pending:
            if key not in self.ended and not self._record_if_done(key, is_over=True):
                self._unload(key)

    def _tell_time_left(self, pending: Sequence[str], latencies: Latencies, waiting: int) -> None:
        """Tells the pace how long the rest will take; graphs that wait for their wave count as the present ones."""
        wave_ms = self.schedule.time_to_finish_ms(pending, latencies)
        self.pace.expect(wave_ms * (1 + waiting / len(pending)), anew=self._is_guessed)
        self._is_guessed = self.schedule.is_guessed(pending)

    def _load(self, key: str) -> bool:
        """Whether the graph is ready; if not, its outcome is stored."""
        item = self.items[key]
        self.pace.tell(item.name)
        if key in self._loaded or key in self._anchors:
            return True
        try:
            self.device.load(key, item.graph)
        except (UnsupportedGraphError, MeasurementError) as error:
            self._record_outcome(key, _status(error), str(error))
            return False
        self._loaded.add(key)
        return True

    def store_rounds(self, events: Iterator[DeviceEvent], until_s: float) -> bool:
        """Stores rounds as they end; False when the time was out before the last one. A round that lasts much longer
        than it should is given up then."""
        samples: dict[str, list[float]] = {}
        with closing(events) as stream:  # type: ignore[type-var]  # whatever iterates here is a generator
            for event in stream:
                if isinstance(event, Waiting):
                    self.pace.waits(waiting_words(event))
                elif isinstance(event, Timing):
                    self.pace.goes_on()
                    self._add_timing(event, samples)
                else:
                    self._store_round(event, samples)
                    samples = {}
                allowance_s = self.schedule.longest_round_s(self._planned_ms) if samples else 0.0
                if self.pace.elapsed_s >= until_s + allowance_s:
                    return False
        return True

    def _add_timing(self, timing: Timing, samples: dict[str, list[float]]) -> None:
        """Adds a visit's times to the round's samples, or records the graph's outcome where there are none."""
        times, key = timing.outcome, timing.key
        self.inference_s += timing.inference_ms / 1e3
        if isinstance(times, ProfilerError):
            self._failures[key] += 1
            if isinstance(times, UnsupportedGraphError) or self._failures[key] > FORGIVEN_FAILURES:
                self._record_outcome(key, _status(times), str(times))
        elif not times or not all(0 < ms < math.inf for ms in times):
            message = f"the device gave {list(times)} where times above zero, in ms, were expected"
            self._record_outcome(key, Status.FAILED, message)
        elif key not in self.ended or key in self._anchors:
            samples.setdefault(key, []).extend(times)
            self._details[key] = timing.details
        self.pace.visited(self._planned_ms.get(key, 0.0))
        self.pace.tell(self.items[key].name if key in self.items else "anchor blocks")

    def _store_round(self, end: RoundEnd, samples: Mapping[str, Sequence[float]]) -> None:
        self.pace.drift = self.store.add_round(end, samples)
        self.pace.rounds, self.pace.redone = len(self.store.round_starts), self.store.redo.count
        self.pace.conditions = end.conditions

    def _record_if_done(self, key: str, *, is_over: bool = False) -> bool:
        """Whether the graph is done by the stop rule, or has rounds enough for a record where its time `is_over`; then
        its outcome is stored."""
        rounds = self.store.ledger.rounds(key)
        is_enough = len(rounds) >= FEWEST_ROUNDS and (is_over or is_done(rounds, self.plan))
        if is_enough:
            self._record_outcome(key, Status.OK, "")
        return is_enough

    def _record_outcome(self, key: str, status: Status, message: str) -> None:
        self.store.record_outcome(key, status, message, self._details.get(key))
        self._unload(key)
        self.pace.done += key in self.items and key not in self.ended
        self.ended.add(key)

    def _unload(self, key: str) -> None:
        if key not in self._anchors:
            self.device.unload([key])
            self._loaded.discard(key)

    @property
    def _anchors(self) -> Sequence[str]:
        return self.store.anchors.running


def waiting_words(event: Waiting) -> str:
    """Words for a wait: its reason, its length so far and at most: 'cooling for 40 s of at most 10 min: ...'."""
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
