"""Times of kernels in LiteRT on this computer, by the profiler of its C library, which its Python interface lacks.

The library's functions are found by name in the installed package. Where a release calls one otherwise, there is no
table; so that even a crash does no harm, this runs in a process of its own (fresh_run.py).
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import replace
from pathlib import Path

from netlathe.archspace.forms.model_file import ModelFile
from netlathe.profiler.errors import MeasurementError
from netlathe.profiler.op_profile import OpTime, read_op_times
from netlathe.profiler.random_inputs import random_values

_LIBRARIES = ("libLiteRt.so", "libLiteRt.dylib", "LiteRt.dll")
_CPU, _WRITE = 1, 1  # an accelerator, and a way to lock a buffer
_TYPE_BYTES = 1024  # more than a tensor's type takes, which is only passed on
_MARK = "kernels of LiteRT"
_DELEGATE = "Delegate/"


def litert_kernel_times(file: ModelFile, threads: int, runs: int, warmups: int) -> tuple[tuple[OpTime, ...], float]:
    """The time of each kernel of a .tflite file that is stored in the sizes it is run with, and of one inference in
    those runs in ms. Raises MeasurementError where the installed LiteRT has no such profiler, or refuses."""
    model = _Profiled(file, threads)
    for _ in range(warmups):
        model.run()
    model.start()
    began_s = time.perf_counter()
    for _ in range(runs):
        model.run()
    run_ms = 1e3 * (time.perf_counter() - began_s) / runs
    found = read_op_times(f"{_MARK}\n{model.summary()}", _MARK)
    return tuple(_per_inference(one, runs, run_ms) for one in found), run_ms


def _per_inference(one: OpTime, runs: int, run_ms: float) -> OpTime:
    """The summary counts the calls of all runs, and shares of the kernels' sum."""
    calls = max(1, round(one.times_called / runs))
    kind = one.node_type.removeprefix(_DELEGATE)
    return replace(one, node_type=kind, times_called=calls, share=one.mean_ms * calls / run_ms)


class _Profiled:
    """A model in CompiledModel on the CPU. What it holds is freed with the process."""

    def __init__(self, file: ModelFile, threads: int) -> None:
        self._library = _library()
        environment = self._make("LiteRtCreateEnvironment", c_int(0), None)
        model = self._make("LiteRtCreateModelFromFile", environment, c_char_p(str(file.path).encode()))
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, c_int(_CPU))
        self._payloads: list[ctypes.Array[ctypes.c_char]] = []
        self._add_options(options, "runtime_options_string", "enable_profiling = true\n")
        self._add_options(options, "xnnpack", f"num_threads = {threads}\n")
        self._model = self._make("LiteRtCreateCompiledModel", environment, model, options)
        signature = self._make("LiteRtGetModelSignature", model, c_size_t(0))
        self._inputs = self._buffers("Input", environment, signature, file)
        self._outputs = self._buffers("Output", environment, signature)
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._model)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise MeasurementError(f"this LiteRT has no function {name}") from None
        function.restype = c_int
        status = function(*arguments)
        if status:
            raise MeasurementError(f"LiteRT's {name} fails with status {status}")

    def _make(self, name: str, *arguments: object) -> c_void_p:
        """Value that the function puts into its last argument."""
        found = c_void_p()
        self._call(name, *arguments, byref(found))
        return found

    def _add_options(self, options: c_void_p, identifier: str, text: str) -> None:
        payload = ctypes.create_string_buffer(text.encode())
        self._payloads.append(payload)  # stays ours: it is to be freed by nobody else
        added = self._make("LiteRtCreateOpaqueOptions", c_char_p(identifier.encode()), payload, _KEEP)
        self._call("LiteRtAddOpaqueOptions", options, added)

    def _buffers(
        self, kind: str, environment: c_void_p, signature: c_void_p, file: ModelFile | None = None
    ) -> ctypes.Array[c_void_p]:
        count = c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", signature, byref(count))
        found = []
        for index in range(count.value):
            tensor = self._make(f"LiteRtGetSignature{kind}TensorByIndex", signature, c_size_t(index))
            type_ = ctypes.create_string_buffer(_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", tensor, type_)
            needs = self._make(
                f"LiteRtGetCompiledModel{kind}BufferRequirements", self._model, c_size_t(0), c_size_t(index)
            )
            found.append(self._make("LiteRtCreateManagedTensorBufferFromRequirements", environment, type_, needs))
            if file is not None:
                self._fill(found[-1], self._name(tensor), file)
        return (c_void_p * len(found))(*found)

    def _name(self, tensor: c_void_p) -> str:
        return ctypes.string_at(self._make("LiteRtGetTensorName", tensor).value or 0).decode(errors="replace")

    def _fill(self, buffer: c_void_p, name: str, file: ModelFile) -> None:
        values = next((random_values(one.shape, one.dtype) for one in file.inputs if one.name == name), None)
        size = c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, byref(size))
        if values is None or values.nbytes != size.value:
            raise MeasurementError(f"LiteRT has an input {name!r} of {size.value} bytes, which the file has not")
        place = c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, byref(place), c_int(_WRITE))
        ctypes.memmove(place, values.tobytes(), size.value)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        ends: Sequence[object] = (
            c_size_t(len(self._inputs)),
            self._inputs,
            c_size_t(len(self._outputs)),
            self._outputs,
        )
        self._call("LiteRtRunCompiledModel", self._model, c_size_t(0), *ends)

    def start(self) -> None:
        self._call("LiteRtStartProfiler", self._profiler)

    def summary(self) -> str:
        self._call("LiteRtStopProfiler", self._profiler)
        text = self._make("LiteRtGetProfileSummary", self._profiler, self._model)
        return ctypes.string_at(text.value or 0).decode(errors="replace")


_KEEP = ctypes.CFUNCTYPE(None, c_void_p)(lambda payload: None)


def _library() -> ctypes.CDLL:
    package = importlib.util.find_spec("ai_edge_litert")
    folders = package.submodule_search_locations if package else None
    for path in (Path(folder) / name for folder in folders or () for name in _LIBRARIES):
        if path.is_file():
            return ctypes.CDLL(str(path))
    raise MeasurementError("the installed LiteRT has no C library")
