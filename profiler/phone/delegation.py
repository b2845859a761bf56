"""Delegate that executes blocks inside the runtime: asked of benchmark_model itself, at the start and of every run.

A flag is a wish: a build may lack XNNPACK, XNNPACK may not take a type of numbers, and the GPU's OpenCL may give way to
OpenGL, each with exit code 0 and a time that looks like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from netlathe.archspace.forms.tflite import write_tflite
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult
from netlathe.profiler.device import Timing, Visit
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.phone.conditions import Conditions
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.prepared import PreparedPhone
from netlathe.profiler.phone.rounds import PROBE, PhoneSession, RoundReader
from netlathe.profiler.protocol import ANCHORS

PROBES = ANCHORS[:2]
"""Blocks that probe the delegate: an MBConv, for it has all that blocks have, and a convolution, which a delegate
takes that takes anything."""

SURE_SDK = 26
"""API level of Android from which on TFLite's builds are sure to run: they use what earlier ones lack, as strtod_l,
and fail to be linked there."""

TRIES = 3
"""Attempts to run the probes: a program may be killed for reasons of its own, and a cable may be pulled."""


@dataclass(frozen=True)
class Delegation:
    """Delegate that executes a setup's blocks."""

    delegate: str
    """xnnpack, gpu or nnapi where it does; "none" for TFLite's own kernels; "unknown" where the tool does not say."""
    delegated: str
    """Share of the probes that it executes: "all", "part", "none" or "unknown"."""
    gpu_api: str = ""
    """OpenCL or OpenGL, "unknown" where the tool does not say; "" off the GPU."""

    @property
    def remark(self) -> str:
        """Remark on what a person may not expect; "" as a rule. For the CPU, where XNNPACK was asked for."""
        if self.gpu_api not in ("", "OpenCL"):
            return f"the GPU is driven through {self.gpu_api} here, not OpenCL: other kernels, and another setup"
        if self.delegate == "none":
            return "XNNPACK executes nothing with this benchmark_model: what is timed is TFLite's own kernels"
        if self.delegate == "unknown":
            return "this benchmark_model does not say whether XNNPACK executes anything; take the official one to know"
        return ""

    def check(self, result: BenchmarkResult) -> None:
        """Raises UnsupportedGraphError where something else ran a graph than runs the setup's, MeasurementError where
        the GPU's other API did: drivers fail now and then."""
        if result.gpu_api != self.gpu_api:
            raise MeasurementError(
                f"the GPU delegate ran this graph through {result.gpu_api}, and this setup's are run through "
                f"{self.gpu_api}"
            )
        if self.delegate in ("gpu", "nnapi", "npu"):  # the tool fails unless they take it whole
            return
        found = _cpu_delegate(result)
        if found != self.delegate:
            raise UnsupportedGraphError(
                f"XNNPACK executes {_SHARES[found]} of this graph, where for this setup it executes "
                f"{_SHARES[self.delegate]}; --no-xnnpack leaves it out for all graphs"
            )


_SHARES = {"xnnpack": "something", "none": "nothing", "unknown": "an unknown part"}


def find_delegation(
    phone: PreparedPhone,
    options: BenchmarkOptions,
    dtype: str,
    start: Callable[[RoundReader, Sequence[Sequence[Visit]], float], PhoneSession],
) -> Delegation:
    """Times two small blocks with the very flags of all others, and reads who executed them. `start` makes a session of
    these rounds, at this time.

    Raises DeviceError where benchmark_model cannot run on this phone, or runs neither of them there."""
    models = {block.graph().key: write_tflite(block.graph(), dtype=dtype) for block in PROBES}
    reader = RoundReader(options, PROBE, Conditions())
    errors: dict[str, ProfilerError] = {}
    for _ in range(TRIES):
        tools, free_kb = phone.description.tools, phone.description.data_free_kb
        phone.retry(partial(phone.workspace.put_models, models, tools, free_kb))
        open_keys = [
            key
            for key in models
            if key not in reader.results and not isinstance(errors.get(key), UnsupportedGraphError)
        ]
        if open_keys:
            visits = [Visit(key, 1, 0) for key in open_keys]
            errors |= _failures(start(reader, [visits], time.time()), phone)
    if not reader.results:
        reason = _runs_nothing(phone.address, options, list(errors.values()))
        raise DeviceError(reason + (_if_old(phone.description) if errors else ""))
    return _found(options, [reader.results[key] for key in models if key in reader.results])


def _failures(session: PhoneSession, phone: PreparedPhone) -> dict[str, ProfilerError]:
    """Makes the visits; errors of single graphs, by key."""
    try:
        timings = [event for event in session.run(phone.mask) if isinstance(event, Timing)]
    except DeviceError as error:
        if phone.address in str(error):
            raise
        # What is wrong with the tool names no phone.
        hint = _if_old(phone.description) if "cannot run on this phone" in str(error) else ""
        raise DeviceError(f"{phone.address}: {error}{hint}") from error
    return {timing.key: timing.outcome for timing in timings if isinstance(timing.outcome, ProfilerError)}


def _if_old(phone: PhoneDescription) -> str:
    """Remedy where Android may be too old for the tool; "" where it is not."""
    if phone.sdk is None or phone.sdk >= SURE_SDK:
        return ""
    return (
        f"\nThis phone has Android {phone.release} (API {phone.sdk}), and TFLite's builds of recent years may need "
        f"Android 8 (API {SURE_SDK}): build the benchmark_model of an older release for it, and pass it with "
        "--benchmark-binary"
    )


def _runs_nothing(address: str, options: BenchmarkOptions, errors: list[ProfilerError]) -> str:
    if not errors:
        return f"{address}: the link breaks before a block has run; check the cable"
    asked = "" if options.delegate == "cpu" else f" with --delegate {options.delegate}"
    return f"{address}: benchmark_model runs not even a single convolution on this phone{asked}: {errors[-1]}"


def _found(options: BenchmarkOptions, results: list[BenchmarkResult]) -> Delegation:
    shares = {result.delegated.partition(":")[0] for result in results}
    delegated = shares.pop() if len(shares) == 1 else "part"
    if options.delegate != "cpu":
        # Where two differ, blocks are more like the first.
        return Delegation(options.delegate, delegated, results[0].gpu_api)
    delegates = {_cpu_delegate(result) for result in results}
    return Delegation("xnnpack" if "xnnpack" in delegates else delegates.pop(), delegated)


def _cpu_delegate(result: BenchmarkResult) -> str:
    return result.delegated if result.delegated in ("none", "unknown") else "xnnpack"
