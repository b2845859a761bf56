"""Model files in the runtimes of this computer, each opened, filled with random inputs and run in the same three steps
wherever that is done: in a process of its own, and among the graphs of a device."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.profiler.op_profile import OpTime
from netlathe.profiler.random_inputs import random_values

PROFILED_RUNS, PROFILED_WARMUPS = 20, 5


class OpenFile(Protocol):
    """A model file that a runtime has loaded and made ready."""

    @staticmethod
    def refusals() -> tuple[type[Exception], ...]:
        """Errors that the runtime, which this imports, raises when it does not execute a file at all."""

    def fill(self) -> None:
        """Puts random values into all inputs."""

    def run(self) -> object:
        """One inference."""

    def delegated(self) -> Mapping[str, float]:
        """The share of the ops that each delegate or provider executes."""


class LiteRtFile:
    """A .tflite file in LiteRT. Raises one of its `refusals` where LiteRT does not take it."""

    @staticmethod
    def refusals() -> tuple[type[Exception], ...]:
        import ai_edge_litert.interpreter  # noqa: F401

        return ValueError, RuntimeError

    def __init__(self, file: ModelFile, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(file.path), num_threads=threads)
        for detail, one in zip(self._interpreter.get_input_details(), file.inputs, strict=True):
            if tuple(detail["shape"]) != one.shape:
                self._interpreter.resize_tensor_input(detail["index"], one.shape)
        self._interpreter.allocate_tensors()

    def run(self) -> object:
        return self._interpreter.invoke()

    def output_shapes(self) -> list[tuple[int, ...]]:
        """In the sizes that it is run with."""
        return [tuple(map(int, detail["shape"])) for detail in self._interpreter.get_output_details()]

    def fill(self) -> None:
        for detail in self._interpreter.get_input_details():
            self._interpreter.set_tensor(detail["index"], random_values(detail["shape"], detail["dtype"]))

    def delegated(self) -> Mapping[str, float]:
        """Ops that no output needs any more are those that a delegate's node has replaced: LiteRT keeps them in its
        list, with the nodes behind all of them."""
        details = self._interpreter._get_ops_details()
        own = [detail for detail in details if detail["op_name"] != "DELEGATE"]
        makers = {int(tensor): detail for detail in details for tensor in detail["outputs"]}
        needed = [int(output["index"]) for output in self._interpreter.get_output_details()]
        used: set[int] = set()
        while needed:
            maker = makers.get(needed.pop())
            if maker is not None and maker["index"] not in used:
                used.add(maker["index"])
                needed += [int(tensor) for tensor in maker["inputs"]]
        if len(own) == len(details) or not own:
            return {"XNNPACK": 0.0}
        return {"XNNPACK": sum(detail["index"] not in used for detail in own) / len(own)}


class OnnxRuntimeFile:
    """An .onnx file in ONNX Runtime, its inputs and outputs bound to memory. Raises one of its `refusals` where ONNX
    Runtime does not take it."""

    PROVIDER = "CPUExecutionProvider"

    @staticmethod
    def refusals() -> tuple[type[Exception], ...]:
        import onnxruntime

        state = onnxruntime.capi.onnxruntime_pybind11_state
        return (
            state.NotImplemented, state.InvalidGraph, state.InvalidArgument, state.Fail, state.InvalidProtobuf,
            state.NoSuchFile, state.RuntimeException, ValueError,
        )  # fmt: skip

    def __init__(self, file: ModelFile, threads: int, *, profile: str = "") -> None:
        """`profile` is the beginning of a path, where there is to be a profile of the nodes."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what fails is raised
        options.enable_profiling, options.profile_file_prefix = bool(profile), profile or "unused"
        self._inputs = file.inputs
        self.session = onnxruntime.InferenceSession(str(file.path), options, providers=[self.PROVIDER])

    def fill(self) -> None:
        binding = self.session.io_binding()
        for one in self._inputs:
            binding.bind_cpu_input(one.name, random_values(one.shape, one.dtype))
        for value in self.session.get_outputs():
            binding.bind_output(value.name, "cpu")
        self._binding = binding

    def run(self) -> object:
        return self.session.run_with_iobinding(self._binding)

    def delegated(self) -> Mapping[str, float]:
        """All on the one provider that it is opened with."""
        return {self.PROVIDER: 1.0}


OPENERS: Mapping[FileFormat, type[LiteRtFile] | type[OnnxRuntimeFile]] = {"tflite": LiteRtFile, "onnx": OnnxRuntimeFile}


def node_times(file: ModelFile, threads: int) -> tuple[list[OpTime], float, Mapping[str, float]]:
    """Kernels that ONNX Runtime's own profile tells of an .onnx file: the time of each node, of one inference in those
    runs in ms, and the share of nodes by provider."""
    with tempfile.TemporaryDirectory() as folder:
        opened = OnnxRuntimeFile(file, threads, profile=str(Path(folder) / "profile"))
        opened.fill()
        for _ in range(PROFILED_WARMUPS + PROFILED_RUNS):
            opened.run()
        events = json.loads(Path(opened.session.end_profiling()).read_text(encoding="utf-8"))
    return read_node_times(events, PROFILED_RUNS)


def read_node_times(events: Sequence[Mapping[str, Any]], runs: int) -> tuple[list[OpTime], float, Mapping[str, float]]:
    """The same of the last so many runs in a profile's events: means over the calmer half of them, so that the nodes'
    times are of the same runs as the whole's, and no disturbance is taken for a node's work."""
    found: list[tuple[float, list[Mapping[str, Any]]]] = []
    nodes: list[Mapping[str, Any]] = []
    for event in events:  # a run's nodes stand before the run
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.append(event)
        elif event["name"] == "model_run":
            found.append((event["dur"] / 1e3, nodes))
            nodes = []
    calm = sorted(found[-runs:], key=lambda run: run[0])[: max(1, runs // 2)]
    whole_ms = statistics.fmean(ms for ms, _ in calm)
    times_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
    providers: dict[tuple[str, str], str] = {}
    for event in (event for _, nodes in calm for event in nodes):
        node = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
        times_ms[node].append(event["dur"] / 1e3)
        providers[node] = event["args"].get("provider", "unknown")
    ops = [_op_time(*node, times, len(calm), whole_ms) for node, times in times_ms.items()]
    counts = Counter(providers.values())
    return ops, whole_ms, {name: count / len(providers) for name, count in counts.items()}


def _op_time(kind: str, name: str, times_ms: Sequence[float], runs: int, whole_ms: float) -> OpTime:
    calls = max(1, round(len(times_ms) / runs))  # per inference: a node in a loop runs several times
    return OpTime(kind, name, statistics.fmean(times_ms), sum(times_ms) / runs / whole_ms, calls, 0.0)
