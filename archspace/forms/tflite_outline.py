"""Surroundings of the network in a .tflite file: inputs, kinds of ops, and whether all of the file is there."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.model_file import ModelFile, ModelInput

T = TypeVar("T")

_IDENTIFIER = b"TFL3"
_MOST_ITEMS = 4_000_000
"""Most entries of a list in the file; large networks have some ten thousand."""
_CORRUPT = (struct.error, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, MemoryError)
_CONTROL_FLOW = ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE")
_CODE_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPE_NAMES = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
_SHAPE_SLOTS = (4, 18)
"""Where a tensor's table has its shape and the one with open sizes in the schema: its first and eighth field."""


def read_outline(path: Path) -> ModelFile:
    """The .tflite file at `path`, sizes that it leaves open as None.

    Raises FormatError for what is no whole .tflite file, OSError where it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] != _IDENTIFIER:
            raise FormatError(
                f"{path}: is no .tflite file, or an encrypted one: its identifier TFL3 is missing at byte 4; check the "
                "path and the download, or decrypt it as the app does that it comes from"
            )
        try:
            return _outline(path, data)
        except _CORRUPT as error:
            raise FormatError(
                f"{path}: the .tflite file is truncated or corrupt ({error!r:.200}); write or fetch it again"
            ) from None


def _outline(path: Path, data: mmap.mmap) -> ModelFile:
    root = schema.Model.GetRootAs(data, 0)
    if root.Version() != 3 or not root.SubgraphsLength():
        raise FormatError(
            f"{path}: only .tflite files of schema version 3 can be read, got version {root.Version()} with "
            f"{root.SubgraphsLength()} subgraphs"
        )
    _check_buffers(path, root, len(data))
    graph = root.Subgraphs(0)
    inputs = tuple(_input(graph.Tensors(int(index))) for index in _vector(graph.InputsAsNumpy()))
    if not graph.OutputsLength() or not graph.OperatorsLength():
        raise FormatError(f"{path}: computes nothing: it has {graph.OperatorsLength()} ops")
    codes = list(_each(root.OperatorCodesLength, root.OperatorCodes))
    kinds = [_CODE_NAMES.get(max(code.DeprecatedBuiltinCode(), code.BuiltinCode()), "") for code in codes]
    custom = [_text(code.CustomCode()) for code, kind in zip(codes, kinds, strict=True) if kind == "CUSTOM"]
    branches = tuple(kind for kind in kinds if kind in _CONTROL_FLOW)
    count = root.SignatureDefsLength()
    remarks = (f"has {count} signatures; the first subgraph is what is timed",) if count > 1 else ()
    return ModelFile(path, "tflite", inputs, tuple(custom), branches, remarks=remarks)


def _check_buffers(path: Path, root: Any, size: int) -> None:
    """Raises FormatError where weights end behind the end of the file."""
    for buffer in _each(root.BuffersLength, root.Buffers):
        end = buffer.Offset() + buffer.Size()
        if buffer.DataLength():
            end = buffer._tab.Vector(buffer._tab.Offset(4)) + buffer.DataLength()
        if end > size:
            raise FormatError(
                f"{path}: the .tflite file is truncated: weights end at byte {end}, the file at byte {size}; write or "
                "fetch it again"
            )


def _each(length: Callable[[], int], item: Callable[[int], T]) -> Iterator[T]:
    if not 0 <= length() <= _MOST_ITEMS:
        raise ValueError("it asks for more than any network needs")
    return (item(index) for index in range(length()))


def _vector(values: Any) -> list[int]:
    """An integer vector; an absent one, which flatbuffers reads as the number 0, is empty."""
    if not isinstance(values, np.ndarray):
        return []
    if values.size > _MOST_ITEMS:
        raise ValueError("it asks for more than any network needs")
    return [int(value) for value in values]


def _text(name: bytes | None) -> str:
    return (name or b"")[:200].decode(errors="replace")


def _input(tensor: Any) -> ModelInput:
    name, shape = _text(tensor.Name()), _vector(tensor.ShapeAsNumpy())
    signature = _vector(tensor.ShapeSignatureAsNumpy()) or shape
    if len(signature) != len(shape):
        raise ValueError(f"input {name!r} has {len(shape)} sizes and {len(signature)} in its signature")
    sizes = tuple(None if size < 1 else size for size in signature)
    has_batch = bool(sizes) and sizes[0] is None and shape[0] > 0
    return ModelInput(name, _TYPE_NAMES[tensor.Type()], sizes, batch=shape[0] if has_batch else None)


def with_shapes(content: bytes, file: ModelFile, output_shapes: Sequence[Sequence[int]] = ()) -> bytes:
    """The file's content with the sizes that its inputs are run with in the place of its own, and those of its outputs
    where they are given.

    A tensor's table is made to point to a new list of sizes, behind the end of what was there: the old one may be
    another tensor's as well.
    """
    if not file.resized:
        return content
    data = bytearray(content)
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    inputs, outputs = _vector(graph.InputsAsNumpy()), _vector(graph.OutputsAsNumpy())
    shapes = {index: one.shape for index, one in zip(inputs, file.inputs, strict=True) if one.name in file.resized}
    shapes |= {index: tuple(shape) for index, shape in zip(outputs, output_shapes, strict=False)}
    for index, shape in shapes.items():
        table = graph.Tensors(index)._tab
        data += bytes(-len(data) % 4)
        for slot in _SHAPE_SLOTS:
            if table.Offset(slot):
                place = table.Pos + table.Offset(slot)
                struct.pack_into("<I", data, place, len(data) - place)
        data += struct.pack(f"<I{len(shape)}i", len(shape), *shape)
    return bytes(data)
