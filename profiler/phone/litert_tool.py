"""LiteRT's newer benchmark tool (litert/tools:benchmark_model): its command line out, its result or one clear error in.

It runs models through CompiledModel, on the CPU, the GPU or an NPU. It prints each phase's statistics as TFLite's tool
does, other words after them, and writes a BenchmarkResult, a protocol buffer, where it is told to.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping

from netlathe.profiler.benchmark_failures import raise_failure, tail
from netlathe.profiler.benchmark_tool import (
    TOOL_NAMES,
    BenchmarkOptions,
    BenchmarkResult,
    Statistics,
    both_statistics,
    number_in,
    output_lines,
)
from netlathe.profiler.errors import MeasurementError, UnsupportedGraphError
from netlathe.profiler.op_profile import read_op_times
from netlathe.profiler.phone.workspace import DIRECTORY

LIBRARIES = "lib"
"""Where the accelerators' libraries lie in the phone's directory."""

RESULT_FILE = f"{DIRECTORY}/result.pb"
"""Measure.sh adds what is there to the output, as bytes in hexadecimal behind RESULT_MARK."""

RESULT_MARK = "RESULT_FILE:"

_SUMMARY = "BENCHMARK RESULTS"
_ROUNDING = 1e-5  # of six digits, and of 32-bit floats
_LATENCY, _MEMORY, _MISC = 2, 3, 4
_FIELDS = {
    (_LATENCY, 1): "avg_ms", (_LATENCY, 8): "init_ms", (_LATENCY, 9): "first_inference_ms",
    (_MEMORY, 1): "init_footprint_kb", (_MEMORY, 2): "overall_footprint_kb", (_MEMORY, 3): "peak_mem_mb",
    (_MISC, 1): "model_size_mb", (_MISC, 2): "num_runs",
}  # fmt: skip
"""Fields that are read of tflite.tools.benchmark.BenchmarkResult: (message, field) -> its name there."""


def flags(options: BenchmarkOptions) -> tuple[str, ...]:
    """The words of the command line that are common to all graphs. An accelerator must take a graph whole: the tool
    says nothing of how much it took of one."""
    words = [f"--num_threads={options.threads}", f"--result_file_path={RESULT_FILE}"]
    if options.delegate == "cpu":
        words += ["--use_cpu=true"]
    else:
        # With the CPU among the accelerators, the tool refuses to demand the whole.
        words += ["--use_cpu=false", f"--use_{options.delegate}=true", "--require_full_delegation=true"]
    if options.delegate == "gpu":
        words += [f"--allow_fp16={'true' if options.gpu_precision_loss else 'false'}"]
    if options.delegate == "npu":
        place = f"{DIRECTORY}/{LIBRARIES}"
        words += [f"--dispatch_library_path={place}", f"--compiler_plugin_library_path={place}"]
    if options.peak_memory:
        words += ["--report_peak_memory_footprint=true"]
    if options.op_profile:
        words += ["--use_profiler=true"]
    return tuple(words)


def parse(output: str, code: int, options: BenchmarkOptions) -> BenchmarkResult:
    """Measurements of the tool, from its output with the result file's bytes, and its exit code.

    Raises DeviceError where no graph can be timed so on this phone, UnsupportedGraphError where the runtime refuses
    this graph or an accelerator does not take it whole, and MeasurementError for anything but a whole result.
    """
    wanted = TOOL_NAMES.get(options.delegate)
    raise_failure(output, code, wanted, is_litert=True)
    said, _, hexadecimal = output.partition(RESULT_MARK)
    try:
        warmup, runs = both_statistics(output_lines(said))
        told = read_result(bytes.fromhex(hexadecimal)) if hexadecimal.strip() else _summary(said)
        _check_end(told, runs)
        op_times = read_op_times(said, _SUMMARY) if options.op_profile else ()
    except (MeasurementError, ValueError) as error:
        raise MeasurementError(f"{error}\n{tail(said)}") from None
    delegated, share = _taken(said, "XNNPack")
    if wanted:
        if share:  # the CPU ran some of it, whatever was asked for
            raise UnsupportedGraphError(f"the {wanted} does not take the whole graph: XNNPACK takes part\n{tail(said)}")
        delegated, share = "all", 1.0
    return BenchmarkResult(
        runs=runs, warmup=warmup,
        init_ms=told.get("init_ms") or number_in(said, r"Initialized session in {}ms"),
        first_inference_ms=warmup.first_ms if warmup else None,
        delegated=delegated, delegated_share=share, gpu_api=_gpu_api(said) if options.delegate == "gpu" else "",
        model_mb=told.get("model_size_mb"), init_memory_mb=_mb(told.get("init_footprint_kb")),
        overall_memory_mb=_mb(told.get("overall_footprint_kb")), peak_memory_mb=told.get("peak_mem_mb"),
        op_times=op_times,
    )  # fmt: skip


def _mb(kb: float | None) -> float | None:
    return None if kb is None else kb / 1024


def _summary(said: str) -> dict[str, float]:
    """The result as the tool prints it, in hundredths of milliseconds, where the phone could not show the file."""
    found = re.search(r"Inference \(avg\): +([0-9.]+) ms \(([0-9]+) runs\)", said)
    if _SUMMARY not in said or found is None:
        raise MeasurementError("LiteRT's benchmark tool printed no summary, so its output is not whole")
    told = {"printed_avg_ms": float(found[1]), "num_runs": float(found[2])}
    peak = re.search(r"Peak memory: +([0-9.]+) MB", said)
    return {**told, "peak_mem_mb": float(peak[1])} if peak else told


def _check_end(told: Mapping[str, float], runs: Statistics) -> None:
    """Raises MeasurementError unless the result says what the statistics say."""
    near = "printed_avg_ms" in told and abs(told["printed_avg_ms"] - runs.mean_ms) < 0.0051 + 1e-5 * runs.mean_ms
    same = math.isclose(told.get("avg_ms", 0.0), runs.mean_ms, rel_tol=_ROUNDING)
    if not (near or same) or told.get("num_runs") != runs.count:
        raise MeasurementError(
            f"the result of LiteRT's benchmark tool and its statistics differ: {told} against {runs.count} runs of "
            f"{runs.mean_ms:g} ms"
        )


def _taken(said: str, delegate: str) -> tuple[str, float | None]:
    """How much a delegate takes, in words and as a share of the ops; talkative builds say so."""
    line = rf"Replacing ([0-9]{{1,9}}) out of ([0-9]{{1,9}}) node\(s\) with delegate \(TfLite{delegate}"
    counts = [(int(taken), int(all_)) for taken, all_ in re.findall(line, said)]
    if not counts:
        return "unknown", None
    taken, whole = sum(one for one, _ in counts), max(one for _, one in counts)
    return ("all", 1.0) if taken >= whole else (f"part: {len(counts)} kernels", taken / whole)


def _gpu_api(said: str) -> str:
    found = set(re.findall(r"Initialized (Open[CG]L|WebGPU|Vulkan)-based API", said))
    return "+".join(sorted(found)) or "unknown"


def read_result(content: bytes) -> dict[str, float]:
    """The numbers of a BenchmarkResult, by their names there. Raises MeasurementError for what is no whole one."""
    found: dict[str, float] = {}
    try:
        for message, value in _fields(content):
            if message in (_LATENCY, _MEMORY, _MISC) and isinstance(value, bytes):
                for number, one in _fields(value):
                    name = _FIELDS.get((message, number))
                    if name and isinstance(one, int | float):
                        found[name] = one
    except (IndexError, struct.error, ValueError) as error:
        raise MeasurementError(f"the result file of LiteRT's benchmark tool is not whole ({error})") from None
    if "avg_ms" not in found or not all(math.isfinite(one) and one >= 0 for one in found.values()):
        raise MeasurementError(f"the result file of LiteRT's benchmark tool holds no sound result: {found}")
    return found


def _fields(content: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Field numbers and values of one message in protocol buffers' wire format."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(content, place)
            yield key >> 3, value
        elif wire == 2:
            length, place = _varint(content, place)
            if place + length > len(content):
                raise ValueError("it is cut off")
            yield key >> 3, content[place : place + length]
            place += length
        elif wire in (1, 5):
            kind, size = ("<d", 8) if wire == 1 else ("<f", 4)
            yield key >> 3, struct.unpack_from(kind, content, place)[0]
            place += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number without an end")
