"""benchmark_model, TFLite's own stopwatch: its command line out, its result or one clear error in.

The tool reads the clock in whole microseconds before and after each run, so that a run of 7.6 us is printed as 7 or 8.
That error has no bias, and the mean of many runs resolves less than 1 us; minimum, maximum and percentiles do not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from netlathe.profiler.benchmark_failures import raise_failure, tail
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.op_profile import OpTime, read_op_times

__all__ = ["BenchmarkOptions", "BenchmarkResult", "Delegate", "OpTime", "Statistics", "flags", "parse"]

Delegate = Literal["cpu", "gpu", "nnapi", "npu"]

Tool = Literal["tflite", "litert"]
"""TFLite's benchmark_model, or LiteRT's newer tool of the same name."""

TOOL_NAMES = {"gpu": "GPU", "nnapi": "NNAPI", "npu": "NPU"}
"""How the tool names a delegate that keeps a graph off the CPU."""

_ROUNDING = 1e-5
"""The tool prints averages with six digits."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Settings that are the same for all graphs of a setup. Raises DeviceError on values that make no sense."""

    threads: int = 1
    delegate: Delegate = "cpu"
    xnnpack: bool = True
    """On the CPU: XNNPACK's kernels, or else TFLite's own."""
    gpu_precision_loss: bool = True
    """On the GPU: half precision, as apps use it."""
    peak_memory: bool = False
    """Watch the memory meanwhile, in a thread that may disturb the times."""
    op_profile: bool = False
    """Time each operator, which slows down all of them."""
    tool: Tool = "tflite"
    require_full: bool = True
    """Whether a delegate other than the CPU's must take a graph whole."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise DeviceError(f"benchmark_model needs at least 1 thread, not {self.threads}")
        if self.delegate != "cpu" and self.delegate not in TOOL_NAMES:
            raise DeviceError(f"there is no delegate {self.delegate!r}; take cpu, gpu, nnapi or npu")


@dataclass(frozen=True)
class Statistics:
    """Statistics of some runs in a row. Percentiles are None where the tool is too old to print them (before late
    2024)."""

    count: int
    first_ms: float
    last_ms: float
    min_ms: float
    max_ms: float
    mean_ms: float
    std_ms: float
    p5_ms: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None

    @property
    def trimmed_mean_ms(self) -> float:
        """The mean without the fastest and the slowest run; of fewer than 3 runs the fastest.

        What disturbs a phone makes single runs much slower; and a mean, unlike a median, resolves less than 1 us. As
        the mean is printed with six digits, count x 0.0005 % of it is uncertain here, so the result is kept between
        the extremes.
        """
        if self.count < 3:
            return self.min_ms
        rest_ms = (self.mean_ms * self.count - self.min_ms - self.max_ms) / (self.count - 2)
        return min(max(rest_ms, self.min_ms), self.max_ms)


@dataclass(frozen=True)
class BenchmarkResult:
    """Measurements of one call of the tool; None for what it did not print."""

    runs: Statistics
    warmup: Statistics | None
    init_ms: float | None
    """Loading the graph and preparing the delegate."""
    first_inference_ms: float | None
    delegated: str
    """The tool's words on the delegate (on the CPU: XNNPACK): "all", "none", "part: 3 kernels", "unknown"."""
    delegated_share: float | None
    """The share of the graph's ops that the delegate executes; None where the tool does not tell."""
    gpu_api: str
    """API through which the GPU was driven, "OpenCL" or "OpenGL"; "unknown" where the tool does not tell, "" off the
    GPU."""
    model_mb: float | None
    init_memory_mb: float | None
    """Memory that loading took."""
    overall_memory_mb: float | None
    """Memory that everything took."""
    peak_memory_mb: float | None
    """Highest use of the whole process; needs `peak_memory`."""
    op_times: tuple[OpTime, ...]
    """Needs `op_profile`."""

    @property
    def delegate_kernels(self) -> int | None:
        """Uninterrupted stretches of ops that the delegate executes; None where the tool does not tell."""
        if self.delegated in ("all", "none"):
            return int(self.delegated == "all")
        digits = "".join(filter(str.isdigit, self.delegated))
        return int(digits) if digits else None


def flags(options: BenchmarkOptions) -> tuple[str, ...]:
    """The words of the command line that are common to all graphs; they hold no blanks.

    A delegate other than the CPU's must take a graph whole, unless the options leave the CPU the rest: the tool then
    fails rather than time the CPU.
    """
    words = [f"--num_threads={options.threads}"]
    if options.delegate == "cpu":
        # Always said: left out, builds differ in what they do, and say nothing of what they did.
        words += [f"--use_xnnpack={_word(options.xnnpack)}"]
    elif options.delegate == "gpu":
        words += ["--use_gpu=true", f"--gpu_precision_loss_allowed={_word(options.gpu_precision_loss)}"]
    else:
        # NNAPI has a CPU implementation of its own, which is not what anyone asks NNAPI for.
        words += ["--use_nnapi=true", "--disable_nnapi_cpu=true"]
    if options.delegate != "cpu" and options.require_full:
        words += ["--require_full_delegation=true"]
    if options.peak_memory:
        words += ["--report_peak_memory_footprint=true"]
    if options.op_profile:
        words += ["--enable_op_profiling=true"]
    return tuple(words)


def parse(output: str, code: int, options: BenchmarkOptions) -> BenchmarkResult:
    """Result of the tool, from its standard output and error in one text, and its exit code.

    Raises DeviceError where no graph can be timed with this tool on this phone, UnsupportedGraphError where the runtime
    refuses this graph or a delegate does not take it whole, and MeasurementError where it crashed, hung, or printed
    anything else than the whole of a plausible result.
    """
    wanted = TOOL_NAMES.get(options.delegate)
    raise_failure(output, code, wanted)
    lines = output_lines(output)
    try:
        warmup, runs = both_statistics(lines)
        timings = _timings(lines)
        _check_end(timings, warmup, runs)
        op_times = read_op_times(output) if options.op_profile else ()
    except MeasurementError as error:
        raise MeasurementError(f"{error}\n{tail(output)}") from None
    name = wanted or "XNNPACK"
    delegated = _delegated(output, name) if wanted or options.xnnpack else "none"
    if wanted and (options.require_full or delegated in ("none", "unknown")) and delegated != "all":
        raise UnsupportedGraphError(_not_whole(wanted, delegated) + "\n" + tail(output))
    first_us = timings.get("First inference")
    return BenchmarkResult(
        runs=runs,
        warmup=warmup,
        init_ms=timings["Init"] / 1e3 if "Init" in timings else number_in(output, r"Initialized session in {}ms"),
        first_inference_ms=first_us / 1e3 if warmup and first_us is not None else None,
        delegated=delegated,
        delegated_share=_delegated_share(output, name, delegated),
        gpu_api=_gpu_api(output) if options.delegate == "gpu" else "",
        model_mb=number_in(output, r"The input model file size \(MB\): {}"),
        init_memory_mb=number_in(output, _FOOTPRINT + r"init={}"),
        overall_memory_mb=number_in(output, _FOOTPRINT + r"init=\S+ overall={}"),
        peak_memory_mb=number_in(output, r"Overall peak memory footprint \(MB\) via periodic monitoring: {}"),
        op_times=op_times,
    )


_N = r"([0-9]{1,18}(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,2})?)"
_FOOTPRINT = r"(?:Peak memory footprint|Memory footprint delta from the start of the tool) \(MB\): "

_STATISTICS = re.compile(
    rf"count=([0-9]{{1,18}})(?: curr={_N}(\(all same\))?| first={_N} curr={_N} min={_N} max={_N} avg={_N} std={_N})?"
    rf"(?: p5={_N} median={_N} p95={_N})?\s*"
)
"""`count=0` without runs, `count=1 curr=7`, `count=5 curr=7(all same)`, or everything; in us."""


def _word(value: bool) -> str:
    return "true" if value else "false"


def output_lines(output: str) -> list[str]:
    """Without the levels that some tools put before what they say."""
    return [line.rstrip("\r").removeprefix("INFO: ") for line in output.split("\n")]


def both_statistics(lines: list[str]) -> tuple[Statistics | None, Statistics]:
    """Statistics of the warm-up, which the tool prints first, and of the runs. Raises MeasurementError."""
    # Lines of an op profile that hold such statistics too start with other words.
    found = [line for line in lines if line.startswith("count=")]
    if len(found) != 2:
        raise MeasurementError(f"benchmark_model printed {len(found)} lines of statistics, not 2 (warm-up and runs)")
    warmup, runs = (_statistics(line) for line in found)
    if runs is None:
        raise MeasurementError("benchmark_model timed no run (count=0)")
    return warmup, runs


def _statistics(line: str) -> Statistics | None:
    """None for count=0. Raises MeasurementError on a line that is not whole, or whose numbers contradict each other."""
    match = _STATISTICS.fullmatch(line)
    if match is None:
        raise MeasurementError(f"benchmark_model printed statistics that cannot be read: {line[:200]!r}")
    count = int(match[1])
    only_us, same, values_us, percentiles_us = match[2], match[3], match.groups()[3:9], match.groups()[9:]
    if count == 0 and only_us is None and values_us[0] is None:
        return None
    if only_us is not None and bool(same) == (count > 1):
        first = last = low = high = mean = float(only_us)
        std = 0.0
    elif values_us[0] is not None:
        first, last, low, high, mean, std = (float(value) for value in values_us)
    else:
        raise MeasurementError(f"benchmark_model printed statistics that are not whole: {line[:200]!r}")
    p5, median, p95 = (None if value is None else float(value) for value in percentiles_us)
    ascending = [low, *(value for value in (p5, median, p95) if value is not None), high]
    plausible = (
        count > 0
        and math.isfinite(high)
        and ascending == sorted(ascending)
        and low <= min(first, last) <= max(first, last) <= high
        and low * (1 - _ROUNDING) <= mean <= high * (1 + _ROUNDING)
        and std <= high - low
    )
    if not plausible:
        raise MeasurementError(f"benchmark_model printed statistics that contradict each other: {line[:200]!r}")
    mean = min(max(mean, low), high)
    if mean == 0:
        raise MeasurementError("the graph is faster than benchmark_model's clock can tell (1 us)")
    in_ms = [None if value is None else value / 1e3 for value in (p5, median, p95)]
    return Statistics(count, first / 1e3, last / 1e3, low / 1e3, high / 1e3, mean / 1e3, std / 1e3, *in_ms)


def _timings(lines: list[str]) -> dict[str, float]:
    """The last line of every result, `Inference timings in us: Init: 3899, First inference: 2121, ...`; in us."""
    found = [line for line in lines if re.match(r"(Average i|I)nference timings in us: ", line)]
    if not found:
        raise MeasurementError("benchmark_model's output ends before its summary (Inference timings in us)")
    pairs = re.findall(rf"([A-Z][a-z ]*?)(?: \(avg\))?: {_N}(?=,|\s*$)", found[-1].partition("us: ")[2])
    return {name: float(value) for name, value in pairs}


def _check_end(timings: dict[str, float], warmup: Statistics | None, runs: Statistics) -> None:
    """The summary repeats both averages: they agree only if nothing was cut off or mixed up."""
    for name, statistics in (("Inference", runs), ("Warmup", warmup)):
        if statistics and not math.isclose(timings.get(name, 0.0), 1e3 * statistics.mean_ms, rel_tol=_ROUNDING):
            raise MeasurementError(
                f"benchmark_model's summary and statistics differ: {name} {timings.get(name)} us against an average of "
                f"{1e3 * statistics.mean_ms:g} us"
            )


def _delegated(output: str, name: str) -> str:
    """Fate of the graph with the delegate. "Replacing 31 out of 31 node(s)" does not count: a driver may refuse
    afterwards."""
    applied = re.search(rf"pplied {name} delegate, and the model graph will be (completely|partially) executed", output)
    if f"Though {name} delegate is explicitly applied, the model graph will not be executed" in output:
        return "none"
    if applied is None:
        return "unknown"
    if applied[1] == "completely":
        return "all"
    kernels = re.match(r".* w/ ([0-9]+) delegate kernels", output[applied.end() :])
    return f"part: {kernels[1]} kernels" if kernels else "part"


def _delegated_share(output: str, name: str, delegated: str) -> float | None:
    """Share of ops that the delegate takes. Only talkative builds count those of a part, as "Replacing 28 out of 31
    node(s) with delegate"; the GPU's delegate says it where it leaves some."""
    if delegated in ("all", "none"):
        return float(delegated == "all")
    left = re.search(rf"([0-9]{{1,9}}) operations will run on the {name}, and the remaining ([0-9]{{1,9}}) ", output)
    if delegated != "unknown" and left and int(left[1]):
        return int(left[1]) / (int(left[1]) + int(left[2]))
    line = rf"Replacing ([0-9]{{1,9}}) out of ([0-9]{{1,9}}) node\(s\) with delegate \(TfLite{name}"
    counted = re.search(line, output, re.IGNORECASE)
    if delegated == "unknown" or counted is None or not 0 < int(counted[1]) < int(counted[2]):
        return None
    return int(counted[1]) / int(counted[2])


def _gpu_api(output: str) -> str:
    """The GPU delegate tries OpenCL and falls back to OpenGL, with other kernels and other times."""
    found = set(re.findall(r"Initialized (Open[CG]L)-based API", output))
    return "+".join(sorted(found)) or "unknown"


def _not_whole(name: str, delegated: str) -> str:
    said = {"none": "executes nothing of it", "unknown": "is not mentioned, so the CPU may have executed it"}
    return f"the {name} delegate does not take the whole graph: it {said.get(delegated, f'takes {delegated}')}"


def number_in(output: str, pattern: str) -> float | None:
    """The number that stands at {} in the pattern; None where the output has no such place."""
    match = re.search(pattern.replace("{}", _N), output)
    return float(match[1]) if match else None
