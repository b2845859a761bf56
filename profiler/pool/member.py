"""One device of a pool: opened when it is there, given work as long as there is some, left alone after bad rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup
from netlathe.profiler.campaign import CampaignSummary, WorkItem, run_campaign
from netlathe.profiler.device import Device, Report
from netlathe.profiler.devices import default_plan
from netlathe.profiler.errors import ConnectionLostError, DeviceError, NotRestoredError, ProfilerError
from netlathe.profiler.pool.work_queue import LEASE_S, OVERLAP, WorkQueue
from netlathe.profiler.progress import Progress
from netlathe.profiler.protocol import Plan

BAD_SHARE = 0.5
"""Share of a batch's rounds that had to be measured again above which the batch counts as a bad one."""

State = Literal["opening", "measuring", "waiting", "away", "quarantined", "finished", "apart", "out"]
"""waiting: for what other devices have leased. away: cannot be reached, and is looked for. quarantined: rests after bad
rounds. apart: differs from the others of its model by more than one number. out: given up for this call."""

ENDED = ("finished", "apart", "out")
APART = "differs from the others of its model by more than one number"


@dataclass(frozen=True)
class MemberState:
    """State of one device of a pool."""

    name: str
    """Address or name of the device."""
    state: State = "opening"
    note: str = ""
    """Words on its present work or wait, or why it is out."""
    setup: Setup | None = None
    """Setup of this very device; None as long as it never was open."""
    graphs: int = 0
    """Graphs that it has measured in this call, what all devices measure included."""
    rounds: int = 0
    redone: int = 0
    """Rounds that had to be measured again."""
    quarantines: int = 0
    inference_s: float = 0.0
    open: int | None = None
    """Graphs that its model's devices had still to measure after its last batch; None before it was open."""
    undone: str = ""
    """Work left to be done by hand on the device, which could not be put right when it was closed."""


Others = Literal["working", "finished", "none"]
"""State of the other devices of a pool together. finished: none works, but some have, to their end. none: there never
was one."""


class Member(Protocol):
    """A device of a pool, which may come and go."""

    @property
    def name(self) -> str: ...

    def open(self, report: Report) -> AbstractContextManager[Device]:
        """Opens the device. Raises DeviceError where it is not there, or cannot be used."""


@dataclass(frozen=True)
class PoolWork:
    """Work for the devices of one model."""

    items: Sequence[WorkItem]
    failed_before: Collection[tuple[str, str]] = ()
    """(setup's key, graph's key) of failures of earlier calls, which are tried again."""
    reused: int = 0
    """Graphs that earlier calls had finished."""


class Board(Protocol):
    """Common ground of a pool's devices, whatever process they are in."""

    def work(self, setup: Setup) -> PoolWork:
        """Work for a device of that setup, the same for all that differ in nothing but which very device it is."""

    def tell(self, state: MemberState) -> None:
        """Takes note of a device's state."""

    def others(self, name: str) -> Others:
        """State of all devices but this one."""

    def rest(self, seconds: float) -> bool:
        """Rests, and returns whether the pool is to stop."""


@dataclass(frozen=True)
class PoolPlan:
    """Rules by which a pool works. Times in seconds."""

    units: int
    """Number of devices."""
    path: Path
    """Profile file."""
    rounds: int | None = None
    """Rounds of a graph at most; None for the device's default."""
    seed: int = 0
    until_s: float | None = None
    """Time (time.monotonic) at which the budget is out."""
    overlap: int = OVERLAP
    most_strikes: int = 3
    """Bad batches, one after the other, after which a device is out."""
    rest_s: float = 60.0
    """Quarantine after the first bad batch; it doubles with each."""
    look_s: float = 5.0
    """Time after which a device that is away is looked for again."""
    patience_s: float = 180.0
    """Time for which the last devices of a pool may be away."""

    def campaign(self, device: Device) -> Plan:
        """Plan of a batch on the device."""
        plan = default_plan(device)
        if self.until_s is not None:
            plan = replace(plan, budget_s=max(0.1, self.until_s - time.monotonic()))
        if self.rounds is None:
            return plan
        return replace(plan, max_rounds=self.rounds, min_rounds=min(plan.min_rounds, self.rounds))

    @property
    def is_out_of_time(self) -> bool:
        return self.until_s is not None and time.monotonic() >= self.until_s


class BadRoundsError(DeviceError):
    """Batch of which too many rounds had to be measured again."""


class _StopError(ProfilerError):
    """End of a batch because the pool stops, or because another unit has its leases."""


@dataclass
class MemberRun:
    """A device of a pool at work; `run` returns when there is nothing more for it to do."""

    member: Member
    plan: PoolPlan
    board: Board
    report: Report
    clock: Callable[[], float] = time.monotonic
    """Gives seconds; what run_campaign takes."""
    state: MemberState = field(init=False)
    _strikes: int = 0
    _away_since: float | None = None
    _work_seen: PoolWork | None = None

    def __post_init__(self) -> None:
        self.state = MemberState(self.member.name)

    def run(self) -> None:
        """Opens the device whenever it is there, and works. Raises what is no failure of the device."""
        self._tell("opening")
        while self.state.state not in ENDED:
            try:
                self._open_and_work()
            except _StopError:
                self._tell("out", "interrupted")

    def _open_and_work(self) -> None:
        try:
            with self.member.open(self.report) as device:
                self._away_since, self.state = None, replace(self.state, undone="")
                self._work(device)
        except _StopError:
            raise
        except NotRestoredError as error:  # of closing, once all else was done
            self._tell(self.state.state, self.state.note, undone=str(error))
        except ConnectionLostError as error:
            self._wait_for_it(error)
        except ProfilerError as error:
            self._quarantine(error)

    def _tell(self, state: State, note: str = "", **changes: object) -> None:
        self.state = replace(self.state, state=state, note=note, **changes)  # type: ignore[arg-type]
        self.board.tell(self.state)

    def _work(self, device: Device) -> None:
        """Batch after batch, until nothing is open any more."""
        self._work_seen = self.board.work(device.setup)
        with ProfileFile(self.plan.path, create=True) as profile:
            queue = self._queue(profile, device.setup, self._work_seen)
            self._tell("measuring", setup=device.setup, open=len(queue.open()))
            try:
                while self._measure_next(device, profile, queue):
                    pass
            finally:
                queue.give_back()

    def _queue(self, profile: ProfileFile, setup: Setup, work: PoolWork) -> WorkQueue:
        return WorkQueue(
            profile, setup, work.items, units=self.plan.units, failed_before=work.failed_before,
            overlap=self.plan.overlap,
        )  # fmt: skip

    def _measure_next(self, device: Device, profile: ProfileFile, queue: WorkQueue) -> bool:
        """Measures a batch; False when this device has nothing more to do."""
        if self.plan.is_out_of_time:
            self._tell("finished", "the time is out")
            return False
        if queue.is_apart:
            self._tell("apart", APART)
            return False
        plan = self.plan.campaign(device)
        batch = queue.take(plan)
        if not batch:
            return self._wait_for_others(queue)
        try:
            summary = run_campaign(
                device, batch, profile, plan, seed=self.plan.seed, clock=self.clock, on_progress=self._watch(queue)
            )
        except _LostLeaseError:
            return True
        queue.settle(batch)
        self._count(summary, len(queue.open()))
        if summary.redone > BAD_SHARE * summary.rounds:
            raise BadRoundsError(
                f"{self.member.name}: {summary.redone} of {summary.rounds} rounds had to be measured again"
            )
        self._strikes = 0
        return True

    def _wait_for_others(self, queue: WorkQueue) -> bool:
        if not queue.open():
            self._tell("finished")
            return False
        self._tell("waiting", "for what others have leased")
        self._rest(min(1.0, self.plan.look_s))
        return True

    def _watch(self, queue: WorkQueue) -> Callable[[Progress], None]:
        """Progress of a batch, which prolongs its leases, and ends it where there are none any more."""
        renewed_s = time.monotonic()

        def on_progress(progress: Progress) -> None:
            nonlocal renewed_s
            self._rest(0.0)
            now_s = time.monotonic()
            if now_s - renewed_s > LEASE_S / 4:
                renewed_s = now_s
                if not queue.renew():
                    raise _LostLeaseError("others measure it by now")
            note = progress.current if progress.is_waiting else f"{progress.done}/{progress.total} of a batch"
            self._tell("measuring", note)

        return on_progress

    def _count(self, summary: CampaignSummary, still_open: int) -> None:
        """Adds what a batch achieved."""
        state, done = self.state, len(summary.records) - summary.reused
        self._tell(
            "measuring", "", graphs=state.graphs + done, rounds=state.rounds + summary.rounds,
            redone=state.redone + summary.redone, inference_s=state.inference_s + summary.inference_s, open=still_open,
        )  # fmt: skip

    def _wait_for_it(self, error: DeviceError) -> None:
        """Waits a while for a device that cannot be reached. Nobody waits for one whose work others have done."""
        now_s = time.monotonic()
        self._away_since = self._away_since or now_s
        self._tell("away", str(error))
        others = self.board.others(self.member.name)
        is_gone = others != "working" and now_s - self._away_since > self.plan.patience_s
        if is_gone or self.plan.is_out_of_time or self._is_spared(others):
            self._tell("out", str(error))
            return
        self._rest(self.plan.look_s)

    def _is_spared(self, others: Others) -> bool:
        """Whether others have done the work of a device that is away; of one that never came, nobody knows it."""
        if self.state.setup is None or self._work_seen is None:
            return others == "finished"
        with ProfileFile(self.plan.path) as profile:
            return not self._queue(profile, self.state.setup, self._work_seen).open()

    def _quarantine(self, error: ProfilerError) -> None:
        """Rests, or gives the device up after too many bad batches."""
        self._strikes += 1
        rest_s = self.plan.rest_s * 2 ** (self._strikes - 1)
        if self._strikes >= self.plan.most_strikes or self.plan.is_out_of_time:
            self._tell("out", str(error), quarantines=self.state.quarantines + 1)
            return
        self._tell("quarantined", f"for {rest_s:.0f} s: {error}", quarantines=self.state.quarantines + 1)
        self._rest(rest_s)

    def _rest(self, seconds: float) -> None:
        if self.board.rest(seconds):
            raise _StopError("interrupted")


class _LostLeaseError(ProfilerError):
    """Batch whose leases have lapsed and are another unit's."""
