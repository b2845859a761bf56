"""A trained network as a file for the device, and the proof that the file still classifies as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from archspace.errors import FormatError

if TYPE_CHECKING:
    from archspace.forms.torch import TorchGraph
    from search.images import ImageSplit

Format = Literal["tflite", "onnx"]


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


def export(network: TorchGraph, path: Path, form: Format) -> None:
    """Writes the network with BatchNorm folded; float32 input in [-1, 1], NHWC for .tflite and NCHW for .onnx."""
    from archspace.forms.torch import folded_weights

    weights = folded_weights(network)
    if form == "tflite":
        from archspace.forms.tflite import write_tflite

        content = write_tflite(network.graph, weights)
    else:
        from archspace.forms.onnx import write_onnx

        content = write_onnx(network.graph, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def file_accuracy(path: Path, split: ImageSplit) -> float:
    """Share of `split` that an exported .tflite classifies right, image by image, through LiteRT."""
    from search.images import to_input

    classify = _classifier(path)
    right = 0
    for image, label in zip(split.images, split.labels.tolist(), strict=True):
        x = to_input(image[None]).numpy()
        right += int(classify(x).argmax()) == label
    return right / len(split)


def _classifier(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def classify(x: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(source, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(sink))

    return classify
