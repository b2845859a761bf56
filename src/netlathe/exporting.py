"""A trained network as files for the device, and the proof that each of them still classifies as well."""

from __future__ import annotations

import importlib.util
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import write_whole
from netlathe.outputs import RUN_FILES, Output, check_outputs
from netlathe.runs.files import NETWORK, NETWORK_INT8, NETWORK_ONNX, compressed_file, load_network
from netlathe.words import percent_within

if TYPE_CHECKING:
    from netlathe.archspace.forms.interface import Interface
    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.training import Compute, ImageData, ImageSplit

Format = Literal["tflite", "onnx"]
Dtype = Literal["float32", "int8"]
FloatArray = NDArray[np.float32]
Classifier = Callable[[FloatArray], FloatArray]
"""One image (1, C, H, W), normalized -> scores (1, classes)."""

CALIBRATION_IMAGES = 160
ALLOWED_LOSS: dict[Dtype, float] = {"float32": 0.005, "int8": 0.03}
"""Tolerated difference of a file's accuracy from PyTorch's; beyond, it comes with a warning."""
_NO_ONNXRUNTIME = "onnxruntime is not installed; pip install 'netlathe[onnxruntime]'"


@dataclass(frozen=True)
class Exported:
    """A file, and how well it does on the test images."""

    path: Path
    format: Format
    dtype: Dtype
    bytes: int
    accuracy: float | None
    """Accuracy in 0..1; None where no runtime is installed to judge it."""
    warning: str | None
    """A loss of accuracy, or why there is none to tell."""


def form_of(path: Path, asked: Format | None) -> Format:
    """The format to write: what is asked for, or what the file's ending says. Raises FormatError when they contradict
    each other, or when neither tells."""
    endings: dict[str, Format] = {".tflite": "tflite", ".onnx": "onnx"}
    by_ending = endings.get(path.suffix)
    if asked and by_ending and asked != by_ending:
        raise FormatError(f"{path}: the file's ending says {by_ending}, --format says {asked}")
    form = asked or by_ending
    if form is None:
        raise FormatError(f"{path}: is this to be a .tflite or an .onnx? Say so with --format")
    return form


@dataclass(frozen=True)
class ExportReport:
    """A file that was written."""

    output: Path
    format: Format
    name: str
    """The network's."""
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), "format": self.format, "name": self.name, "bytes": self.bytes}


def export(run: str | Path, output: str | Path, *, form: Format | None = None, force: bool = False) -> ExportReport:
    """Writes the trained network of a run's folder as .tflite or .onnx; its input is float32 in [-1, 1].

    `form` is the format, by default what the file's ending says. An earlier model at `output` is replaced, with `force`
    any file. Raises OutputError for a file that must not or cannot be written, FormatError for a folder that holds no
    finished network.
    """
    folder, place = Path(run), Path(output)
    wanted = form_of(place, form)
    others = RUN_FILES.keys() - {NETWORK if wanted == "tflite" else NETWORK_ONNX}
    check_outputs([Output("--output", place, wanted)], [folder / name for name in sorted(others)], force=force)
    compressed = compressed_file(folder)
    if compressed is not None:
        raise FormatError(
            f"{folder}: a compression's folder has its files in every form already: {compressed.name}, and others"
        )
    architecture, network = load_network(folder)
    write_network(network, place, wanted)
    return ExportReport(place, wanted, architecture.name, place.stat().st_size)


def write_network(
    network: TorchGraph,
    path: Path,
    form: Format,
    dtype: Dtype = "float32",
    samples: ImageSplit | None = None,
    interface: Interface | None = None,
) -> None:
    """Writes the network with BatchNorm folded, whole or not at all. The input is NHWC for .tflite and NCHW for .onnx,
    float32 as the images are normalized, or int8 of that by the input's scale.

    An .onnx has the inputs and outputs of another model with its `interface`. An int8 .tflite takes its scales from
    some `samples`, spread over their classes: training images. Raises FormatError when they are missing or of another
    size, and for int8 in an .onnx.
    """
    from netlathe.archspace.forms.torch import folded_weights

    weights = folded_weights(network)
    if form == "tflite":
        from netlathe.archspace.forms.tflite import write_tflite

        if dtype == "int8" and samples is None:
            raise FormatError(f"{path}: int8 scales come from images of the network's task; give training images")
        given = calibration(samples) if dtype == "int8" and samples is not None else None
        content = write_tflite(network.graph, weights, dtype=dtype, samples=given)
    else:
        from netlathe.archspace.forms.onnx import write_onnx

        if dtype == "int8":
            raise FormatError(f"{path}: only .tflite files are written in int8; write .tflite, or float32")
        content = write_onnx(network.graph, weights, interface=interface)
    write_whole(path, content)


def export_all(
    network: TorchGraph,
    folder: Path,
    data: ImageData,
    *,
    accuracy: float | None = None,
    compute: Compute | None = None,
    int8: bytes | None = None,
    interface: Interface | None = None,
) -> dict[str, Exported]:
    """Writes network.tflite, network_int8.tflite and network.onnx, and judges each on the test images. By the names
    'tflite', 'int8' and 'onnx'.

    `accuracy`: the network's own on the test images; measured when missing. `int8`: content of the int8 file, where it
    is not to be written from the weights. `interface`: inputs and outputs of the .onnx. Raises FormatError where a
    network has no such form.
    """
    from netlathe.training import evaluate

    if accuracy is None:
        accuracy = evaluate(network, data.test, compute=compute)
    kinds: list[tuple[str, str, Format, Dtype]] = [
        ("tflite", NETWORK, "tflite", "float32"),
        ("int8", NETWORK_INT8, "tflite", "int8"),
        ("onnx", NETWORK_ONNX, "onnx", "float32"),
    ]
    exported = {}
    for name, file, form, dtype in kinds:
        path = folder / file
        if dtype == "int8" and int8 is not None:
            write_whole(path, int8)
        else:
            write_network(network, path, form, dtype, data.train, interface)
        own, warning = judged_file(path, form, dtype, data.test, accuracy)
        exported[name] = Exported(path, form, dtype, path.stat().st_size, own, warning)
    return exported


def judged_file(
    path: Path, form: Format, dtype: Dtype, test: ImageSplit, accuracy: float
) -> tuple[float | None, str | None]:
    """A file's accuracy on the test images, and a warning where it cannot be told, or is lower by more than is usual in
    that dtype than the network's own `accuracy`."""
    if form == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        return None, f"{path.name} was not judged: {_NO_ONNXRUNTIME}"
    try:
        own = file_accuracy(path, test)
    except FormatError as error:
        if dtype != "int8":
            raise
        # Runtimes refuse scales that are too far apart; the float files are none the worse for it.
        return None, f"{path.name} cannot be used: {error}; its network's values are of too unlike sizes for int8"
    if accuracy - own <= ALLOWED_LOSS[dtype]:
        return own, None
    advice = "train longer, or use the float32 file" if dtype == "int8" else "do not use this file, and report this"
    told, wanted = (percent_within(share, len(test), 2) for share in (own, accuracy))
    return own, f"{path.name} classifies {told} right where PyTorch does {wanted}; {advice}"


def file_accuracy(path: Path, split: ImageSplit, *, threads: int | None = None) -> float:
    """Share of `split` that an exported file classifies right: a .tflite through LiteRT, an .onnx through ONNX Runtime,
    image by image, on so many threads (by default, the processor's).

    Raises FormatError for a file that cannot be run or takes other images, and where ONNX Runtime is not installed.
    """
    return int((file_classes(path, split, threads=threads) == split.labels.numpy()).sum()) / len(split)


def file_classes(path: Path, split: ImageSplit, *, threads: int | None = None) -> NDArray[np.int64]:
    """The class of each image of `split`, (N,), as an exported file tells it. Takes and raises what file_accuracy
    does."""
    import torch

    parts = torch.split(torch.arange(len(split)), 64)
    threads = min(threads or os.cpu_count() or 1, len(parts))
    open_file = _open_onnx if form_of(path, None) == "onnx" else _open_tflite
    free: queue.SimpleQueue[Classifier] = queue.SimpleQueue()
    for _ in range(threads):
        free.put(open_file(path, (1, *split.shape)))

    def classes_of(part: torch.Tensor) -> list[int]:
        classify = free.get()
        try:
            images = split.normalization(split.load(part)).numpy()
            return [int(classify(image[None]).argmax()) for image in images]
        finally:
            free.put(classify)

    with ThreadPoolExecutor(threads) as pool:
        return np.array([one for found in pool.map(classes_of, parts) for one in found], np.int64)


def calibration(split: ImageSplit, images: int = CALIBRATION_IMAGES) -> Iterator[list[FloatArray]]:
    """Single images (1, H, W, C), every class in turn."""
    import torch

    from netlathe.training.images import spread_over_classes

    for index in spread_over_classes(split.labels.numpy(), images, 0):
        x = split.normalization(split.load(torch.tensor([index])))
        yield [np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())]


def _open_tflite(path: Path, shape: tuple[int, ...]) -> Classifier:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: LiteRT cannot run it ({_first_line(error)}); export it again") from error
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    _check_input(path, tuple(int(size) for size in source["shape"]), (shape[0], *shape[2:], shape[1]))

    def classify(x: FloatArray) -> FloatArray:
        interpreter.set_tensor(source["index"], quantized(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), source))
        interpreter.invoke()
        return dequantized(interpreter.get_tensor(sink["index"]), sink)

    return classify


def _open_onnx(path: Path, shape: tuple[int, ...]) -> Classifier:
    try:
        import onnxruntime
    except ImportError as error:
        raise FormatError(f"{path}: cannot be judged: {_NO_ONNXRUNTIME}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # the exception tells
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise FormatError(f"{path}: ONNX Runtime cannot run it ({_first_line(error)}); export it again") from error
    source = session.get_inputs()[0]
    order = (0, 2, 3, 1) if tuple(source.shape) == (shape[0], *shape[2:], shape[1]) else (0, 1, 2, 3)
    _check_input(path, tuple(source.shape), tuple(shape[axis] for axis in order))
    return lambda x: np.asarray(session.run(None, {source.name: np.ascontiguousarray(x.transpose(order))})[0])


def _check_input(path: Path, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise FormatError(f"{path}: takes {found}, the images are {shape}; judge it on images of its own size")


def quantized(x: FloatArray, tensor: dict[str, Any]) -> NDArray[Any]:
    """Values in the type of a LiteRT tensor, by its scale and zero point."""
    dtype, (scale, zero_point) = tensor["dtype"], tensor["quantization"]
    if dtype is np.float32:
        return x
    limits = np.iinfo(dtype)
    quantized: NDArray[Any] = np.clip(np.rint(x / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return quantized


def dequantized(values: NDArray[Any], tensor: dict[str, Any]) -> FloatArray:
    """Values of a LiteRT tensor as real ones."""
    scale, zero_point = tensor["quantization"]
    if tensor["dtype"] is np.float32:
        return values
    return np.asarray((values.astype(np.float32) - zero_point) * scale, np.float32)


def _first_line(error: Exception) -> str:
    return f"{(str(error) or repr(error)).splitlines()[0]:.160}"
