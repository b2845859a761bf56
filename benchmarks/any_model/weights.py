"""Share of the .onnx files in a folder whose weights are read so that every form computes what the file does.

Networks with random weights leave much out of what they compute: offsets of 0, factors of 1 or of 0.000001, images that
vanish before the end. So before a file is run and read, arrays of zeros get random values of -0.5 to 0.5, those of
another value throughout 0.5 to 1.5, and kernels are scaled to a variance of 1 or of 2 over the fan-in: that of the two
by which the results depend less on rounding, as ONNX Runtime with and without its optimisations tells. A file whose
results are no numbers then, or depend on rounding by more than 0.00001, is taken as it is. Each form's largest
difference from ONNX Runtime's results of the file itself, over all of its outputs, is told in shares of the largest
result, and of what another image changes in them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.forms.onnx import read_onnx, read_onnx_weights, write_onnx
from netlathe.archspace.forms.structure import nchw
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_tflite_weights
from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.cli.console import Terminal

TOLERANCE = 1e-4
"""Largest difference, in either kind of share, of what counts as the same."""

_GAINS = (1.0, 2.0)
_ROUNDING = 1e-5

Array = NDArray[Any]


def _by_torch(graph: Graph, weights: Weights, images: Array) -> list[Array]:
    module = TorchGraph(graph)
    load_weights(module, weights)
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(images))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def _by_onnx(graph: Graph, weights: Weights, images: Array) -> list[Array]:
    return _run_onnx(write_onnx(graph, weights), images)


def _run_onnx(content: bytes, images: Array, *, optimised: bool = True) -> list[Array]:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: images}))


def _by_tflite(graph: Graph, weights: Weights, images: Array) -> list[Array]:
    return _run_tflite(write_tflite(graph, weights), graph, images)


def _run_tflite(content: bytes, graph: Graph, images: Array) -> list[Array]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _last(images, graph.inputs[0]))
    interpreter.invoke()
    found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in found]


def _last(images: Array, shape: tuple[int, ...]) -> Array:
    """Images with their channels last, where that is what the graph takes."""
    return images.transpose(0, 2, 3, 1) if len(shape) == 4 and images.shape == nchw(shape) else images


def _by_foreign_tflite(graph: Graph, weights: Weights, images: Array) -> list[Array]:
    """By a .tflite file that does not carry its graph, read again."""
    content = pack(dataclasses.replace(unpack(write_tflite(graph, weights)), metadata={}), "foreign")
    again, same_weights, _ = read_tflite_weights(content)
    return _by_torch(again, same_weights, images)


Run = Callable[[Graph, Weights, Array], list[Array]]

_FORMS: dict[str, Run] = {
    "torch": _by_torch,
    ".onnx": _by_onnx,
    ".tflite": _by_tflite,
    ".tflite read again": _by_foreign_tflite,
}


class _Difference(NamedTuple):
    """Largest difference, in shares of the largest result and of what another image changes."""

    of_result: float
    of_change: float

    def __str__(self) -> str:
        return f"{self.of_result:.1e} / {self.of_change:.1e}"


class _Compared(NamedTuple):
    """A file's differences by form, or why a form has none."""

    name: str
    differences: dict[str, _Difference | str]
    why: str = ""
    """Why the file's weights are not read."""

    def agrees(self, form: str) -> tuple[bool, bool]:
        """Whether a form agrees, by either kind of share."""
        found = self.differences.get(form)
        return (False, False) if not isinstance(found, _Difference) else (found[0] <= TOLERANCE, found[1] <= TOLERANCE)


def report(folder: Path | None, terminal: Terminal) -> None:
    """Tells it of each .onnx file and of all of them. Raises NetlatheError without a folder."""
    if folder is None:
        raise NetlatheError("--models: name the folder of the .onnx files to read")
    rows = []
    for path in sorted(folder.glob("*.onnx")):
        row = _compare(path)
        rows.append(row)
        told = ", ".join(f"{form} {found!s:.150}" for form, found in row.differences.items())
        terminal.say(f"  {path.stem}: {row.why or told}")
    terminal.say(f"{len(rows)} files; within {TOLERANCE:g} of the largest result / of what another image changes:")
    for form in _FORMS:
        of_result, of_change = (sum(kind) for kind in zip(*(row.agrees(form) for row in rows), strict=True))
        terminal.say(f"  {form}: {of_result} / {of_change}")


class _Case(NamedTuple):
    """A file's content, what it takes and gives, and what another image changes in each output."""

    content: bytes
    images: Array
    expected: list[Array]
    scales: list[float]


def _case(path: Path) -> _Case:
    model = onnx.load(path)
    shape = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    images, others = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    cases, roundings = [], []
    for content in (*(_varied(onnx.load(path), gain) for gain in _GAINS), model.SerializeToString()):
        expected = _run_onnx(content, images)
        scales = [float(np.abs(a - b).max()) for a, b in zip(expected, _run_onnx(content, others), strict=True)]
        cases.append(_Case(content, images, expected, scales))
        roundings.append(_largest(_run_onnx(content, images, optimised=False), expected, scales))
        if len(cases) == len(_GAINS) and min(roundings) < _ROUNDING:
            break
    return cases[int(np.argmin(roundings))]


def _compare(path: Path) -> _Compared:
    content, images, expected, scales = _case(path)
    try:
        graph, weights, _ = read_onnx_weights(content)
    except NetlatheError as error:
        return _Compared(path.stem, {}, str(error))
    if graph != read_onnx(path):
        return _Compared(path.stem, {}, "another graph than without weights")

    sizes = [float(np.abs(y).max()) for y in expected]

    def difference(run: Run) -> _Difference | str:
        try:
            found = run(graph, weights, images)
        except NetlatheError as error:
            return str(error)
        return _Difference(_largest(found, expected, sizes), _largest(found, expected, scales))

    differences = {form: difference(run) for form, run in _FORMS.items()}
    return _Compared(path.stem, differences)


def _largest(found: list[Array], expected: list[Array], scales: list[float]) -> float:
    """Infinite for what is no number."""
    shares = [
        float(np.abs(y.reshape(-1) - wanted.reshape(-1)).max()) / scale
        for y, wanted, scale in zip(found, expected, scales, strict=True)
    ]
    return math.inf if any(map(math.isnan, shares)) else max(shares)


def _varied(model: ModelProto, gain: float) -> bytes:
    """With random values in arrays that hold one value throughout, and kernels of this variance times the fan-in."""
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        if (values == values.reshape(-1)[0]).all():
            values = rng.uniform(0.5, 1.5, values.shape) - float(not values.any())
        elif values.ndim == 4:
            values = values * (math.sqrt(gain / math.prod(values.shape[1:])) / values.std())
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())
