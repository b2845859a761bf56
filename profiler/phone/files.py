"""Model files on a phone, and the program that runs them: what is sent, and what starts tell."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

from netlathe.archspace.forms.model_file import ModelFile
from netlathe.profiler.benchmark_tool import BenchmarkOptions, BenchmarkResult
from netlathe.profiler.device import Observation, Visit
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.phone.provision import Binary

MOST_BYTES = 2**31 - 1

PROFILED_MS = 10_000.0
"""About so long a file is watched for the times of its kernels."""

NNAPI_REMARK = (
    "NNAPI is deprecated since Android 15, and newer phones may have no driver behind it; apps use the GPU there "
    "(--delegate gpu), or the NPU through LiteRT (--delegate npu)"
)


def options_for(binary: Binary, options: BenchmarkOptions) -> BenchmarkOptions:
    """The options for this program. Raises DeviceError where it has no such delegate."""
    is_litert = binary.kind == "benchmark_litert_model"
    if options.delegate == "npu" and not is_litert:
        raise DeviceError(
            f"{binary.path}: TFLite's benchmark_model has no NPU; pass LiteRT's newer benchmark_model "
            "(//litert/tools:benchmark_model) with --benchmark-binary, the NPU's libraries beside it"
        )
    if is_litert and (options.delegate == "nnapi" or not options.xnnpack):
        lacks = "NNAPI" if options.delegate == "nnapi" else "way without XNNPACK"
        raise DeviceError(f"{binary.path}: LiteRT's newer benchmark_model has no {lacks}; take TFLite's")
    return dataclasses.replace(options, tool="litert" if is_litert else "tflite")


def libraries_of(binary: Binary, options: BenchmarkOptions) -> dict[str, bytes]:
    """Shared libraries beside LiteRT's tool, through which it reaches the GPU or NPU. Raises DeviceError."""
    if options.tool != "litert" or options.delegate == "cpu":
        return {}
    try:
        return {path.name: path.read_bytes() for path in sorted(binary.path.parent.glob("*.so"))}
    except OSError as error:
        raise DeviceError(f"{binary.path.parent}: a library beside the tool cannot be read ({error})") from error


def hash_of(libraries: Mapping[str, bytes]) -> str:
    """12 hex digits of all names and contents; "" of none."""
    digest = hashlib.sha256()
    for name, content in libraries.items():
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()[:12] if libraries else ""


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
    """Observation of a start; of a delegate that takes a part without saying how much, the share is unknown."""
    name = {"cpu": "XNNPACK", "nnapi": "NNAPI", "npu": "NPU"}.get(options.delegate, f"GPU ({result.gpu_api})")
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
