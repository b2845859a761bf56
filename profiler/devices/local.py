"""This computer's CPU through LiteRT, as on a phone: XNNPACK, float32 or int8."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version

from ai_edge_litert.interpreter import Interpreter

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.forms.tflite import DTYPES, write_tflite
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import DType, Quantize
from netlathe.archspace.records import Setup
from netlathe.profiler.devices.host_files import HostFiles
from netlathe.profiler.devices.in_process import RunTimer, random_input, random_int8_input, run_timer
from netlathe.profiler.errors import DeviceError


class LocalDevice(HostFiles):
    """LiteRT in this process, one interpreter per loaded graph.

    A run is one `Interpreter.invoke`: 0.6 us for a graph without work, of which Python takes 0.2 us. `models` are
    .tflite files by graph key: they run in place of one that is written from the graph with random weights. `dtype` is
    float32, or int8: quantized from the input to the output. Raises DeviceError for any other.
    """

    file_format = "tflite"
    runtime_title = "LiteRT"

    def __init__(
        self,
        *,
        threads: int = 1,
        batch: int = 1,
        cores: Sequence[int] = (),
        models: Mapping[str, bytes] | None = None,
        dtype: str = "float32",
    ) -> None:
        if dtype == "float16":
            raise DeviceError(
                "local: LiteRT widens float16 weights as it loads a file, and computes in float32: profile in float32, "
                "which serves such files as well (over MobileNetV2, both take the same time)"
            )
        if dtype not in DTYPES:
            raise DeviceError(f"local: dtype must be {' or '.join(DTYPES)}, got {dtype!r}")
        super().__init__(threads, batch, cores)
        _announce()
        self.models = dict(models or {})
        self.dtype = dtype

    @cached_property
    def setup(self) -> Setup:
        return self._host_setup("litert", version("ai-edge-litert"), "xnnpack", self.dtype)

    def _build(self, graph: Graph) -> RunTimer:
        content = self.models.get(graph.key) or write_tflite(graph, dtype=self.dtype)
        interpreter = Interpreter(model_content=content, num_threads=self.threads)
        interpreter.allocate_tensors()
        integers = self._integer_inputs(graph)
        for index, (detail, shape) in enumerate(zip(interpreter.get_input_details(), graph.inputs, strict=True)):
            values = random_int8_input(shape) if index in integers else random_input(shape)
            interpreter.set_tensor(detail["index"], values)  # a ValueError for a given file of another dtype
        return run_timer(interpreter.invoke)

    def _integer_inputs(self, graph: Graph) -> set[int]:
        """The inputs that a file of the graph takes as int8: those that the graph has so, and in int8 all others but
        what is quantized by an op of its own."""
        given = {t for t in range(len(graph.inputs)) if graph.dtypes[t] == DType.INT8}
        if self.dtype != "int8":
            return given
        quantized = {node.inputs[0] for node in graph.nodes if isinstance(node.op, Quantize)}
        return given | {*range(len(graph.inputs))} - quantized


def _announce() -> None:
    """Lets LiteRT say which delegate it creates, which it does once per process, on standard error, and would do in the
    middle of a progress bar."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            Interpreter(model_content=write_tflite(_SMALLEST), num_threads=1).allocate_tensors()
        finally:
            os.dup2(saved, 2)
            os.close(saved)


_SMALLEST = ConvBlock(1, 1, 1, 1, kernel=1).graph()
