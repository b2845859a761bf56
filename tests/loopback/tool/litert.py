"""LiteRT's newer tool of the name benchmark_model: CompiledModel on the CPU, or a GPU or NPU that is the CPU in truth.

It knows other flags than TFLite's tool, prints each phase's statistics as that one does and a summary after them, and
writes a BenchmarkResult where it is told to. What the NPU needs is a dispatch library in the folder that is named.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ..faults import Fault
from . import op_profile
from .delegates import RunError, Session, start
from .flags import NAMES, Parameters
from .inputs import random_inputs
from .misfortune import Misfortune
from .output import STYLES, Log, Statistics, number, write
from .run import Files, _peak_kb

BASE = (
    "num_runs", "min_secs", "max_secs", "run_delay", "num_threads", "warmup_runs", "warmup_min_secs", "verbose",
    "report_peak_memory_footprint", "graph", "signature_to_run_for",
)  # fmt: skip
OWN = {
    "use_cpu": "true", "use_gpu": "false", "use_npu": "false", "dispatch_library_path": "",
    "compiler_plugin_library_path": "", "require_full_delegation": "false", "use_profiler": "false",
    "gpu_backend": "", "allow_fp16": "true", "result_file_path": "",
}  # fmt: skip
MESSAGES = {
    "LatencyMetrics": [
        ("avg_ms", "float"), ("min_ms", "float"), ("max_ms", "float"), ("stddev_ms", "float"), ("median_ms", "float"),
        ("p5_ms", "float"), ("p95_ms", "float"), ("init_ms", "float"), ("first_inference_ms", "float"),
        ("average_warm_up_ms", "float"),
    ],
    "MemoryMetrics": [("init_footprint_kb", "int64"), ("overall_footprint_kb", "int64"), ("peak_mem_mb", "float")],
    "MiscMetrics": [
        ("model_size_mb", "float"), ("num_runs", "int32"), ("num_warmup_runs", "int32"),
        ("model_throughput_in_mb_per_sec", "float"),
    ],
    "BenchmarkResult": [
        ("name", "string"), ("latency_metrics", "LatencyMetrics"), ("memory_metrics", "MemoryMetrics"),
        ("misc_metrics", "MiscMetrics"),
    ],
}  # fmt: skip
"""Fields in the order of their numbers, from 1."""


def benchmark_result() -> Any:
    """An empty BenchmarkResult, of the library's own classes."""
    file = descriptor_pb2.FileDescriptorProto(name="result.proto", package="tflite.tools.benchmark", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for index, (field, kind) in enumerate(fields, 1):
            one = message.field.add(name=field, number=index, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
            if kind in MESSAGES:
                one.type, one.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, kind
            else:
                one.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tflite.tools.benchmark.BenchmarkResult"))()


def main(argv: Sequence[str], files: Files, tree: Path, faults: Sequence[Fault]) -> int:
    """Runs the tool. Its output goes to descriptors 1 and 2."""
    log = Log(STYLES["2026"])
    misfortune = Misfortune(faults, tree, argv[0])
    code = misfortune.instead()
    if code is not None:
        return code
    log.info("STARTING!")
    try:
        _Run(_parse(argv[1:], log), log, tree / "loopback/state", files).run()
    except RunError as error:
        for line in str(error).splitlines():
            log.error(line)
        log.error("Benchmarking failed.")
        return 1
    return 0


def _parse(words: Sequence[str], log: Log) -> dict[str, str]:
    values = {name: str(NAMES[name].default) for name in BASE} | OWN
    unknown = []
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        if equals and name in values:
            values[name] = text
        else:
            unknown.append(word)
    if unknown:
        log.warn(f"Unconsumed cmdline flags: {' '.join(unknown)}")
    return values


class _Run:
    def __init__(self, values: Mapping[str, str], log: Log, state: Path, files: Files) -> None:
        self.values, self.log, self.state, self.files = values, log, state, files

    def _is(self, name: str) -> bool:
        return self.values[name].lower() in ("true", "1")

    def run(self) -> None:
        began_s, began_kb = time.perf_counter(), _peak_kb()
        self.log.info(f"[benchmark_litert_model.cc:201] Loading model from: {self.values['graph']}")
        model = self.files.read(self.values["graph"])
        session = self._compile(model)
        init_ms, init_kb = 1e3 * (time.perf_counter() - began_s), _peak_kb() - began_kb
        self.log.info(f"The input model file size (MB): {number(len(model) / 1e6)}")
        self.log.info(f"Initialized session in {number(init_ms)}ms.")
        warmup = self._phase(session, int(self.values["warmup_runs"]))
        runs = self._phase(session, int(self.values["num_runs"]))
        self._report(init_ms, warmup, runs)
        if self.values["result_file_path"]:
            self._save(len(model), init_ms, init_kb, _peak_kb() - began_kb, warmup, runs)
        if self._is("use_profiler"):
            self.log.info("[./litert/tools/benchmark_litert_model.h:179] ")
            kernels = op_profile.rows(model, session, int(self.values["num_threads"]), runs)
            by_time = sorted(kernels, key=lambda row: -row.mean_ms)
            for title, rows in (("Run Order", kernels), ("Top by Computation Time", by_time)):
                write(1, op_profile._table(self.log.style, title, rows).encode() + b"\n")

    def _compile(self, model: bytes) -> Session:
        if self._is("use_cpu") and self._is("require_full_delegation"):
            self.log.error("Requesting full delegation and CPU acceleration are incompatible.")
            os.abort()
        given = {"num_threads": int(self.values["num_threads"]), "use_xnnpack": True}
        parameters = Parameters({flag.name: flag.default for flag in NAMES.values()} | given, frozenset(given), ())
        quiet = Log(STYLES["2026"])
        quiet.info = lambda text: None  # type: ignore[method-assign]  # TFLite's tool's own words
        session = start(model, parameters, self.state, quiet)
        name = next((name for name in ("gpu", "npu") if self._is(f"use_{name}")), None)
        if name is None:
            taken, whole = sum(session.taken), len(session.taken)
            xnnpack = f"Replacing {taken} out of {whole} node(s) with delegate (TfLiteXNNPackDelegate) node"
            write(2, f"VERBOSE: {xnnpack}, yielding 1 partitions for subgraph 0.\n".encode())
            return session
        if name == "npu" and not self._has_dispatch_library():
            raise RunError(
                f"[litert_dispatch.cc:97] No dispatch library found in {self.values['dispatch_library_path']}"
            )
        refused = (self.state / f"{name}_refuses").read_text().split()
        if self._is("require_full_delegation") and set(refused) & set(session.kinds):
            raise RunError(
                "[compiled_model.cc:620] Some ops are not accelerated. Add kLiteRtHwAcceleratorCpu to the compilation "
                "config.\nFailed to compile model."
            )
        if name == "gpu":
            self.log.runtime("Initialized OpenCL-based API.")
        return session

    def _has_dispatch_library(self) -> bool:
        try:
            folder = os.open(
                self.values["dispatch_library_path"].lstrip("/"), os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.files.root
            )
        except OSError:
            return False
        names = os.listdir(folder)
        os.close(folder)
        return any(re.fullmatch(r"libLiteRtDispatch_\w+\.so", name) for name in names)

    def _phase(self, session: Session, least: int) -> Statistics:
        self.log.info(
            f"Running benchmark for at least {least} iterations and at least 0 seconds but terminate if exceeding 150 "
            "seconds."
        )
        samples_us = []
        for index, values in random_inputs(session.interpreter, np.random.default_rng()):
            session.interpreter.set_tensor(index, values)
        for _ in range(least):
            began_ns = time.perf_counter_ns()
            session.interpreter.invoke()
            samples_us.append((time.perf_counter_ns() - began_ns) // 1000)
        found = Statistics(samples_us)
        self.log.info(f"{found.line(percentiles=True)}\n")
        return found

    def _report(self, init_ms: float, warmup: Statistics, runs: Statistics) -> None:
        place = "[./litert/tools/benchmark_litert_model.h:"
        self.log.info(f"{place}81] \n========== BENCHMARK RESULTS ==========")
        self.log.info(f"{place}82] Model initialization: {init_ms:.2f} ms")
        self.log.info(f"{place}84] Warmup (first):       {warmup.first / 1e3:.2f} ms")
        self.log.info(f"{place}88] Inference (avg):      {runs.mean / 1e3:.2f} ms ({len(runs.samples_us)} runs)")
        if self._is("report_peak_memory_footprint"):
            self.log.info(f"{place}135] Peak memory:          {_peak_kb() / 1024:.2f} MB")

    def _save(
        self, size: int, init_ms: float, init_kb: int, overall_kb: int, warmup: Statistics, runs: Statistics
    ) -> None:
        result = benchmark_result()
        latency, memory, misc = result.latency_metrics, result.memory_metrics, result.misc_metrics
        latency.init_ms, latency.first_inference_ms = init_ms, warmup.first / 1e3
        latency.avg_ms, latency.min_ms, latency.max_ms = (
            value / 1e3 for value in (runs.mean, min(runs.samples_us), max(runs.samples_us))
        )
        latency.median_ms, latency.p5_ms, latency.p95_ms = (runs.percentile(p) / 1e3 for p in (50, 5, 95))
        memory.init_footprint_kb, memory.overall_footprint_kb = init_kb, overall_kb
        if self._is("report_peak_memory_footprint"):
            memory.peak_mem_mb = _peak_kb() / 1024
        misc.model_size_mb, misc.num_runs = size / 1e6, len(runs.samples_us)
        misc.num_warmup_runs = len(warmup.samples_us)
        path = self.values["result_file_path"].lstrip("/")
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=self.files.root)
        write(target, result.SerializeToString())
        os.close(target)
