"""What a user may point at: a network's or block's name, an architecture file, a run, a .tflite or .onnx file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from archspace.blocks import Block, parse_block
from archspace.errors import BlockError, FormatError, SpaceError
from archspace.graph import Graph
from archspace.networks import network
from archspace.spaces import Architecture
from netlathe.run import ARCHITECTURE


@dataclass(frozen=True)
class Part:
    """A block of a network, by name where it has one."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class Subject:
    """A network or a single block, ready to be shown, predicted or timed."""

    name: str
    graph: Graph
    parts: tuple[Part, ...]


def find_subject(what: str) -> Subject:
    """Raises FormatError for a file that cannot be read, SpaceError for a name that is unknown."""
    path = Path(what)
    if path.is_dir():
        return _of_architecture(Architecture.load(path / ARCHITECTURE))
    if path.is_file():
        return _of_file(path)
    if path.suffix in (".json", ".tflite", ".onnx") or "/" in what:
        raise FormatError(f"{what}: there is no such file")
    return _of_name(what)


def _of_file(path: Path) -> Subject:
    if path.suffix == ".json":
        return _of_architecture(Architecture.load(path))
    if path.suffix == ".tflite":
        from archspace.forms.tflite_reader import read_tflite

        graph = read_tflite(path)
    elif path.suffix == ".onnx":
        from archspace.forms.onnx import read_onnx

        graph = read_onnx(path)
    else:
        raise FormatError(f"{path}: expected an architecture (.json), a .tflite or an .onnx file")
    parts = tuple(Part(_label(segment), segment) for segment in graph.segments())
    return Subject(path.stem, graph, parts)


def _label(graph: Graph) -> str:
    """The scope that a segment's nodes share, or what its first node is called."""
    first = graph.nodes[0]
    return first.scope or first.name


def _of_architecture(architecture: Architecture) -> Subject:
    parts = tuple(Part(block.name, block.graph()) for block in architecture.blocks)
    return Subject(architecture.name, architecture.graph(), parts)


def _of_name(name: str) -> Subject:
    try:
        return _of_architecture(network(name))
    except SpaceError as unknown_network:
        try:
            block: Block = parse_block(name)
        except BlockError as unknown_block:
            if name.partition("_")[0] in ("mbconv", "conv", "sepconv", "avgpool", "maxpool", "linear", "skip", "zero"):
                raise unknown_block from None
            raise SpaceError(
                f"{unknown_network}; nor is it a file, a run's folder, or a block such as "
                "mbconv_k3_e6_s1_c16-16_56x56_relu6"
            ) from None
    return Subject(name, block.graph(), (Part(name, block.graph()),))
