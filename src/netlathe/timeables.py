"""Networks and files that a user may have timed, and what a device runs of them: a model file as it is, or one in the
device's format."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.model_file import FileFormat, ModelFile, open_model_file
from netlathe.archspace.graph import Graph
from netlathe.made_modules import is_made_name
from netlathe.runs.files import compressed_file
from netlathe.subjects import Given, Subject, find_subject

OWN_DEVICE: dict[FileFormat, str] = {"tflite": "local", "onnx": "onnxruntime"}
"""Runtime of each format here."""


@dataclass(frozen=True)
class Timeable:
    """A network or file to be timed."""

    name: str
    read: Callable[[], Subject]
    """Its graph, where netlathe can read it. Raises FormatError."""
    file: ModelFile | None = None
    """The file that it is, to be run as it is."""

    @cached_property
    def subject(self) -> Subject:
        return self.read()


def gather(what: Sequence[Given], shapes: Mapping[str, Sequence[int]], batch: int) -> list[Timeable]:
    """Subjects that were given, by name and in order, each once. Raises FormatError for files and shapes that cannot be
    run, SpaceError for a name that is unknown."""
    found: dict[str, Timeable] = {}
    for one in what:
        timeable = _timeable(one, shapes, batch)
        found.setdefault(timeable.name, timeable)
    if shapes and not any(map(takes_shapes, what)):
        raise FormatError("--shape gives sizes to the inputs of a .tflite or .onnx file, and none is given")
    return list(found.values())


def takes_shapes(given: Given) -> bool:
    """Whether its inputs may be given sizes: a model file, or the name of what makes a network."""
    return _is_model_file(given) or (isinstance(given, str) and is_made_name(given))


def _is_model_file(given: Given) -> bool:
    is_named_so = isinstance(given, str | Path) and Path(given).suffix.lower().removeprefix(".") in get_args(FileFormat)
    return is_named_so and not Path(given).is_dir()  # type: ignore[arg-type]


def _timeable(given: Given, shapes: Mapping[str, Sequence[int]], batch: int) -> Timeable:
    path = Path(given) if isinstance(given, str | Path) else None
    if path is not None and str(given) and (compressed := compressed_file(path)) is not None:
        return replace(_timeable(compressed, {}, batch), name=str(given))
    if path is None or not _is_model_file(given):
        subject = find_subject(given, batch=batch, shapes=shapes if takes_shapes(given) else None)
        return Timeable(str(given) if path else subject.name, lambda: subject)
    file = open_model_file(path, shapes)
    return Timeable(str(given), lambda: _read(file), file)


def _read(file: ModelFile) -> Subject:
    """The file's graph in the sizes that it is run with, whatever its batch."""
    source: Any = file.path
    try:
        if file.format == "tflite":
            from netlathe.archspace.forms.tflite_outline import with_shapes
            from netlathe.archspace.forms.tflite_reader import read_tflite_file

            source = with_shapes(file.path.read_bytes(), file) if file.resized else source
            found = read_tflite_file(source)
            return Subject(file.path.stem, found.graph, (), found.precision)
        from netlathe.archspace.forms.onnx import read_onnx_file
        from netlathe.archspace.forms.onnx_outline import fixed

        source = fixed(file.path.read_bytes(), file) if file.resized else source
        found = read_onnx_file(source)
        return Subject(file.path.stem, found.graph, (), found.precision)
    except FormatError as error:
        path = f"{file.path}: "
        raise FormatError(path + str(error).removeprefix(path)) from error


def run_as(one: Timeable, wanted: FileFormat | None, address: str) -> tuple[ModelFile | Graph, str]:
    """Form that a device runs which takes files of this format, or none, and a remark where that is not the file
    itself.

    Raises FormatError where it is neither such a file nor anything that netlathe could write as one.
    """
    if one.file is None or (wanted is not None and one.file.format == wanted):
        return one.file or one.subject.graph, ""
    own = OWN_DEVICE[one.file.format]
    runs = f"runs .{wanted} files" if wanted else "runs networks that netlathe reads"
    try:
        graph = one.subject.graph
        _check_translatable(graph)
    except FormatError as error:
        reason = str(error).removeprefix(f"{one.file.path}: ")
        raise FormatError(
            f"{one.name}: {address} {runs}, and netlathe cannot translate this .{one.file.format} file ({reason}); "
            f"time it with --device {own}, or convert it with the tools of its maker"
        ) from error
    what = f"a .{wanted} file that netlathe wrote of it" if wanted else "the network that netlathe read in it"
    return graph, f"{one.name} runs on {address} as {what}, with random weights in the device's own dtype"


def _check_translatable(graph: Graph) -> None:
    """Raises FormatError for a graph of a file that has no other form."""
    from netlathe.archspace.forms.structure import check_writable

    if graph.opaque_nodes:
        raise FormatError(f"netlathe has no op like its {graph.opaque_nodes[0].op.name}")
    check_writable(graph, "another form")


def written(graph: Graph, wanted: FileFormat, dtype: str, folder: Path) -> ModelFile:
    """The graph as a file with random weights. Raises FormatError where it has none."""
    path = folder / f"{graph.key}-{dtype}.{wanted}"
    if wanted == "tflite":
        from netlathe.archspace.forms.tflite import write_tflite

        path.write_bytes(write_tflite(graph, dtype=dtype))
    else:
        from netlathe.archspace.forms.onnx import write_onnx

        path.write_bytes(write_onnx(graph))
    return open_model_file(path)


def exported(module: Any, example_inputs: Any, folder: Path) -> Path:
    """A torch module as an .onnx file of these inputs' sizes. Raises FormatError where torch cannot export it."""
    from netlathe.archspace.forms.torch_program import save_module

    path = Path(tempfile.mkdtemp(dir=folder)) / f"{type(module).__name__}.onnx"
    save_module(module, example_inputs, path)
    return path
