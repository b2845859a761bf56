"""One call of benchmark_model, from its command line to its exit code, in a process of its own."""

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..faults import Fault
from . import op_profile
from .delegates import RunError, Session, start
from .flags import Parameters, UsageError, parse, usage
from .inputs import random_inputs
from .misfortune import Misfortune
from .output import STYLES, Log, Statistics, number

FAILED = 1


@dataclass(frozen=True)
class Files:
    """The caller's view of files: descriptors of its / and of its working directory."""

    root: int
    folder: int

    def read(self, path: str) -> bytes:
        """A file's content. Raises OSError."""
        base, inside = (self.root, path.lstrip("/")) if path.startswith("/") else (self.folder, path)
        with open(os.open(inside, os.O_RDONLY | os.O_CLOEXEC, dir_fd=base), "rb") as file:
            return file.read()


def main(argv: Sequence[str], files: Files, tree: Path, faults: Sequence[Fault]) -> int:
    """Runs the tool. Its output goes to descriptors 1 and 2."""
    state = tree / "loopback/state"
    style = STYLES[(state / "tool_style").read_text().strip()]
    log = Log(style)
    misfortune = Misfortune(faults, tree, argv[0])
    code = misfortune.instead()
    if code is not None:
        return code
    log.info("STARTING!")
    if style.duplicates:
        log.warn("Duplicate flags: num_threads")
    try:
        parameters = parse(argv[1:], style)
        if parameters.unknown:
            log.warn(f"Unconsumed cmdline flags: {' '.join(parameters.unknown)}")
        return Benchmark(parameters, log, state, misfortune).run(files)
    except UsageError as error:
        if str(error):
            log.error(str(error))
        log.error(usage(argv[0]))
    except RunError as error:
        for line in str(error).splitlines():
            log.error(line)
    log.error("Benchmarking failed.")
    return FAILED


class Benchmark:
    """The phases of one call: load, initialize, warm up, run, report."""

    def __init__(self, parameters: Parameters, log: Log, state: Path, misfortune: Misfortune) -> None:
        self.parameters, self.log, self.state, self.misfortune = parameters, log, state, misfortune

    def run(self, files: Files) -> int:
        """Does it all; the exit code. Raises RunError."""
        if not self.parameters.text("graph"):
            raise RunError("Please specify the name of your TF Lite input file with --graph")
        self.parameters.log(self.log, self.log.style)
        began_kb, began_us = _peak_kb(), self._now_us()
        model = self._load(files)
        self.misfortune.at_start()
        session = start(model, self.parameters, self.state, self.log, self.misfortune.kinds)
        init_us, init_kb = self._now_us() - began_us, _peak_kb() - began_kb
        self.log.info(f"The input model file size (MB): {number(len(model) / 1e6)}")
        self.log.info(f"Initialized session in {number(init_us / 1e3)}ms.")
        warmup = self._phase(session, "warmup_runs", "warmup_min_secs")
        runs = self._phase(session, "num_runs", "min_secs", is_regular=True)
        self._report(init_us, warmup, runs, init_kb / 1024, (_peak_kb() - began_kb) / 1024)
        if self.parameters["enable_op_profiling"] and runs.samples_us:
            threads = max(1, int(self.parameters.number("num_threads")))
            operations = op_profile.rows(model, session, threads, runs)
            op_profile.report(self.log, session, operations, runs)
        return 0

    def _load(self, files: Files) -> bytes:
        path = self.parameters.text("graph")
        try:
            model = files.read(path)
        except OSError:
            raise RunError(
                f"Could not open '{path}'.\nThe model allocation is null/empty\nFailed to load model {path}"
            ) from None
        if model[4:8] != b"TFL3":
            found = model[4:8].decode("latin-1")
            raise RunError(
                f"Model provided has model identifier '{found}', should be 'TFL3'\nFailed to load model {path}"
            )
        self.log.info(f"Loaded model {path}")
        return model

    def _now_us(self) -> int:
        return time.perf_counter_ns() // 1000 + self.misfortune.clock_offset_us

    def _phase(self, session: Session, runs_flag: str, seconds_flag: str, *, is_regular: bool = False) -> Statistics:
        least, least_s = int(self.parameters.number(runs_flag)), self.parameters.number(seconds_flag)
        most_s = self.parameters.number("max_secs")
        self.log.info(
            f"Running benchmark for at least {least} iterations and at least {number(least_s)} seconds but terminate "
            f"if exceeding {number(most_s)} seconds."
        )
        if self.parameters["dry_run"] or (is_regular and self.misfortune.has("no_runs")):
            least, least_s = 0, -1.0
        samples_us = self._time(session, least, least_s, most_s, is_regular)
        line = Statistics(samples_us).line(percentiles=self.log.style.percentiles)
        if is_regular:
            self.misfortune.at_result(self.log, line)
        self.log.info(f"{line}\n")
        return Statistics(samples_us)

    def _time(self, session: Session, least: int, least_s: float, most_s: float, is_regular: bool) -> list[int]:
        samples_us: list[int] = []
        inputs = list(random_inputs(session.interpreter, np.random.default_rng()))
        now_us = self._now_us()
        least_end_us, most_end_us = now_us + int(least_s * 1e6), now_us + int(most_s * 1e6)
        while (len(samples_us) < least or now_us < least_end_us) and now_us <= most_end_us:
            for index, values in inputs:
                session.interpreter.set_tensor(index, values)
            began_us = self._now_us()
            session.interpreter.invoke()
            if is_regular and len(samples_us) == least // 2:
                self.misfortune.in_the_middle()
            self.misfortune.slow_down(began_us, self._now_us())
            samples_us.append(self._now_us() - began_us)
            if self.parameters.number("run_delay") > 0:
                time.sleep(self.parameters.number("run_delay"))
            now_us = self._now_us()
        return samples_us

    def _report(self, init_us: int, warmup: Statistics, runs: Statistics, init_mb: float, overall_mb: float) -> None:
        self.log.info(
            f"Inference timings in us: Init: {init_us}, First inference: {warmup.first}, "
            f"Warmup (avg): {number(warmup.mean)}, Inference (avg): {number(runs.mean)}"
        )
        self.log.info(
            "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the "
            "actual memory footprint of the model at runtime. Take the information at your discretion."
        )
        self.log.info(
            f"Memory footprint delta from the start of the tool (MB): init={number(init_mb)} "
            f"overall={number(overall_mb)}"
        )
        if self.parameters["report_peak_memory_footprint"]:
            self._report_peak()

    def _report_peak(self) -> None:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        _, resident, shared, *_ = (
            int(pages) * page_bytes >> 20 for pages in Path("/proc/self/statm").read_text().split()
        )
        peak = number(_peak_kb() / 1024)
        self.log.info(f"Overall peak memory footprint (MB) via periodic monitoring: {peak}")
        self.log.info("Memory status at the end of exeution:")
        self.log.info(f"- VmRSS              : {resident} MB")
        self.log.info(f"+ RssAnnon           : {resident - shared} MB")
        self.log.info(f"+ RssFile + RssShmem : {shared} MB")


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
