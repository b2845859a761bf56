"""Rounds on a phone: sessions of measure.sh out, timings in, through broken links."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from netlathe.profiler.adb import ShellExit
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult, flags, parse
from netlathe.profiler.device import DeviceEvent, RoundEnd, Timing, Visit
from netlathe.profiler.errors import (
    CommandTimeoutError,
    ConnectionLostError,
    DeviceError,
    MeasurementError,
    UnsupportedGraphError,
)
from netlathe.profiler.phone import litert_tool, measure_protocol
from netlathe.profiler.phone.conditions import Conditions
from netlathe.profiler.phone.workspace import Workspace

T = TypeVar("T")

VISIT_TIMEOUT_S = 60
SILENCE_S = VISIT_TIMEOUT_S + 30.0
PROBE = "probe"
"""The setup's key in sessions that find out what the setup is."""

HINTS = {
    measure_protocol.NO_SPACE: "; free some of the phone's storage",
    measure_protocol.BUSY: "; wait for the other one to end",
}


class Check(Protocol):
    """Function that raises MeasurementError or UnsupportedGraphError where a key's result is of another setup."""

    def __call__(self, key: str, result: BenchmarkResult) -> None: ...


class Retry(Protocol):
    """Function that retries an action while links break, and mends the link first where there is an error."""

    def __call__(self, action: Callable[[], T], error: DeviceError | None) -> T: ...


class RoundReader:
    """Reader of measure.sh's events, which makes timings and ends of rounds of them.

    A round's time is the host's at the start of the session plus what has passed on the phone since boot: it follows
    from the log alone, so a round that is read twice is recognized, and no clock that is set in between disturbs it.
    """

    def __init__(
        self,
        options: BenchmarkOptions,
        setup_key: str,
        start: Conditions,
        max_thermal_status: int = 0,
        cores: Collection[int] | None = None,
        check: Check = lambda key, result: None,
    ) -> None:
        """`cores` are those that the program may run on, None for all."""
        self.check = check
        self.options, self.setup_key = options, setup_key
        self.start, self.max_thermal_status, self.cores = start, max_thermal_status, cores
        self.results: dict[str, BenchmarkResult] = {}
        """Latest result of each graph, by key."""
        self.is_foreign = False
        """Whether the session read last was one of another setup."""
        self.begun = 0
        """Number of rounds that have begun."""
        self._session: measure_protocol.SessionBegin | None = None
        self._round: measure_protocol.RoundBegin | None = None

    def read(self, event: measure_protocol.SessionEvent) -> Iterator[DeviceEvent]:
        """Device events that follow from one of the session's; none for a session of another setup."""
        if isinstance(event, measure_protocol.SessionBegin):
            ours = (self.setup_key, f"{self.setup_key}-ops", f"{self.setup_key}-aside", PROBE)
            self.is_foreign = event.setup not in ours
            self._session = event if event.setup == self.setup_key else None
        elif self._session is None:
            return
        elif isinstance(event, measure_protocol.RoundBegin):
            yield from self.cut_off()
            self._round = event
            self.begun += 1
        elif isinstance(event, measure_protocol.VisitDone):
            yield self._timing(event)
        elif isinstance(event, measure_protocol.RoundDone):
            yield self._end(event.conditions)

    def cut_off(self) -> Iterator[DeviceEvent]:
        """End of a round that will not go on, where there is one."""
        if self._round is not None:
            yield self._end(self._round.conditions)

    def _timing(self, visit: measure_protocol.VisitDone) -> Timing:
        try:
            read = litert_tool.parse if self.options.tool == "litert" else parse
            result = read(visit.output, visit.code, self.options)
            self.check(visit.key, result)
        except (MeasurementError, UnsupportedGraphError) as error:
            return Timing(visit.key, error)
        self.results[visit.key] = result
        runs_ms = sum(s.count * s.mean_ms for s in (result.warmup, result.runs) if s)
        return Timing(visit.key, [result.runs.trimmed_mean_ms], details(result), runs_ms)

    def _end(self, conditions: Conditions) -> RoundEnd:
        begin, started = self._session, self._round
        assert begin is not None
        assert started is not None
        self._round = None
        # A round's place keeps times apart that the phone's clock, of 10 ms, does not.
        started_at = begin.stamp + max(0.0, started.uptime_s - begin.uptime_s) + 1e-4 * self.begun
        reasons = (
            one.hot_reason(self.start, self.max_thermal_status, self.cores) for one in (started.conditions, conditions)
        )
        return RoundEnd(started_at, conditions.values, next(filter(None, reasons), ""))


class PhoneSession:
    """Session of measure.sh on a phone that makes some rounds; `begun` of them have begun when `run` ends, early if the
    phone gets hot.

    When the link breaks, the results that the phone has logged meanwhile are fetched, and the round that was cut off
    stays so. `retry` is as of PreparedPhone.
    """

    def __init__(
        self,
        workspace: Workspace,
        reader: RoundReader,
        rounds: Sequence[Sequence[Visit]],
        stamp: float,
        retry: Retry,
    ) -> None:
        self.workspace, self.reader, self.rounds, self.stamp, self.retry = workspace, reader, rounds, stamp, retry
        self.token = secrets.token_hex(8)
        self._seen = 0  # of the session's events

    @property
    def begun(self) -> int:
        return self.reader.begun

    def run(self, mask: str) -> Iterator[DeviceEvent]:
        """Raises DeviceError when the phone does not come back, or measure.sh fails."""
        planned = [
            (str(i), [measure_protocol.PlannedVisit(v.key, v.runs, v.warmups, VISIT_TIMEOUT_S) for v in visits])
            for i, visits in enumerate(self.rounds)
        ]
        reader = self.reader
        words = litert_tool.flags if reader.options.tool == "litert" else flags
        plan = measure_protocol.write_plan(
            reader.setup_key, self.stamp, words(reader.options), mask, reader.max_thermal_status, planned
        )
        try:
            self.workspace.put(plan, "plan")
            yield from self._follow()
        except (ConnectionLostError, CommandTimeoutError) as error:
            lines = self.retry(lambda: self.workspace.read_log(self.token), error)
            for event in list(measure_protocol.read_events(lines))[self._seen :]:
                yield from self.reader.read(event)
            yield from self.reader.cut_off()
        self.retry(lambda: self.workspace.remove_log(self.token), None)

    def _follow(self) -> Iterator[DeviceEvent]:
        """Events of the session as they come over the line."""
        place = self.workspace
        command = place.command("measure.sh", place.directory, place.path("plan"), self.token)
        strays: list[str] = []
        exits: list[ShellExit] = []
        lines = self._lines(place.connection.stream(command, silence_s=SILENCE_S), exits)
        for event in measure_protocol.read_events(lines, self.token, strays):
            self._seen += 1
            yield from self.reader.read(event)
        yield from self.reader.cut_off()
        self._check(exits[0] if exits else ShellExit(-1, ""), strays)

    @staticmethod
    def _lines(stream: Iterator[str | ShellExit], exits: list[ShellExit]) -> Iterator[str]:
        for item in stream:
            if isinstance(item, ShellExit):
                exits.append(item)
            else:
                yield item

    def _check(self, ended: ShellExit, strays: Sequence[str]) -> None:
        if ended.code not in (measure_protocol.FINISHED, measure_protocol.STOPPED_HOT):
            self.workspace.claim()  # another computer that has taken the phone meanwhile ends what runs there
            said = "\n".join([*strays[-5:], ended.stderr.strip()]).strip() or "it said nothing"
            raise DeviceError(
                f"{self.workspace.connection.address}: measuring on the phone ended with exit code {ended.code}: {said}"
                f"{HINTS.get(ended.code, '')}"
            )


def details(result: BenchmarkResult) -> dict[str, float]:
    """Facts worth keeping of a graph beside its time, as far as the tool told them."""
    found = {
        "p5_ms": result.runs.p5_ms,
        "median_ms": result.runs.median_ms,
        "p95_ms": result.runs.p95_ms,
        "init_ms": result.init_ms,
        "first_inference_ms": result.first_inference_ms,
        "init_memory_mb": result.init_memory_mb,
        "memory_mb": result.overall_memory_mb,
        "peak_memory_mb": result.peak_memory_mb,
        "model_mb": result.model_mb,
        "delegated_share": result.delegated_share,
        "delegate_kernels": result.delegate_kernels,
    }
    return {name: value for name, value in found.items() if value is not None}
