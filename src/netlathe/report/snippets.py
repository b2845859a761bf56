"""Lines of code that use a run's files."""

from __future__ import annotations

from collections.abc import Sequence

from netlathe.report.page import Snippet
from netlathe.report.run_content import FileRow, RunContent


def snippets_of(run: RunContent) -> list[Snippet]:
    """A snippet for each file of a run that is a network, as far as its shapes are recorded."""
    shapes = _shapes(run)
    if shapes is None:
        return []
    image, classes = shapes
    return [made for file in run.files if (made := _snippet(run, file, image, classes))]


def _shapes(run: RunContent) -> tuple[tuple[int, int, int], int] | None:
    """(height, width, channels) of its images, and the number of scores."""
    if not run.costs:
        return None
    found = run.costs[0]["networks"]["after"]
    shape, scores = found.get("input_shape", ()), found.get("output_shape", ())
    return ((shape[1], shape[2], shape[3]), scores[-1]) if len(shape) == 4 and scores else None


def _snippet(run: RunContent, file: FileRow, image: tuple[int, int, int], classes: int) -> Snippet | None:
    height, width, channels = image
    note = f"{file.path.name}, {size(file.bytes)}"
    name = file.path.name
    if file.form == "program":
        return Snippet(
            "PyTorch",
            f"{note}; float32 images normalized as {run.normalization}",
            _lines(
                "import torch",
                f"program = torch.export.load({name!r})",
                "scores = program.module()(*program.example_inputs[0])",
            ),
        )
    if file.form in ("tflite", "mixed"):
        return Snippet(
            "TFLite on Android (Kotlin)",
            f"{note}; float32 (1, {height}, {width}, {channels}) normalized as {run.normalization}",
            _lines(
                f'val network = Interpreter(FileUtil.loadMappedFile(context, "{name}"))',
                f"val scores = Array(1) {{ FloatArray({classes}) }}",
                f"network.run(image, scores)  // image: ByteBuffer of {4 * height * width * channels} bytes",
            ),
        )
    if file.form == "int8":
        return Snippet(
            "LiteRT in Python",
            f"{note}; the scale of its int8 input is in its details",
            _lines(
                "from ai_edge_litert.interpreter import Interpreter",
                f"network = Interpreter({name!r})",
                "network.allocate_tensors(); print(network.get_input_details())",
            ),
        )
    if file.form == "onnx":
        return Snippet(
            "ONNX Runtime",
            f"{note}; float32 images normalized as {run.normalization}",
            _lines(
                "import numpy, onnxruntime",
                f"network = onnxruntime.InferenceSession({name!r}); image = network.get_inputs()[0]",
                "scores = network.run(None, {image.name: numpy.zeros(image.shape, numpy.float32)})[0]",
            ),
        )
    return None


def torch_snippet(run: RunContent) -> Snippet | None:
    """The trained torch module of a search's run; a compression has its program."""
    shapes = _shapes(run)
    if run.kind != "run" or shapes is None:
        return None
    (height, width, channels), _ = shapes
    return Snippet(
        "PyTorch",
        f"weights.npz; float32 (1, {channels}, {height}, {width}) normalized as {run.normalization}, in eval mode",
        _lines(
            "import torch, pathlib, netlathe.runs.files as files",
            f"architecture, network = files.load_network(pathlib.Path({str(run.folder)!r}))",
            f"scores = network(torch.zeros(1, {channels}, {height}, {width}))",
        ),
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def size(count: int) -> str:
    """1234567 -> '1.23 MB', 1234 -> '1.2 kB'."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def forms(files: Sequence[FileRow]) -> tuple[tuple[str, str], ...]:
    """Facts on files: what each is, and how large."""
    return tuple((file.path.name, f"{file.form}, {size(file.bytes)}") for file in files)
