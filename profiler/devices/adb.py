"""An Android phone: its blocks are pushed over ADB and timed there by TFLite's benchmark_model.

A pass over the blocks is one shell session of device_scripts/measure.sh. The phone logs each result before it sends
it, so after a pulled cable, or even the end of this process, the results are fetched and the next round goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypeVar

from archspace.errors import ArchspaceError
from archspace.forms.tflite import write_tflite
from archspace.graph import Graph
from archspace.records import Setup
from profiler.adb import AdbConnection, open_connection
from profiler.benchmark_tool import BenchmarkOptions, Delegate
from profiler.devices.base import Event, RoundEnd, Visit, Waiting, check_loadable
from profiler.errors import CommandTimeoutError, ConnectionLostError, DeviceError, UnsupportedGraphError
from profiler.lock import exclusive
from profiler.op_profile import OpTime
from profiler.phone import session, steady
from profiler.phone.conditions import Conditions
from profiler.phone.description import PhoneDescription
from profiler.phone.provision import Binary, cache_directory, find_binary
from profiler.phone.rounds import MOST_RECONNECTS, Batch, RoundReader
from profiler.phone.topology import core_mask, core_summary
from profiler.phone.workspace import Workspace

RECONNECT_S = 60.0
"""How long a phone may be away, as with a pulled cable or while it reboots."""

COOL_DOWN_S = 600.0
POLL_S = 3.0

Report = Callable[[str], None]
T = TypeVar("T")


class PhoneDevice:
    """A phone that `connection` reaches, with benchmark_model put there and the phone kept as steady as it allows.

    `cores` is big, mid, little, all or a hexadecimal mask, '' for the scheduler's choice; `benchmark_binary` a
    benchmark_model for the phone's ABI, by default the official one; `report` is told what a person should know or do.
    Closing restores the phone and leaves nothing on it. Raises DeviceError where the phone cannot be used, and why.
    """

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
        report: Report = lambda message: None,
    ) -> None:
        self.connection, self.report = connection, report
        self.max_thermal_status = max_thermal_status
        self._options = BenchmarkOptions(threads=threads, delegate=delegate, xnnpack=xnnpack)
        self._dtype = dtype
        self._queued: dict[str, bytes] = {}
        self._finished: set[str] = set()
        self._workspace = Workspace(connection)
        self._held = ExitStack()
        self._is_open = False
        try:
            self._open(benchmark_binary, cores)
        except BaseException:
            self.close()
            raise

    def _open(self, given: Path | None, cores: str) -> None:
        self._unit = self._held.enter_context(_held(self.connection))
        self._workspace.install()
        self._workspace.claim()
        self._is_open = True
        text = self._workspace.run(self._workspace.command("describe.sh"), "describe the phone").stdout
        self.description = PhoneDescription.parse(text)
        self._mask = core_mask(self.description, cores) if cores else ""
        binary = find_binary(given, self.description.abis)
        self._workspace.find_models()
        self._workspace.put_program(binary.content, "benchmark_model")
        self._steady()
        self._start = self._conditions()
        self.setup = self._describe_setup(binary)

    def _steady(self) -> None:
        """Undoes what an interrupted campaign left changed, then keeps the phone awake and its clocks steady."""
        steady.restore(self.connection, self._workspace.directory)
        steps = ["wake", "stay_awake", "fixed_performance", "background"]
        if self._mask:
            steps.append(f"cores={self._mask}")
        self.steps = steady.apply(self.connection, self._workspace.directory, steps)
        self._boot_id = self.description.boot_id

    def _describe_setup(self, binary: Binary) -> Setup:
        phone = self.description
        name = self._options.delegate
        details = {
            "abi": binary.abi,
            "android_build": phone.fingerprint,
            "benchmark_model": binary.kind,
            "benchmark_model_sha256": binary.sha256,
            "cores": core_summary(phone),
            "fixed_performance": self._state("fixed_performance"),
            "governor": " ".join(sorted(set(phone.governors))),
            "kernel": phone.kernel,
            "unit": self._unit,  # two phones of one model differ
        }
        return Setup(
            device=f"{phone.manufacturer} {phone.model}", processor=phone.soc, os=f"Android {phone.release}",
            runtime="tflite", runtime_version=binary.sha256[:12],
            delegate=("xnnpack" if self._options.xnnpack else "none") if name == "cpu" else name,
            threads=self._options.threads, core_mask=self._mask, dtype=self._dtype,
            details=tuple(details.items()),
        )  # fmt: skip

    def _state(self, step: str) -> str:
        """Whether a step is held, refused or unavailable."""
        return next((outcome.state for outcome in self.steps if outcome.step == step), "unavailable")

    def _conditions(self) -> Conditions:
        result = self._workspace.run(self._workspace.command("conditions.sh"), "read the phone's conditions")
        return Conditions.parse(result.stdout)

    def load(self, key: str, graph: Graph) -> None:
        self._check_open()
        check_loadable(graph, self.setup)
        try:
            self._queued[key] = write_tflite(graph, dtype=self._dtype)
        except ArchspaceError as error:
            raise UnsupportedGraphError(str(error)) from error
        self._finished.discard(key)

    def unload(self, keys: Iterable[str]) -> None:
        self._check_open()
        for key in keys:
            if not self._queued.pop(key, None):
                self._finished.add(key)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[Event]:
        self._check_open()
        self._send_models()
        waiting, in_vain = list(rounds), 0
        while waiting:
            yield from self._cool_down()
            batch = self._batch(waiting, max(time.time(), after + 1e-3))
            for event in batch.run(self._mask):
                after = max(after, event.started_at if isinstance(event, RoundEnd) else 0.0)
                yield event
            in_vain = 0 if batch.begun else in_vain + 1
            if in_vain == MOST_RECONNECTS:
                raise DeviceError(f"{self.connection.address}: the link breaks before a round begins; check the cable")
            waiting = waiting[batch.begun :]

    def profile_ops(self, keys: Sequence[str]) -> Iterator[tuple[str, tuple[OpTime, ...]]]:
        """How the time of each of these loaded graphs is spread over the runtime's kernels, by key. Profiling takes
        time of its own, so these runs count nowhere else. Graphs that fail are left out."""
        self._check_open()
        self._send_models()
        batch = self._batch([[Visit(key, 20, 5) for key in keys]], time.time(), op_profile=True)
        for _ in batch.run(self._mask):
            pass
        yield from batch.reader.op_times.items()

    def _batch(self, rounds: Sequence[Sequence[Visit]], stamp: float, *, op_profile: bool = False) -> Batch:
        return Batch(self._workspace, self._reader(op_profile), rounds, stamp, self._come_back)

    def _reader(self, op_profile: bool = False) -> RoundReader:
        options = dataclasses.replace(self._options, op_profile=op_profile)
        # Another name keeps these runs from being recovered as measurements.
        name = f"{self.setup.key}-ops" if op_profile else self.setup.key
        return RoundReader(options, name, self._start, self.max_thermal_status)

    def recovered(self) -> Iterator[Event]:
        self._check_open()
        for token in self._workspace.logs():
            reader = self._reader()
            try:
                for event in session.read_events(self._workspace.read_log(token)):
                    yield from reader.read(event)
                yield from reader.cut_off()
            except DeviceError as error:  # a log that cannot be read is of no use later either
                self.report(f"{self.connection.address}: results of an earlier run are lost ({error})")
            self._workspace.remove_log(token)

    def _send_models(self) -> None:
        gone = self._workspace.remove_models(self._finished)
        if gone:
            self._retry(lambda: self._workspace.run(gone, "remove finished models"))
        self._finished.clear()
        if not self._queued:
            return
        needed_kb = sum(map(len, self._queued.values())) / 1024
        free_kb = self.description.data_free_kb
        if free_kb is not None and needed_kb > free_kb:
            raise DeviceError(
                f"{self.connection.address}: the blocks need {needed_kb / 1024:.0f} MB on the phone and "
                f"{free_kb / 1024:.0f} MB are free; free some of its storage"
            )
        self._retry(lambda: self._workspace.put_models(self._queued, self.description.tools))
        self._queued.clear()

    def _retry(self, action: Callable[[], T]) -> T:
        """Does what may be done twice, again when the link broke meanwhile."""
        for _ in range(MOST_RECONNECTS - 1):
            try:
                return action()
            except (ConnectionLostError, CommandTimeoutError) as error:
                self._come_back(error)
        return action()

    def _come_back(self, error: DeviceError) -> None:
        """Connects again after the link broke."""
        self.report(f"{self.connection.address}: {error} Waiting up to {RECONNECT_S:.0f} s for the phone.")
        self.connection.reconnect(RECONNECT_S)
        self._resume()
        self.report(f"{self.connection.address}: back again.")

    def _resume(self) -> None:
        """Takes the phone up again, and prepares it anew where it has rebooted meanwhile."""
        self._workspace.install()
        self._workspace.claim()
        text = self._workspace.run(self._workspace.command("describe.sh"), "describe the phone").stdout
        self.description = PhoneDescription.parse(text)
        if self.description.boot_id != self._boot_id:
            self._steady()
            self._start = self._conditions()

    def _cool_down(self) -> Iterator[Event]:
        """Waits until the phone is as fit as at the start."""
        until_s = time.monotonic() + COOL_DOWN_S
        while True:
            conditions = self._retry(self._conditions)
            if conditions.reboot_reason(self._start):
                self._retry(self._resume)
            reason = conditions.hot_reason(self._start, self.max_thermal_status)
            if not reason:
                return
            if time.monotonic() > until_s:
                raise DeviceError(
                    f"{self.connection.address}: not fit to be timed even after {COOL_DOWN_S / 60:.0f} minutes "
                    f"({reason}); put it in a cool place, out of its case, turn battery saving off, and run the same "
                    "command again"
                )
            yield Waiting(f"cooling: {reason}")
            time.sleep(POLL_S)

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"{self.connection.address}: the device is closed; open it again")

    def close(self) -> None:
        was_open, self._is_open = self._is_open, False
        try:
            if was_open:
                steady.restore(self.connection, self._workspace.directory)
                self._workspace.remove()
        except DeviceError as error:
            self.report(
                f"{self.connection.address}: could not be restored ({error}). The next profile does it, or "
                f"`netlathe device clean --device {self.connection.address}`."
            )
        finally:
            self._held.close()
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


def clean_phone(address: str, report: Report) -> list[steady.StepOutcome]:
    """Restores what an interrupted campaign left changed, and returns that; removes netlathe's directory."""
    connection = open_connection(address, on_authorize=report)
    try:
        workspace = Workspace(connection)
        with _held(connection):
            workspace.install()
            workspace.claim()
            outcomes = steady.restore(connection, workspace.directory)
            workspace.remove()
            return outcomes
    finally:
        connection.close()


@contextmanager
def _held(connection: AdbConnection) -> Iterator[str]:
    """Keeps other processes of this computer off the phone; gives a name for this very phone."""
    serial = connection.run("getprop ro.serialno", timeout_s=30).stdout.strip()
    unit = hashlib.sha256(serial.encode()).hexdigest()[:8]
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"{connection.address}: another netlathe is using this phone; wait for it to end"
    with exclusive(folder / "phone", unit, refusal):
        yield unit
