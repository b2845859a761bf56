"""This computer's CPU through ONNX Runtime, float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import CHANNEL_BLOCK, fusion_of, is_kernel
from netlathe.archspace.records import Setup
from netlathe.profiler.devices.host_files import HostFiles
from netlathe.profiler.devices.in_process import RunTimer, random_input, run_timer
from netlathe.profiler.errors import DeviceError

PROVIDER = "CPUExecutionProvider"
_OUTPUT_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
"""Types of results that a float32 graph may have, an arg max's among them."""


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime is not installed ({error}); pip install 'netlathe[onnxruntime]'") from error
    module: ModuleType = onnxruntime
    return module


class OnnxRuntimeDevice(HostFiles):
    """ONNX Runtime in this process, one session per loaded graph; inputs and outputs stay bound to the same memory.

    A single kernel is timed as inside of a network: between convolutions, ONNX Runtime keeps images in a layout of
    blocks of channels, and does not change it for each of them. Blocks of several kernels are timed with these changes.

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
        setup = self._host_setup("onnxruntime", version("onnxruntime"), PROVIDER)
        layout = ((CHANNEL_BLOCK, str(self._block)),) if self._block > 1 else ()
        return replace(setup, details=(*setup.details, ("kernels", "in the layout inside networks"), *layout))

    def _build(self, graph: Graph) -> RunTimer:
        session = self._session(graph)
        binding = session.io_binding()
        for value in session.get_inputs():
            binding.bind_cpu_input(value.name, random_input(tuple(value.shape)))
        for value in session.get_outputs():
            place = self._ort.OrtValue.ortvalue_from_shape_and_type(value.shape, _OUTPUT_TYPES[value.type])
            binding.bind_ortvalue_output(value.name, place)
        return run_timer(partial(session.run_with_iobinding, binding))

    def _session(self, graph: Graph) -> Any:
        """A session of the graph, of a single kernel without the changes of layout at its ends."""
        content = write_onnx(graph)
        if not is_kernel(graph, fusion_of(self.setup)):
            return self._session_of(content, self._options())
        whole, optimized = self._optimize(content)
        inner = without_end_reorders(optimized, self._block)
        if inner is None:
            return whole
        options = self._options()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it has been done
        return self._session_of(inner, options)

    def _optimize(self, content: bytes) -> tuple[Any, bytes]:
        """A session, and the model as it has optimized it."""
        with TemporaryDirectory() as folder:
            options, path = self._options(), Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            return self._session_of(content, options), path.read_bytes()

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only; a warning says that an optimized model is of this computer alone
        return options

    def _session_of(self, content: bytes, options: Any) -> Any:
        return self._ort.InferenceSession(content, options, providers=[PROVIDER])

    @cached_property
    def _block(self) -> int:
        """Channels of a block, to which a convolution's weights are filled up; 1 where there is no such layout."""
        import onnx

        _, optimized = self._optimize(write_onnx(ConvBlock(16, 1, 4, 4, kernel=1).graph()))
        graph = onnx.load_from_string(optimized).graph
        weights = {value.name: value for value in graph.initializer}
        return next(int(weights[node.input[1]].dims[0]) for node in graph.node if node.op_type.endswith("Conv"))


def without_end_reorders(content: bytes, block: int) -> bytes | None:
    """The model as ONNX Runtime has optimized it, without the nodes that bring its inputs into the blocked layout of
    its convolutions, of blocks of so many channels, and their results out of it: between the kernels of a network there
    are none. None where it has no such nodes."""
    import onnx

    model = onnx.load_from_string(content)
    ends = [*_reorders(model.graph, "ReorderInput"), *_reorders(model.graph, "ReorderOutput")]
    if not ends:
        return None
    for node in ends:
        outer, inner = node.input[0], node.output[0]
        places = model.graph.input if node.op_type == "ReorderInput" else model.graph.output
        if node.op_type == "ReorderOutput":
            outer, inner = inner, outer
        place = next(value for value in places if value.name == outer)
        place.name = inner
        dimension = place.type.tensor_type.shape.dim[1]
        dimension.dim_value = -(-dimension.dim_value // block) * block
        model.graph.node.remove(node)
    return bytes(model.SerializeToString())


def _reorders(graph: Any, kind: str) -> list[Any]:
    """The nodes of that kind at the ends of a graph whose outer tensor nothing else takes or gives."""
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    uses = Counter(name for node in graph.node for name in node.input)
    found = [node for node in graph.node if node.op_type == kind]
    if kind == "ReorderInput":
        return [node for node in found if node.input[0] in inputs and uses[node.input[0]] == 1]
    return [node for node in found if node.output[0] in outputs and not uses[node.input[0]] > 1]
