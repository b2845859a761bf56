"""Runs a model file in this process, and says what starting it took: `python -m netlathe.profiler.fresh_run`.

A file that crashes its runtime ends only this process, and the peak of the process's memory is that of this one file.
Standard input says as JSON what to run, the last line of standard output what came of it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from netlathe.archspace.forms.model_file import ModelFile, ModelInput
from netlathe.archspace.forms.tflite_outline import with_shapes
from netlathe.profiler.file_runtimes import OPENERS, PROFILED_RUNS, PROFILED_WARMUPS, LiteRtFile, OpenFile, node_times
from netlathe.profiler.litert_profile import litert_kernel_times
from netlathe.profiler.op_profile import OpTime

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """From the request to the answer."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a runtime prints is no part of the answer
    request = json.loads(sys.stdin.read())
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    inputs = tuple(ModelInput(name, dtype, tuple(sizes)) for name, dtype, sizes in request["inputs"])
    file = ModelFile(Path(request["path"]), request["format"], inputs, resized=frozenset(request["resized"]))
    refusals = OPENERS[file.format].refusals()
    try:
        found = _run(file, request["threads"], op_profile=request["op_profile"])
    except refusals as error:
        found = {"refused": str(error) or repr(error)}
    except Exception as error:
        found = {"failed": str(error) or repr(error)}
    with os.fdopen(answer, "w") as stream:
        stream.write(f"\n{json.dumps(found)}\n")


def _run(file: ModelFile, threads: int, *, op_profile: bool) -> Mapping[str, Any]:
    before_mb = _begin_peak_mb()
    began_s = time.perf_counter()
    opened: OpenFile = OPENERS[file.format](file, threads)
    loaded_s = time.perf_counter()
    opened.fill()
    filled_s = time.perf_counter()
    opened.run()
    ran_s = time.perf_counter()
    found: dict[str, Any] = {
        "init_ms": 1e3 * (loaded_s - began_s),
        "first_inference_ms": 1e3 * (ran_s - filled_s),
        "peak_memory_mb": max(0.0, _peak_mb() - before_mb),
        "delegated": opened.delegated(),
    }
    if op_profile and file.format == "onnx":
        ops, found["op_runs_ms"], found["delegated"] = node_times(file, threads)
        found["op_times"] = [vars(one) for one in ops]
    elif op_profile:
        kernels, found["op_runs_ms"] = _kernel_times(file, threads)
        found["op_times"] = [vars(one) for one in kernels]
    return found


def _kernel_times(file: ModelFile, threads: int) -> tuple[Sequence[OpTime], float]:
    """Opens a copy with its sizes written in: only the interpreter can be told others."""
    with tempfile.TemporaryDirectory() as folder:
        if file.resized:
            path = Path(folder) / "resized.tflite"
            output_shapes = LiteRtFile(file, threads).output_shapes()
            path.write_bytes(with_shapes(file.path.read_bytes(), file, output_shapes))
            file = replace(file, path=path)
        return litert_kernel_times(file, threads, PROFILED_RUNS, PROFILED_WARMUPS)


def _begin_peak_mb() -> float:
    """Memory that the process holds now; its peak counts from now on, where the system can forget the one so far."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return _peak_mb()
    return _status_mb("VmRSS") or _peak_mb()


def _peak_mb() -> float:
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 2**20


def _status_mb(name: str) -> float | None:
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    main()
