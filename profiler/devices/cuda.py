"""One NVIDIA GPU through PyTorch: channels last, BatchNorm folded, launched as CUDA graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.profiler.device import SUSTAINED
from netlathe.profiler.devices.host import machine_name, os_name
from netlathe.profiler.devices.in_process import InProcessDevice, RunTimer, random_input
from netlathe.profiler.errors import DeviceError

REPLAY_MS = 0.2
"""Length of one sample, to which the graph is repeated: launching it takes the CPU 10 us, which then is hidden."""

_MOST_REPEATS = 50


class CudaDevice(InProcessDevice):
    """PyTorch on the current CUDA device; a sample is the GPU's own time between two CUDA events.

    A graph that cannot be captured as a CUDA graph is refused, not timed in another way: such times would not
    compare. `dtype` is float16 or float32 (convolutions then use TF32, as PyTorch does by default). Raises DeviceError
    without a usable GPU.
    """

    def __init__(self, *, batch: int = 8, dtype: str = "float16") -> None:
        super().__init__()
        if not torch.cuda.is_available():
            raise DeviceError(
                f"PyTorch {torch.__version__} sees no CUDA GPU; check nvidia-smi, and that PyTorch is a CUDA build"
            )
        dtypes = {"float16": torch.float16, "float32": torch.float32}
        if dtype not in dtypes:
            raise DeviceError(f"cuda: dtype must be one of {', '.join(dtypes)}, got {dtype!r}")
        if batch < 1:
            raise DeviceError(f"cuda: batch must be at least 1, got {batch}")
        self.batch, self.dtype = batch, dtype
        self._dtype = dtypes[dtype]

    @cached_property
    def setup(self) -> Setup:
        details = {
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "launch": "cuda graph",
            "layout": "channels last",
        }
        return Setup(
            device=machine_name(), processor=torch.cuda.get_device_name(), os=os_name(), runtime="torch",
            runtime_version=torch.__version__, delegate="cudnn", dtype=self.dtype, batch=self.batch,
            details=(*details.items(), *((SUSTAINED,) if self.is_sustained else ())),
        )  # fmt: skip

    def _build(self, graph: Graph) -> RunTimer:
        module = folded(TorchGraph(graph)).to("cuda", self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = [self._input(shape) for shape in graph.inputs]
        try:
            # cuDNN times its algorithms for every new shape once, here; the captured graph then holds the fastest.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
                once = _capture(module, inputs, 1)
                repeats = math.ceil(REPLAY_MS / min(_replay_ms(once, 2, 3)))
                return _Replays(module, inputs, min(repeats, _MOST_REPEATS))
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def _input(self, shape: tuple[int, ...]) -> Tensor:
        """Random values for an NHWC shape: NCHW to torch, channels last in memory."""
        values = torch.from_numpy(random_input(shape)).to("cuda", self._dtype)
        return values.permute(0, 3, 1, 2) if len(shape) == 4 else values

    def _conditions(self) -> Mapping[str, float | str]:
        """Conditions of the computer, and gpu_frequency_mhz and gpu_temperature_c where nvidia-ml-py is installed."""
        found = dict(super()._conditions())
        try:
            found["gpu_frequency_mhz"] = float(torch.cuda.clock_rate())
            found["gpu_temperature_c"] = float(torch.cuda.temperature())
        except (ImportError, RuntimeError):
            pass
        return found


def folded(module: TorchGraph) -> TorchGraph:
    """The module for inference, BatchNorm folded into the convolution before it."""
    module.eval()
    for name, layer in module.layers.items():
        if isinstance(layer, nn.Sequential):
            conv, norm = layer
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            module.layers[name] = fuse_conv_bn_eval(conv, norm)
    return module


class _Replays:
    """A captured graph as a RunTimer; keeps alive what the captured graph reads."""

    def __init__(self, module: nn.Module, inputs: list[Tensor], repeats: int) -> None:
        self._repeats = repeats
        self._module, self._inputs = module, inputs
        self._graph = _capture(module, inputs, repeats)

    def __call__(self, warmups: int, runs: int) -> list[float]:
        return [ms / self._repeats for ms in _replay_ms(self._graph, warmups, runs)]


def _capture(module: nn.Module, inputs: list[Tensor], repeats: int) -> torch.cuda.CUDAGraph:
    """`repeats` passes as one CUDA graph, after warm-up on a side stream as capturing demands."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            module(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            module(*inputs)
    return graph


def _replay_ms(graph: torch.cuda.CUDAGraph, warmups: int, runs: int) -> list[float]:
    """The GPU's time for each replay; all are queued at once, so that the GPU never waits for the CPU."""
    events = [(_event(), _event()) for _ in range(runs)]
    for _ in range(warmups):
        graph.replay()
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
