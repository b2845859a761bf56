"""Networks and blocks that a user may point at: by a name, an architecture file, a run, a .tflite or .onnx file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from netlathe.archspace.block_names import is_block_name, parse_block
from netlathe.archspace.blocks import Block
from netlathe.archspace.errors import FormatError, SpaceError
from netlathe.archspace.graph import Graph
from netlathe.archspace.networks import network
from netlathe.archspace.spaces import Architecture
from netlathe.runs.files import ARCHITECTURE


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


Given = str | Path | Graph | Block | Architecture
"""A network or block: its name, a file of it, a run's folder, or the object itself."""


def find_subject(given: Given, *, batch: int = 1) -> Subject:
    """Raises FormatError for a file that cannot be read or has another batch, SpaceError for a name that is unknown."""
    if isinstance(given, Architecture):
        return _of_blocks(given, batch)
    if isinstance(given, Graph):
        return _of_graph("graph", given, batch)
    if not isinstance(given, str | Path):
        return _of_block(given, batch)
    what, path = str(given), Path(given)
    if what and (path / ARCHITECTURE).is_file():
        return _of_blocks(Architecture.load(path / ARCHITECTURE), batch)
    if path.is_file():
        return _of_file(path, batch)
    if not what or not ("/" in what or path.suffix in (".json", ".tflite", ".onnx")):
        return _of_name(what, batch)  # also where a folder happens to be called like a network
    if path.is_dir():
        raise FormatError(f"{what}: this folder is not a run's, as it holds no {ARCHITECTURE}")
    raise FormatError(f"{what}: there is no such file")


def _of_file(path: Path, batch: int) -> Subject:
    if path.suffix == ".json":
        return _of_blocks(Architecture.load(path), batch)
    read, read_precision = _readers(path)
    return replace(_of_graph(str(path), read(path), batch), name=path.stem, dtype=read_precision(path))


def _of_graph(name: str, graph: Graph, batch: int) -> Subject:
    found = graph.input_shape[0]
    if found != batch:
        raise FormatError(f"{name}: takes batches of {found}, but the predictor was fitted on batches of {batch}")
    parts = (Part(_label(segment), segment) for segment in graph.segments())
    return Subject(name, graph, tuple(parts))


def _readers(path: Path) -> tuple[Callable[[Path], Graph], Callable[[Path], str]]:
    """Reader of a file's graph and dtype."""
    if path.suffix == ".tflite":
        from netlathe.archspace.forms.tflite_reader import read_precision, read_tflite

        return read_tflite, read_precision
    if path.suffix == ".onnx":
        from netlathe.archspace.forms.onnx import read_onnx, read_onnx_precision

        return read_onnx, read_onnx_precision
    raise FormatError(f"{path}: expected an architecture (.json), a .tflite or an .onnx file")


def _label(segment: Graph) -> str:
    """The scope that a segment's nodes share, or what its first node is called."""
    return segment.nodes[0].scope or segment.nodes[0].name


def _of_blocks(architecture: Architecture, batch: int) -> Subject:
    parts = (Part(block.name, block.graph(batch)) for block in architecture.blocks)
    return Subject(architecture.name, architecture.graph(batch), tuple(parts))


def _of_name(name: str, batch: int) -> Subject:
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
