"""Networks and blocks that a user may point at: by a name, also of timm and torchvision, a function in a Python file,
an architecture file, a run, a .tflite or .onnx file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

from netlathe.archspace.errors import BlockError, FormatError, SpaceError
from netlathe.archspace.forms.structure import FileContent
from netlathe.archspace.graph import Graph
from netlathe.made_modules import is_made_name, made_graph
from netlathe.runs.files import ARCHITECTURE, compressed_file

if TYPE_CHECKING:
    import torch

    from netlathe.archspace.blocks import Block
    from netlathe.archspace.forms.interface import TrainedModel
    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.archspace.spaces import Architecture


@dataclass(frozen=True)
class Part:
    """A block of a network, by its canonical name where it has one."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class Subject:
    """A network or a single block, ready to be shown, predicted or timed."""

    name: str
    graph: Graph
    parts: tuple[Part, ...]
    dtype: str | None = None
    """Type that the file computes in; architectures have none."""
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed in reading it."""


Given = Union[str, Path, Graph, "Block", "Architecture", "torch.nn.Module", "torch.export.ExportedProgram"]
"""A network or block: its name, a file of it, a run's folder, or the object itself."""


def find_subject(
    given: Given,
    *,
    batch: int | None = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    example_inputs: ExampleInputs | None = None,
) -> Subject:
    """Graph of what is given, for batches of that many images; without a batch, files keep theirs. `shapes` are those
    of a file's inputs that it leaves open, by name; `example_inputs` what a torch module is called with.

    Raises FormatError for a file that cannot be read or has another batch, SpaceError for a name that is unknown.
    """
    if not isinstance(given, str | Path):
        return _of_object(given, batch, example_inputs)
    what, path = str(given), Path(given)
    if is_made_name(what):
        return replace(_of_graph(what, made_graph(what, batch=batch or 1, shapes=shapes), batch), dtype="float32")
    if what and (path / ARCHITECTURE).is_file():
        return _of_architecture_file(path / ARCHITECTURE, batch or 1)
    compressed = compressed_file(path) if what else None
    if compressed is not None:
        return replace(_of_file(compressed, batch, None), name=path.name)
    if path.is_file():
        return _of_file(path, batch, shapes)
    if not what or not ("/" in what or path.suffix.lower() in (".json", ".tflite", ".onnx", ".pt2")):
        return _of_name(what, batch or 1)  # also where a folder happens to be called like a network
    if path.is_dir():
        lacks = (
            f"as it holds no {ARCHITECTURE}" if model_files(path) else f"and holds no {' or '.join(MODEL_FILES)} file"
        )
        raise FormatError(f"{what}: this folder is not a run's, {lacks}")
    raise FormatError(f"{what}: there is no such file")


def _of_object(
    given: Graph | Block | Architecture | torch.nn.Module | torch.export.ExportedProgram,
    batch: int | None,
    example_inputs: ExampleInputs | None,
) -> Subject:
    from netlathe.archspace.spaces import Architecture

    if isinstance(given, Architecture):
        return _of_blocks(given, batch or 1)
    if isinstance(given, Graph):
        return _of_graph("graph", given, batch)
    if is_torch(given, "nn", "Module"):
        from netlathe.archspace.forms.torch_program import read_module

        if example_inputs is None:
            raise FormatError("a module needs example inputs: read(module, torch.zeros(1, 3, 224, 224))")
        return _of_graph(type(given).__name__, read_module(given, example_inputs), batch)  # type: ignore[arg-type]
    if is_torch(given, "export", "ExportedProgram"):
        from netlathe.archspace.forms.torch_program import read_program

        return _of_graph("program", read_program(given), batch)  # type: ignore[arg-type]
    if not callable(getattr(given, "graph", None)):
        raise FormatError(f"a name, path, graph, block, architecture or torch module is needed, got {given!r:.60}")
    return _of_block(given, batch or 1)  # type: ignore[arg-type]


MODEL_FILES = (".onnx", ".tflite")
"""Endings of files that hold a network, in lower case."""


def with_contents(given: Iterable[Given]) -> list[Given]:
    """The same with the model files below each folder that is no run's in its place, if there are any."""
    found: list[Given] = []
    for one in given:
        path = Path(one) if isinstance(one, str | Path) and str(one) else None
        if path is None or not path.is_dir() or is_run(path) or not _is_path(str(one)):
            found.append(one)
            continue
        found += model_files(path) or [one]
    return found


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a search or of a compression that has found a network."""
    return (folder / ARCHITECTURE).is_file() or compressed_file(folder) is not None


def model_files(folder: Path) -> list[Path]:
    """The model files below a folder, sorted by path."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in MODEL_FILES and file.is_file())


def is_torch(given: object, module: str, name: str) -> bool:
    """Whether it is an object of that class; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, getattr(getattr(torch, module), name))


def _is_path(what: str) -> bool:
    """Whether it is no network's name, as a folder may be called like one."""
    try:
        _of_name(what, 1)
    except (SpaceError, BlockError):
        return True
    return False


def _of_file(path: Path, batch: int | None, shapes: Mapping[str, Sequence[int]] | None) -> Subject:
    if path.suffix.lower() == ".json":
        return _of_architecture_file(path, batch or 1)
    found = _reader(path)(path, shapes=shapes, batch=batch or 1)
    notes = (f"{path.name} leaves its batch open; it is taken as {found.graph.batch}",) if found.has_open_batch else ()
    subject = _of_graph(str(path), found.graph, batch)
    return replace(subject, name=path.stem, dtype=found.precision, notes=notes)


def _of_graph(name: str, graph: Graph, batch: int | None) -> Subject:
    found = graph.batch
    if batch is not None and found != batch:
        raise FormatError(f"{name}: takes batches of {found}, but the predictor was fitted on batches of {batch}")
    parts = (Part(_label(segment), segment) for segment in graph.segments())
    return Subject(name, graph, tuple(parts))


def _reader(path: Path) -> Callable[..., FileContent]:
    """Reader of a model file."""
    if path.suffix.lower() == ".tflite":
        from netlathe.archspace.forms.tflite_reader import read_tflite_file

        return read_tflite_file
    if path.suffix.lower() == ".onnx":
        from netlathe.archspace.forms.onnx import read_onnx_file

        return read_onnx_file
    if path.suffix.lower() == ".pt2":
        raise FormatError(
            f"{path}: an exported program may run code as it is opened. If you trust it, open it yourself: "
            f"read(torch.export.load({str(path)!r})), or name FILE.py:FUNCTION, of a function that returns it"
        )
    raise FormatError(f"{path}: expected an architecture (.json), a .tflite or an .onnx file")


def weights_reader(path: Path) -> Callable[..., TrainedModel]:
    """Reader of a model file's graph and weights. Raises FormatError for a file of another kind."""
    if path.suffix.lower() == ".tflite":
        from netlathe.archspace.forms.tflite_reader import read_tflite_weights

        return read_tflite_weights
    if path.suffix.lower() == ".onnx":
        from netlathe.archspace.forms.onnx import read_onnx_weights

        return read_onnx_weights
    raise FormatError(f"{path}: weights are read of .tflite and .onnx files, torch modules and exported programs")


def _label(segment: Graph) -> str:
    """The scope that a segment's nodes share, or what its first node is called."""
    return segment.nodes[0].scope or segment.nodes[0].name


def _of_architecture_file(path: Path, batch: int) -> Subject:
    from netlathe.archspace.spaces import Architecture

    return _of_blocks(Architecture.load(path), batch)


def _of_blocks(architecture: Architecture, batch: int) -> Subject:
    parts = (Part(block.name, block.graph(batch)) for block in architecture.blocks)
    return Subject(architecture.name, architecture.graph(batch), tuple(parts))


def _of_name(name: str, batch: int) -> Subject:
    from netlathe.archspace.block_names import is_block_name, parse_block  # a model file needs none of these
    from netlathe.archspace.networks import network

    if is_block_name(name):
        return _of_block(parse_block(name), batch)
    try:
        return _of_blocks(network(name), batch)
    except SpaceError as error:
        raise SpaceError(
            f"{error}; nor is it a file, a run's folder, or a block such as mbconv_k3_e6_s1_c16-16_56x56_relu6"
        ) from None


def _of_block(block: Block, batch: int) -> Subject:
    graph = block.graph(batch)
    return Subject(block.name, graph, (Part(block.name, graph),))
