"""Model files on a phone: what is sent of them, and what their starts tell."""

from __future__ import annotations

import dataclasses

from netlathe.archspace.forms.model_file import ModelFile
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult
from netlathe.profiler.devices.base import Observation, Visit
from netlathe.profiler.errors import MeasurementError, UnsupportedGraphError

MOST_BYTES = 2**31 - 1

PROFILED_MS = 10_000.0
"""About so long a file is watched for the times of its kernels."""

NNAPI_REMARK = (
    "NNAPI is deprecated since Android 15, and newer phones may have no driver behind it; --delegate gpu is what apps "
    "use there"
)


def read_for_phone(file: ModelFile) -> bytes:
    """The file's content, in the sizes that it is run with. Raises UnsupportedGraphError for what no phone runs,
    MeasurementError where it cannot be read."""
    from netlathe.archspace.forms.tflite_outline import with_shapes

    if file.format != "tflite":
        raise UnsupportedGraphError(f"a phone runs .tflite files, not .{file.format} ones")
    try:
        if file.path.stat().st_size > MOST_BYTES:
            raise UnsupportedGraphError("the file has more than 2 GB, which benchmark_model does not load")
        return with_shapes(file.path.read_bytes(), file)
    except OSError as error:
        raise MeasurementError(f"{file.path}: cannot be read ({error})") from error


def observation(result: BenchmarkResult, options: BenchmarkOptions) -> Observation:
    """What a start told; of a delegate that takes a part without saying how much, the share is unknown."""
    name = {"cpu": "XNNPACK", "nnapi": "NNAPI"}.get(options.delegate, f"GPU ({result.gpu_api})")
    is_told = result.delegated != "unknown" and (options.delegate != "cpu" or options.xnnpack)
    return Observation(
        init_ms=result.init_ms, first_inference_ms=result.first_inference_ms, peak_memory_mb=result.peak_memory_mb,
        peak_memory_of="all of benchmark_model's process" if result.peak_memory_mb is not None else "",
        delegated={name: result.delegated_share} if is_told else {},
    )  # fmt: skip


def profile_visit(key: str, start: Observation) -> Visit:
    """As many runs as fit, from one to twenty, after a quarter as many that do not count."""
    runs = max(1, min(20, int(PROFILED_MS / (start.first_inference_ms or PROFILED_MS))))
    return Visit(key, runs, max(1, runs // 4))


def with_kernels(start: Observation, result: BenchmarkResult) -> Observation:
    """The same with the kernels of runs in which each was timed."""
    return dataclasses.replace(start, op_times=result.op_times, op_runs_ms=result.runs.mean_ms)
