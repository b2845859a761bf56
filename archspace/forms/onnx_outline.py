"""Surroundings of the network in an .onnx file: inputs, kinds of ops, and whether its weights are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, TensorProto, helper

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.model_file import ModelFile, ModelInput
from netlathe.archspace.forms.onnx_limits import check_messages

_MOST_BYTES = 2**31 - 1
_CONTROL_FLOW = ("If", "Loop", "Scan")
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")


def read_outline(path: Path) -> ModelFile:
    """The .onnx file at `path`, sizes that it leaves open as None.

    Raises FormatError for what is no whole .onnx file or lacks its weights, OSError where it cannot be read.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise FormatError(
            f"{path}: has {size / 2**30:.1f} GB, and an .onnx file ends at 2 GB; keep the weights beside it "
            "(onnx.save_model(..., save_as_external_data=True))"
        )
    try:
        content = path.read_bytes()
        check_messages(content)
        model = ModelProto.FromString(content)
    except (DecodeError, FormatError) as error:
        raise FormatError(
            f"{path}: {str(error) if isinstance(error, FormatError) else 'not an .onnx file, or a truncated one'}"
            f" ({size} bytes; an encrypted one has to be decrypted first)"
        ) from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise FormatError(f"{path}: not an .onnx file, as version, opset or ops are missing; check the download")
    _check_weights(path, model)
    stored = {tensor.name for tensor in model.graph.initializer}
    nodes = list(_nodes(model.graph))
    own = {(function.domain, function.name) for function in model.functions}
    custom = {
        f"{node.domain}.{node.op_type}"
        for node in nodes
        if node.domain not in _STANDARD and (node.domain, node.op_type) not in own
    }
    return ModelFile(
        path, "onnx", tuple(_input(path, one) for one in model.graph.input if one.name not in stored),
        tuple(sorted(custom)), tuple(kind for kind in _CONTROL_FLOW if any(node.op_type == kind for node in nodes)),
    )  # fmt: skip


def _nodes(graph: Any) -> Iterator[Any]:
    """Those of inner graphs as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _check_weights(path: Path, model: ModelProto) -> None:
    """Raises FormatError where weights that are kept beside the file are not all there."""
    places: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            numbers = [entries.get(name, "0") for name in ("offset", "length")]
            end = sum(int(number) for number in numbers if number.isdigit())
            places[entries.get("location", "")] = max(end, places.get(entries.get("location", ""), 0))
    for location, end in places.items():
        beside = path.parent / location
        if not location or not beside.is_file():
            raise FormatError(
                f"{path}: keeps its weights in {location or 'another file'!r}, which is not beside it; put it into "
                f"{path.parent}, or save the model in one file (onnx.save_model)"
            )
        if beside.stat().st_size < end:
            raise FormatError(
                f"{path}: its weights in {location!r} are truncated: they end at byte {end}, that file at byte "
                f"{beside.stat().st_size}; fetch it again"
            )


def _input(path: Path, value: Any) -> ModelInput:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise FormatError(f"{path}: input {value.name!r} is a {kind or 'value'}, and only tensors can be made up")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise FormatError(f"{path}: input {value.name!r} has not even a number of dimensions; export it with a shape")
    sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    if tensor.elem_type == TensorProto.STRING:
        return ModelInput(value.name, "string", sizes)
    try:
        return ModelInput(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, sizes)
    except KeyError:
        raise FormatError(f"{path}: input {value.name!r} has no type that is known ({tensor.elem_type})") from None


def fixed(content: bytes, file: ModelFile) -> bytes:
    """The content with the sizes that its inputs are run with in the place of open ones."""
    model = ModelProto.FromString(content)
    shapes = {one.name: one.shape for one in file.inputs}
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    del model.graph.value_info[:]  # these may hold the open sizes, too
    return bytes(model.SerializeToString())
