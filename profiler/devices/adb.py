"""An Android phone: its blocks are pushed over ADB and timed there by TFLite's benchmark_model.

A pass over the blocks is one shell session of device_scripts/measure.sh. The phone logs each result before it sends
it, so after a pulled cable, or even the end of this process, the results are fetched and the next round goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from netlathe.archspace.errors import ArchspaceError
from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.profiler.adb import AdbConnection
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult, Delegate
from netlathe.profiler.devices.base import Event, Observation, Report, RoundEnd, Visit, Waiting, check_loadable
from netlathe.profiler.errors import DeviceError, NotRestoredError, UnsupportedGraphError
from netlathe.profiler.phone import session, steady
from netlathe.profiler.phone.conditions import Conditions, SkinWatch
from netlathe.profiler.phone.delegation import find_delegation
from netlathe.profiler.phone.files import (
    NNAPI_REMARK,
    hash_of,
    libraries_of,
    observation,
    options_for,
    profile_visit,
    read_for_phone,
    with_kernels,
)
from netlathe.profiler.phone.holding import describe, held, leave, what_remains
from netlathe.profiler.phone.link import PhoneLink
from netlathe.profiler.phone.litert_tool import LIBRARIES
from netlathe.profiler.phone.provision import Binary, find_binary
from netlathe.profiler.phone.rounds import Batch, RoundReader
from netlathe.profiler.phone.setup import describe_setup
from netlathe.profiler.phone.topology import core_mask
from netlathe.profiler.phone.workspace import Workspace

RESTORE_S = 60.0
"""How long a phone may be away when it is to be given back."""

COOL_DOWN_S = 600.0
POLL_S = 3.0
MOST_IN_VAIN = 5

T = TypeVar("T")


class PhoneDevice:
    """A phone that `connection` reaches, with benchmark_model put there and the phone kept as steady as it allows.

    `cores` is big, mid, little, all or a hexadecimal mask, '' for the scheduler's choice; `benchmark_binary` a
    benchmark_model for the phone's ABI, TFLite's or LiteRT's newer one, by default TFLite's official one; with
    `allow_partial`, a delegate other than the CPU's may leave the CPU a part of a graph; `report` is told what a person
    should know or do.
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
        report: Report = lambda message: None,
    ) -> None:
        self.connection, self.report = connection, report
        self.max_thermal_status = max_thermal_status
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
        self.steps: list[steady.StepOutcome] = []
        """What keeps the phone steady, and what it refused."""
        self._link = PhoneLink(connection, report)
        self._workspace = Workspace(connection)
        self._held = ExitStack()
        self._is_open = False
        try:
            self._held.enter_context(held(self._link))
            self._link.retry(partial(self._open, benchmark_binary, cores))
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self._is_open = True

    def _open(self, given: Path | None, cores: str) -> None:
        """All of it may be done again when the link breaks: what is there already is not sent twice."""
        self._workspace.open()
        self.description = describe(self._workspace)
        self._mask = core_mask(self.description, cores) if cores else ""
        self._cores = {core for core in range(64) if int(self._mask, 16) >> core & 1} if cores else None
        self._unread = set(self._workspace.logs())
        binary = find_binary(given, self.description.abis)
        self._options = options_for(binary, self._options)
        self._program, self._libraries = binary.content, libraries_of(binary, self._options)
        self._put_program()
        self.steps = self._steady()
        self._begin()
        self._delegation = find_delegation(
            self._workspace, self.description, self._options, self._dtype, self._mask, self._retry, self._batch
        )
        if self._delegation.remark and self._options.xnnpack:
            self.report(f"{self.connection.address}: {self._delegation.remark}")
        self.setup = self._describe_setup(binary)

    def _put_program(self) -> None:
        self._workspace.find_models()
        self._workspace.put_program(self._program, "benchmark_model")
        if self._libraries:
            self._workspace.put_libraries(self._libraries, LIBRARIES)

    def _steady(self) -> list[steady.StepOutcome]:
        """Undoes what an interrupted campaign left changed, then keeps the phone awake and its clocks steady."""
        steady.restore(self.connection, self._workspace.directory)
        steps = ["wake", "stay_awake", "fixed_performance", "background", "battery"]
        if self._mask:
            steps.append(f"cores={self._mask}")
        outcomes = steady.apply(self.connection, self._workspace.directory, steps)
        for outcome in outcomes:
            if outcome.state == "refused":
                self.report(f"{self.connection.address}: {outcome.report}")
        return outcomes

    def _describe_setup(self, binary: Binary) -> Setup:
        held_mode = _state(self.steps, "fixed_performance")
        return describe_setup(
            self.description, binary, self._options, self._mask, self._dtype, held_mode, self._link.unit,
            self._delegation, hash_of(self._libraries),
        )  # fmt: skip

    def _begin(self) -> None:
        """What later conditions are compared with, since this boot."""
        self._start, self._boot_id, self._skin = self._conditions(), self.description.boot_id, SkinWatch()
        self._is_settled = False

    def _conditions(self) -> Conditions:
        result = self._workspace.run(self._workspace.command("conditions.sh"), "read the phone's conditions")
        return Conditions.parse(result.stdout)

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
        try:
            self._queued[key] = self.models.get(key) or write_tflite(graph, dtype=self._dtype)  # type: ignore[arg-type]  # a file is among the models
        except ArchspaceError as error:
            raise UnsupportedGraphError(str(error)) from error

    def unload(self, keys: Iterable[str]) -> None:
        self._check_open()
        for key in keys:
            self._loaded.pop(key, None)
            if not self._queued.pop(key, None):
                self._finished.add(key)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[Event]:
        self._check_open()
        waiting, in_vain = list(rounds), 0
        while waiting:
            yield from self._cool_down()
            self._send_models()
            batch = self._batch(self._reader(), waiting, max(time.time(), after + 1e-3))
            for event in batch.run(self._mask):
                after = max(after, event.started_at if isinstance(event, RoundEnd) else 0.0)
                yield event
            in_vain = 0 if batch.begun else in_vain + 1
            if in_vain == MOST_IN_VAIN:
                raise DeviceError(f"{self.connection.address}: the link breaks before a round begins; check the cable")
            waiting = waiting[batch.begun :]

    def profile_ops(self, keys: Sequence[str]) -> Iterator[tuple[str, BenchmarkResult]]:
        """The time of each kernel, and the peak of memory, of these loaded graphs, by key. Watching takes time of its
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
            reader = RoundReader(
                options, f"{self.setup.key}-ops", self._start, self.max_thermal_status, check=self._check
            )
            rounds = [missing[i : i + 50] for i in range(0, len(missing), 50)]
            for _ in self._batch(reader, rounds, time.time()).run(self._mask):
                pass
            yield from reader.results.items()
            missing = [visit for visit in missing if visit.key not in reader.results]
            if not missing:
                return

    def _batch(self, reader: RoundReader, rounds: Sequence[Sequence[Visit]], stamp: float) -> Batch:
        batch = Batch(self._workspace, reader, rounds, stamp, self._retry)
        self._sessions.add(batch.token)
        return batch

    def _reader(self) -> RoundReader:
        name = f"{self.setup.key}-aside" if self.is_aside else self.setup.key
        return RoundReader(self._options, name, self._start, self.max_thermal_status, self._cores, self._check)

    def _check(self, key: str, result: BenchmarkResult) -> None:
        """Any kernels of the CPU may execute a file, as its observation tells; a graph only the setup's."""
        if key in self._loaded and self._loaded[key] is None and self._options.delegate == "cpu":
            return
        self._delegation.check(result)

    def recovered(self) -> Iterator[Event]:
        self._check_open()
        for token in () if self.is_aside else sorted(self._unread):
            lines = self._retry(partial(self._workspace.read_log, token))
            reader = self._reader()
            try:
                for event in session.read_events(lines):
                    yield from reader.read(event)
                yield from reader.cut_off()
            except DeviceError as error:  # a log that makes no sense will not make any later
                self.report(f"{self.connection.address}: results of an earlier run cannot be read ({error})")
            if not reader.is_foreign:
                self._unread.discard(token)
                self._retry(partial(self._workspace.remove_log, token))

    def _send_models(self) -> None:
        self._retry(lambda: self._workspace.remove_models(self._finished))
        self._finished.clear()
        if not self._queued:
            return
        phone = self.description
        self._retry(lambda: self._workspace.put_models(self._queued, phone.tools, phone.data_free_kb))
        self._queued.clear()

    def _retry(self, action: Callable[[], T], error: DeviceError | None = None) -> T:
        """Does what may be done twice, again while links break; where there is an error, it mends the link first."""
        return self._link.retry(action, error, mend=self._resume)

    def _resume(self) -> None:
        """Takes the phone up where it was left, and prepares it anew where it has rebooted meanwhile."""
        build = self.description.fingerprint
        self._workspace.open()
        self.description = describe(self._workspace)
        if self.description.fingerprint != build:
            raise DeviceError(f"{self.connection.address}: Android was updated meanwhile; run the same command again")
        self._put_program()
        for key in self._loaded.keys() - self._workspace.models.keys() - self._queued.keys():
            self._queue(key, self._loaded[key])
        if self.description.boot_id != self._boot_id:
            self._hold_again()

    def _hold_again(self) -> None:
        """After a reboot."""
        steps, name = self._steady(), "fixed_performance"
        if _state(steps, name) != _state(self.steps, name):
            raise DeviceError(
                f"{self.connection.address}: after its reboot the phone's fixed performance mode is "
                f"{_state(steps, name)}, was {_state(self.steps, name)} before; run the same command again"
            )
        self.steps = steps
        self._begin()

    def _cool_down(self) -> Iterator[Event]:
        """Waits until the phone is fit."""
        began_s = time.monotonic()
        rest_c = self._skin.rest_c
        while reason := self._retry(self._unfit):
            waited_s = time.monotonic() - began_s
            # A skin that cools down ends its wait itself; the rest may never end.
            if waited_s > COOL_DOWN_S and not self._skin.is_cooling:
                raise DeviceError(
                    f"{self.connection.address}: not fit to be timed even after {COOL_DOWN_S / 60:.0f} minutes "
                    f"({reason}); put it in a cool place, out of its case, turn battery saving off, and run the same "
                    "command again"
                )
            yield Waiting(f"cooling: {reason}", waited_s, None if self._skin.is_cooling else COOL_DOWN_S)
            time.sleep(POLL_S)
        if self._skin.rest_c not in (None, rest_c):
            self.report(
                f"{self.connection.address}: its skin stays at {self._skin.rest_c:.1f} degC even at rest, so it is "
                "measured warm; in a cooler place, out of its case, times vary less"
            )

    def _unfit(self) -> str | None:
        """Why the phone is to be left alone for now. Looking renews the claim on it."""
        self._workspace.claim()
        conditions = self._conditions()
        if conditions.reboot_reason(self._start):
            self._link.check()
            self._resume()
            conditions = self._conditions()
        hot = conditions.hot_reason(self._start, self.max_thermal_status, self._cores)
        # As long as Android itself calls it hot, its skin does not come to rest.
        warm = self._skin.reason(None if hot else conditions.number("skin_c"), time.monotonic())
        if not (hot or warm or self._is_settled):
            # One that was plugged in hot may have been capped then: the first fit reading is the measure.
            self._start, self._is_settled = conditions, True
        return hot or warm

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
            raise NotRestoredError(what_remains(self._workspace, self.steps, error)) from error
        except BaseException as error:  # a second Ctrl-C
            self.report(what_remains(self._workspace, self.steps, error))
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


def _state(steps: Iterable[steady.StepOutcome], name: str) -> str:
    """Whether a step is held, refused or unavailable."""
    return next((outcome.state for outcome in steps if outcome.step == name), "unavailable")
