"""One start of a model file in a process of its own: what starting costs, and whether it is safe to run at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from netlathe.archspace.forms.model_file import ModelFile
from netlathe.profiler.benchmark_failures import tail
from netlathe.profiler.device import Observation
from netlathe.profiler.errors import MeasurementError, UnsupportedGraphError
from netlathe.profiler.op_profile import OpTime

TIMEOUT_S = 600.0

PEAK_OF = "a process of its own, over what it held before it loaded the file"


def start_file(
    file: ModelFile, runtime: str, *, threads: int, cores: Sequence[int] = (), op_profile: bool = False
) -> Observation:
    """Observation of a fresh process that loads the file and runs it once, or some times more for an `op_profile`.

    `runtime` is how messages call it. Raises UnsupportedGraphError where the runtime refuses the file,
    MeasurementError where it crashes, hangs or runs out of memory.
    """
    request = {
        "path": str(file.path.resolve()), "format": file.format, "threads": threads, "cores": list(cores),
        "inputs": [(one.name, one.dtype, one.shape) for one in file.inputs], "op_profile": op_profile,
        "resized": sorted(file.resized),
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "netlathe.profiler.fresh_run"]  # whatever lies in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S,
            check=False, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{runtime} has not run it once within {TIMEOUT_S / 60:.0f} minutes") from None
    if done.returncode:
        raise MeasurementError(f"{runtime} {_end(done.returncode)} on this file\n{tail(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "refused" in found:
        raise UnsupportedGraphError(f"{runtime} does not run this file: {found['refused']}{_remedy(file, found)}")
    if "failed" in found:
        raise MeasurementError(f"{runtime} failed to run this file: {found['failed']}")
    ops = tuple(OpTime(**one) for one in found.pop("op_times", ()))
    return Observation(**found, op_times=ops, peak_memory_of=PEAK_OF)


def _end(code: int) -> str:
    """How the process ended, as the middle of a sentence."""
    if code == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


def _remedy(file: ModelFile, found: dict[str, Any]) -> str:
    named = [op for op in file.custom_ops if op.split(".")[-1] in found["refused"]]
    if not named:
        return ""
    return (
        f"; {', '.join(named)} is a custom op, which only a runtime has that is built with it: "
        + ("pass a benchmark_model that has it with --benchmark-binary, on a phone" if file.format == "tflite" else
           "replace it, or export the model without it")
    )  # fmt: skip
