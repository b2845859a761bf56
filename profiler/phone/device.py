"""An Android phone: its blocks are pushed over ADB and timed there by TFLite's benchmark_model.

A pass over the blocks is one shell session of device_scripts/measure.sh. The phone logs each result before it sends
it, so after a pulled cable, or even the end of this process, the results are fetched and the next round goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from netlathe.archspace.errors import ArchspaceError
from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import Graph
from netlathe.profiler.adb import AdbConnection
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult, Delegate
from netlathe.profiler.device import DeviceEvent, Observation, Report, RoundEnd, Visit, check_loadable
from netlathe.profiler.errors import DeviceError, NotRestoredError, UnsupportedGraphError
from netlathe.profiler.phone import measure_protocol, steady
from netlathe.profiler.phone.delegation import find_delegation
from netlathe.profiler.phone.files import (
    NNAPI_REMARK,
    hash_of,
    observation,
    profile_visit,
    read_for_phone,
    with_kernels,
)
from netlathe.profiler.phone.holding import held, leave, what_remains
from netlathe.profiler.phone.link import PhoneLink
from netlathe.profiler.phone.prepared import PreparedPhone
from netlathe.profiler.phone.rounds import PhoneSession, RoundReader
from netlathe.profiler.phone.setup import describe_setup
from netlathe.profiler.phone.workspace import Workspace
from netlathe.profiler.protocol import PHONE_PLAN, Plan

RESTORE_S = 60.0
"""Time for which a phone may be away when it is to be given back."""

DELEGATE_START_MS = 500.0
"""Overhead of a visit on the GPU or NNAPI, where the delegate compiles the graph first."""

MOST_IN_VAIN = 5


class PhoneDevice:
    """A phone that `connection` reaches, with benchmark_model put there and the phone kept as steady as it allows.

    `cores` is big, mid, little, all or a hexadecimal mask, '' for the scheduler's choice; `benchmark_binary` a
    benchmark_model for the phone's ABI, TFLite's or LiteRT's newer one, by default TFLite's official one; with
    `allow_partial`, a delegate other than the CPU's may leave the CPU a part of a graph; a `sustained` phone is
    measured under a load that lasts, as hot as that makes it; `report` is told what a person should know or do.
    Closing restores the phone and leaves nothing on it. Raises DeviceError where the phone cannot be used, and why; in
    particular ClaimedError while another computer measures on it.
    """

    file_format: FileFormat = "tflite"

    def __init__(
        self,
        connection: AdbConnection,
        *,
        benchmark_binary: Path | None = None,
        threads: int = 1,
        cores: str = "",
        dtype: str = "float32",
        delegate: Delegate = "cpu",
        xnnpack: bool = True,
        max_thermal_status: int = 0,
        allow_partial: bool = False,
        sustained: bool = False,
        report: Report = lambda message: None,
    ) -> None:
        self.connection, self.report = connection, report
        self._options = BenchmarkOptions(
            threads=threads, delegate=delegate, xnnpack=xnnpack, require_full=not allow_partial
        )
        if delegate == "nnapi":
            report(f"{connection.address}: {NNAPI_REMARK}")
        self._dtype = dtype
        self.models: dict[str, bytes] = {}
        """.tflite files by graph key, run in place of ones that are written from the graphs with random weights."""
        self.is_aside = False
        """Whether the rounds belong to no profile: then no profile recovers them, nor do they recover a profile's."""
        self._loaded: dict[str, Graph | None] = {}  # files have no graph
        self._starts: dict[str, Observation] = {}
        self._queued: dict[str, bytes] = {}
        self._unread: set[str] = set()
        self._finished: set[str] = set()
        self._sessions: set[str] = set()  # begun here
        self._link = PhoneLink(connection, report)
        self._workspace = Workspace(connection)
        self._phone = PreparedPhone(self._link, self._workspace, max_thermal_status, is_sustained=sustained)
        self._phone.on_resume = self._queue_lost
        self._held = ExitStack()
        self._is_open = False
        try:
            self._held.enter_context(held(self._link))
            self._link.retry(partial(self._open, benchmark_binary, cores))
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self._is_open = True

    def _open(self, binary: Path | None, cores: str) -> None:
        """Opens the phone, which may be done again when the link breaks: what is there already is not sent twice."""
        self._phone.prepare(binary, cores, self._options)
        self._options = self._phone.options
        self._unread = set(self._workspace.logs())
        self._delegation = find_delegation(self._phone, self._options, self._dtype, self._session)
        if self._delegation.remark and self._options.xnnpack:
            self.report(f"{self.connection.address}: {self._delegation.remark}")
        self.setup = describe_setup(
            self._phone, self._options, self._dtype, self._delegation, hash_of(self._phone.libraries)
        )

    @property
    def steps(self) -> Sequence[steady.StepOutcome]:
        """Steps that keep the phone steady: which hold, which it refused or lacks."""
        return self._phone.steps

    @property
    def default_plan(self) -> Plan:
        """PHONE_PLAN, with the time that a delegate takes to start; under a load that lasts, the speed may swing."""
        plan = dataclasses.replace(PHONE_PLAN, redo_drift=None) if self._phone.is_sustained else PHONE_PLAN
        if self._options.delegate == "cpu":
            return plan
        return dataclasses.replace(plan, overhead_ms=DELEGATE_START_MS)

    def load(self, key: str, graph: Graph) -> None:
        self._check_open()
        check_loadable(graph, self.setup)
        self._queue(key, graph)
        self._loaded[key] = graph
        self._finished.discard(key)

    def load_file(self, key: str, file: ModelFile) -> None:
        self._check_open()
        self.models[key] = read_for_phone(file)
        self._queue(key, None)
        self._loaded[key] = None
        self._finished.discard(key)

    def _queue(self, key: str, graph: Graph | None) -> None:
        """Queues the model of that key: a given one, which a file always is, or one written from the graph."""
        try:
            model = self.models.get(key)
            if model is None:
                assert graph is not None
                model = write_tflite(graph, dtype=self._dtype)
            self._queued[key] = model
        except ArchspaceError as error:
            raise UnsupportedGraphError(str(error)) from error

    def _queue_lost(self) -> None:
        """Queues loaded graphs whose models are no longer on the phone."""
        for key in self._loaded.keys() - self._workspace.models.keys() - self._queued.keys():
            self._queue(key, self._loaded[key])

    def unload(self, keys: Iterable[str]) -> None:
        self._check_open()
        for key in keys:
            self._loaded.pop(key, None)
            if not self._queued.pop(key, None):
                self._finished.add(key)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        self._check_open()
        waiting, in_vain = list(rounds), 0
        while waiting:
            yield from self._phone.cool_down()
            self._send_models()
            session = self._session(self._round_reader(), waiting, max(time.time(), after + 1e-3))
            for event in session.run(self._phone.mask):
                after = max(after, event.started_at if isinstance(event, RoundEnd) else 0.0)
                yield event
            in_vain = 0 if session.begun else in_vain + 1
            if in_vain == MOST_IN_VAIN:
                raise DeviceError(f"{self.connection.address}: the link breaks before a round begins; check the cable")
            waiting = waiting[session.begun :]

    def profile_ops(self, keys: Sequence[str]) -> Iterator[tuple[str, BenchmarkResult]]:
        """Times of each kernel, and the peak of memory, of these loaded graphs, by key. Watching takes time of its
        own, so these runs count nowhere else. Graphs that fail, also when tried again, are left out."""
        self._check_open()
        options = dataclasses.replace(self._options, op_profile=True, peak_memory=True)
        yield from self._watch([Visit(key, 20, 5) for key in keys], options)

    def observe(self, keys: Sequence[str], *, op_profile: bool = False) -> Mapping[str, Observation]:
        self._check_open()
        if not op_profile:
            options = dataclasses.replace(self._options, peak_memory=True)
            visits = [Visit(key, 2, 1) for key in keys]
            self._starts |= {key: observation(one, options) for key, one in self._watch(visits, options)}
            return {key: self._starts[key] for key in keys if key in self._starts}
        options = dataclasses.replace(self._options, op_profile=True)
        visits = [profile_visit(key, self._starts[key]) for key in keys if key in self._starts]
        return {key: with_kernels(self._starts[key], one) for key, one in self._watch(visits, options)}

    def _watch(self, visits: Sequence[Visit], options: BenchmarkOptions) -> Iterator[tuple[str, BenchmarkResult]]:
        """Results of runs that belong to no profile, by key. Graphs that fail, also when tried again, are left out."""
        missing = list(visits)
        for _ in range(MOST_IN_VAIN):
            self._send_models()
            # Another name keeps these runs from being recovered as measurements.
            reader = self._reader(options, "-ops")
            rounds = [missing[i : i + 50] for i in range(0, len(missing), 50)]
            for _ in self._session(reader, rounds, time.time()).run(self._phone.mask):
                pass
            yield from reader.results.items()
            missing = [visit for visit in missing if visit.key not in reader.results]
            if not missing:
                return

    def _session(self, reader: RoundReader, rounds: Sequence[Sequence[Visit]], stamp: float) -> PhoneSession:
        session = PhoneSession(self._workspace, reader, rounds, stamp, self._phone.retry)
        self._sessions.add(session.token)
        return session

    def _reader(self, options: BenchmarkOptions, suffix: str) -> RoundReader:
        phone = self._phone
        return RoundReader(
            options, f"{self.setup.key}{suffix}", phone.start, phone.max_thermal_status, phone.cores,
            self._check,
        )  # fmt: skip

    def _check(self, key: str, result: BenchmarkResult) -> None:
        """Any kernels of the CPU may execute a file, as its observation tells; a graph only the setup's."""
        if key in self._loaded and self._loaded[key] is None and self._options.delegate == "cpu":
            return
        self._delegation.check(result)

    def _round_reader(self) -> RoundReader:
        return self._reader(self._options, "-aside" if self.is_aside else "")

    def recovered(self) -> Iterator[DeviceEvent]:
        self._check_open()
        for token in () if self.is_aside else sorted(self._unread):
            lines = self._phone.retry(partial(self._workspace.read_log, token))
            reader = self._round_reader()
            try:
                for event in measure_protocol.read_events(lines):
                    yield from reader.read(event)
                yield from reader.cut_off()
            except DeviceError as error:  # a log that makes no sense will not make any later
                self.report(f"{self.connection.address}: results of an earlier run cannot be read ({error})")
            if not reader.is_foreign:
                self._unread.discard(token)
                self._phone.retry(partial(self._workspace.remove_log, token))

    def _send_models(self) -> None:
        self._phone.retry(lambda: self._workspace.remove_models(self._finished))
        self._finished.clear()
        if not self._queued:
            return
        phone = self._phone.description
        self._phone.retry(lambda: self._workspace.put_models(self._queued, phone.tools, phone.data_free_kb))
        self._queued.clear()

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"{self.connection.address}: the device is closed; open it again")

    def close(self) -> None:
        """Gives the phone back as it was, for which it may be away for RESTORE_S, and frees everything. Raises
        NotRestoredError, once all is freed, with what remains on the phone."""
        self._is_open = False
        is_used, self._workspace.is_used = self._workspace.is_used, False
        try:
            if is_used:
                self._give_back()
        finally:
            self._held.close()
            self.connection.close()

    def _give_back(self) -> None:
        # A phone that was waited for in vain already is only looked for once more.
        patience_s = 0.0 if self._link.is_given_up else RESTORE_S
        try:
            outcomes = self._link.retry(
                lambda: leave(self._link, self._workspace, self._sessions), patience_s=patience_s
            )
        except DeviceError as error:
            raise NotRestoredError(what_remains(self._workspace, self._phone.steps, error)) from error
        except BaseException as error:  # a second Ctrl-C
            self.report(what_remains(self._workspace, self._phone.steps, error))
            raise
        failed = [outcome.report for outcome in outcomes if outcome.state == "failed"]
        if failed:
            raise NotRestoredError(f"{self.connection.address}: {'; '.join(failed)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """Closes; an error that is under way is not replaced by one of closing, which is reported then."""
        try:
            self.close()
        except NotRestoredError as error:
            if kind is None:
                raise
            self.report(str(error))
