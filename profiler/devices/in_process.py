"""Base of the runtimes inside this process: loading, the timing loop, pinning to cores."""

from __future__ import annotations

import gc
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import ArchspaceError
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Shape
from netlathe.archspace.records import Setup
from netlathe.profiler.device import SUSTAINED, DeviceEvent, RoundEnd, Timing, Visit, check_loadable
from netlathe.profiler.devices.host import HostMonitor, machine_name, os_name, processor_name
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError

RunTimer = Callable[[int, int], list[float]]
"""Timer of one loaded graph: (warmups, runs) -> the runs' times in ms."""


def random_input(shape: Shape) -> NDArray[np.float32]:
    """Random values of that shape, always the same: zeros or denormals would not take the usual time."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def random_int8_input(shape: Shape) -> NDArray[np.int8]:
    """Random values of that shape, always the same, over all that int8 holds."""
    return np.random.default_rng(0).integers(-128, 128, shape, np.int8)


class InProcessDevice(ABC):
    """A runtime inside this process. A subclass says what the setup is and how a graph is built and timed."""

    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError)
    """Errors that the runtime raises when it does not execute a graph at all."""
    is_sustained = False
    """Whether it is measured under a load that lasts."""

    def __init__(self) -> None:
        self._loaded: dict[str, RunTimer] | None = {}
        self._monitor = HostMonitor()

    @property
    @abstractmethod
    def setup(self) -> Setup: ...

    @abstractmethod
    def _build(self, graph: Graph) -> RunTimer:
        """Raises one of `refusals` when the runtime does not take the graph."""

    def _open(self) -> dict[str, RunTimer]:
        if self._loaded is None:
            raise DeviceError(f"the {self.setup.runtime} device is closed; open it again")
        return self._loaded

    def load(self, key: str, graph: Graph) -> None:
        self._open()
        check_loadable(graph, self.setup)
        self._keep(key, lambda: self._build(graph), self.refusals, "graph")

    def _keep(self, key: str, build: Callable[[], RunTimer], refusals: tuple[type[Exception], ...], what: str) -> None:
        """Loads what is built. Raises UnsupportedGraphError or MeasurementError where that or its first run fails."""
        loaded = self._open()
        try:
            timer = build()
            timer(0, 1)  # what cannot run shows here, not in the middle of a round
        except MemoryError as error:
            raise MeasurementError(f"{self.setup.runtime} is out of memory ({error}); load fewer graphs") from error
        except ArchspaceError as error:  # the graph has no form that this runtime reads
            raise UnsupportedGraphError(str(error)) from error
        except refusals as error:
            raise UnsupportedGraphError(f"{self.setup.runtime} does not run this {what}: {error}") from error
        except Exception as error:  # anything else may be gone next time
            raise MeasurementError(f"{self.setup.runtime} failed to load this {what}: {error!r}") from error
        loaded[key] = timer

    def unload(self, keys: Iterable[str]) -> None:
        loaded = self._open()
        for key in keys:
            loaded.pop(key, None)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        for visits in rounds:
            started_at = after = max(time.time(), after + 1e-3)
            yield from self._time_round(visits)
            yield RoundEnd(started_at, self._conditions())

    def _time_round(self, visits: Sequence[Visit]) -> Iterator[Timing]:
        loaded = self._open()
        collected = gc.isenabled()
        gc.disable()  # a collection inside a run would be counted as the graph's time
        try:
            for visit in visits:
                yield Timing(visit.key, _time(loaded.get(visit.key), visit))
        finally:
            if collected:
                gc.enable()

    def recovered(self) -> Iterator[DeviceEvent]:
        return iter(())  # a round that was not stored was never out of this process

    def _conditions(self) -> Mapping[str, float | str]:
        return self._monitor.conditions()

    def close(self) -> None:
        self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


def _time(timer: RunTimer | None, visit: Visit) -> list[float] | MeasurementError:
    if timer is None:
        return MeasurementError(f"graph {visit.key} is not loaded")
    try:
        return timer(visit.warmups, visit.runs)
    except Exception as error:  # the runtimes' own errors share no base
        return MeasurementError(f"the runtime failed while running: {error!r}")


class HostDevice(InProcessDevice):
    """A runtime on this computer's CPU.

    `cores` pins this thread, and those that it starts later, to the cores of these numbers. Raises DeviceError when
    the computer has fewer.
    """

    def __init__(self, threads: int, batch: int, cores: Sequence[int]) -> None:
        super().__init__()
        available = os.cpu_count() or 1
        if not 1 <= threads <= available:
            raise DeviceError(f"threads must be from 1 to {available}, the cores of this computer, got {threads}")
        if batch < 1:
            raise DeviceError(f"batch must be at least 1, got {batch}")
        self.threads = threads
        self.batch = batch
        self.core_numbers = sorted(set(cores))
        self.core_mask = f"{sum(1 << core for core in set(cores)):x}" if cores else ""
        self._cores_before = _pin(cores) if cores else None

    def _host_setup(self, runtime: str, version: str, delegate: str, dtype: str = "float32") -> Setup:
        return Setup(
            device=machine_name(), processor=processor_name(), os=os_name(), runtime=runtime, runtime_version=version,
            delegate=delegate, threads=self.threads, core_mask=self.core_mask, dtype=dtype, batch=self.batch,
            details=(("cores", str(os.cpu_count())), *((SUSTAINED,) if self.is_sustained else ())),
        )  # fmt: skip

    def close(self) -> None:
        super().close()
        if self._cores_before is not None:
            os.sched_setaffinity(0, self._cores_before)
            self._cores_before = None


def run_timer(run: Callable[[], object]) -> RunTimer:
    """Timer of a function that returns when it has finished. Clock and loop add about 0.1 us to each run."""

    def time_runs(warmups: int, runs: int) -> list[float]:
        clock = time.perf_counter_ns
        for _ in range(warmups):
            run()
        times_ms = []
        for _ in range(runs):
            start = clock()
            run()
            times_ms.append((clock() - start) / 1e6)
        return times_ms

    return time_runs


def _pin(cores: Sequence[int]) -> set[int]:
    """Pins the calling thread; returns the cores it had before."""
    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError(f"{platform.system()} cannot pin a program to cores; leave the option out")
    before = os.sched_getaffinity(0)
    if not set(cores) <= before:
        have = ", ".join(map(str, sorted(before)))
        raise DeviceError(f"cannot pin to cores {', '.join(map(str, cores))}; this program may use {have}")
    os.sched_setaffinity(0, cores)
    return before
