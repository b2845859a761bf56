"""This computer's CPU through ONNX Runtime, float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.profiler.devices.in_process import Stopwatch, random_input, stopwatch
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.host_files import HostFiles

PROVIDER = "CPUExecutionProvider"


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime is not installed ({error}); pip install 'netlathe[onnxruntime]'") from error
    module: ModuleType = onnxruntime
    return module


class OnnxRuntimeDevice(HostFiles):
    """ONNX Runtime in this process, one session per loaded graph; inputs and outputs stay bound to the same memory.

    Raises DeviceError where onnxruntime is not installed.
    """

    file_format = "onnx"
    runtime_title = "ONNX Runtime"

    def __init__(self, *, threads: int = 1, batch: int = 1, cores: Sequence[int] = ()) -> None:
        self._ort: Any = _runtime()
        state = self._ort.capi.onnxruntime_pybind11_state
        self.refusals = (state.NotImplemented, state.InvalidGraph, state.InvalidArgument, state.Fail)
        super().__init__(threads, batch, cores)

    @cached_property
    def setup(self) -> Setup:
        return self._host_setup("onnxruntime", version("onnxruntime"), PROVIDER)

    def _build(self, graph: Graph) -> Stopwatch:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        session = self._ort.InferenceSession(write_onnx(graph), options, providers=[PROVIDER])
        binding = session.io_binding()
        for value in session.get_inputs():
            binding.bind_cpu_input(value.name, random_input(tuple(value.shape)))
        for value in session.get_outputs():
            place = self._ort.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32)
            binding.bind_ortvalue_output(value.name, place)
        return stopwatch(partial(session.run_with_iobinding, binding))
