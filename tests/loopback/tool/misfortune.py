"""The faults of one call, at the moments when they happen."""

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..faults import Fault
from ..state import cap_frequency, write_thermal
from .delegates import RunError
from .output import Log, write

# It prints count lines too, and then times of its own.
WRONG_TOOL = """\
INFO: The input model file size (MB): 0.05214
INFO: Initialized session in 3.214ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=401 first=1870 curr=1231 min=1190 max=1870 avg=1244.71 std=51 p5=1199 median=1239 p95=1302

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=806 first=1242 curr=1229 min=1188 max=1711 avg=1238.46 std=37 p5=1197 median=1233 p95=1290

INFO: [./litert/tools/benchmark_litert_model.h:81]
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 3.21 ms
INFO: [./litert/tools/benchmark_litert_model.h:84] Warmup (first):       1.87 ms
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      1.24 ms (806 runs)
"""


class Misfortune:
    """What goes wrong in one call; nothing, most of the time."""

    def __init__(self, faults: Sequence[Fault], tree: Path, program: str) -> None:
        self._faults = {fault.kind: fault.arguments for fault in faults}
        self._tree, self._program = tree, program
        self.clock_offset_us = 0

    @property
    def kinds(self) -> frozenset[str]:
        """Of all faults of this call."""
        return frozenset(self._faults)

    def has(self, kind: str) -> bool:
        return kind in self._faults

    def _argument(self, kind: str, name: str, default: Any) -> Any:
        return self._faults[kind].get(name, default)

    def instead(self) -> int | None:
        """Output of something else than this tool, and its exit code; None: the tool runs."""
        if self.has("not_executable"):
            write(2, f"/system/bin/sh: {self._program}: can't execute: Permission denied\n".encode())
            return 126
        if self.has("wrong_tool"):
            write(1, WRONG_TOOL.encode())
            return 0
        if self.has("garbage"):
            write(1, random.Random(len(self._program)).randbytes(2000))
            return 0
        return None

    def at_start(self) -> None:
        """After the model is loaded. Raises RunError."""
        if self.has("fails"):
            raise RunError(self._argument("fails", "message", "Failed to apply GPU delegate."))

    def in_the_middle(self) -> None:
        """In the middle of the runs."""
        if self.has("heat"):
            write_thermal(self._tree, **self._faults["heat"])
        if self.has("cap"):
            cap_frequency(self._tree, **self._faults["cap"])
        if self.has("clock_jump"):
            self.clock_offset_us += round(self._argument("clock_jump", "seconds", 3600.0) * 1e6)
        if self.has("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.has("abort"):
            os.kill(os.getpid(), signal.SIGABRT)
        if self.has("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        while self.has("hang"):
            time.sleep(3600)

    def slow_down(self, began_us: int, ended_us: int) -> None:
        """Lets a run last longer, at full load as a hot core would; or idle, as a processor that is not this one's."""
        if self.has("slow"):
            end_ns = time.perf_counter_ns() + (ended_us - began_us) * (self._argument("slow", "factor", 3.0) - 1) * 1000
            if self._argument("slow", "idle", False):
                time.sleep(max(0.0, (end_ns - time.perf_counter_ns()) / 1e9))
            while time.perf_counter_ns() < end_ns:
                pass

    def at_result(self, log: Log, line: str) -> None:
        """Before the line of the runs."""
        if self.has("truncated"):
            write(1, f"{'INFO: ' if log.style.prefix else ''}{line[: len(line) // 2]}".encode())
            os._exit(0)
